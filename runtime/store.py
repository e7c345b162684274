"""The state directory: one SQLite database in WAL mode, and how its rows are written and read.

Workers and clients are separate processes, and share nothing else. What a transaction here has committed
survives SIGKILL and power loss (``synchronous=FULL``); what could not be committed raises JournalUnavailable.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kintsugi.runtime.clock import Moment

__all__ = [
    "Event",
    "JournalUnavailable",
    "Run",
    "Signal",
    "append_rows",
    "connect",
    "provision",
    "read_events",
    "read_run",
    "read_signals",
    "transaction",
]

Json = Mapping[str, Any]

VERSION = 1
BUSY_SECONDS = 10.0
"""How long a transaction waits for another process's to end."""

SCHEMA = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    payload TEXT NOT NULL,
    owner TEXT,                        -- the incarnation of the worker that carries it
    epoch INTEGER NOT NULL DEFAULT 0,  -- raised by each claim: who holds an older one is fenced off
    ended INTEGER NOT NULL DEFAULT 0,
    wall REAL NOT NULL,                -- the moment of its submission (see clock.py)
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL
);
CREATE INDEX runs_open ON runs (owner) WHERE NOT ended;
CREATE TABLE events (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
);
CREATE TRIGGER no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TABLE signals (
    signal_id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    request_id TEXT NOT NULL,
    signal_key TEXT NOT NULL,          -- the sender's: the same signal delivered again is the same row
    data TEXT NOT NULL,
    UNIQUE (run_id, kind, request_id, signal_key)
);
CREATE TABLE workers (
    incarnation TEXT PRIMARY KEY,      -- one start of one worker; its row is gone once it is held to be dead
    beat INTEGER NOT NULL DEFAULT 0    -- raised by each of its commits
);
"""


class JournalUnavailable(OSError):
    """The store could not be written or read (disk full, no permission, damage): nothing was acknowledged."""


@dataclass(frozen=True)
class Event:
    """One line of a run's journal. `at` is Unix seconds, `seq` counts from 1 (0 before it is written)."""

    kind: str
    name: str
    data: Json = field(default_factory=dict)
    at: float = 0.0
    seq: int = 0


@dataclass(frozen=True)
class Run:
    """A submitted run."""

    run_id: str
    payload: Json
    owner: str | None
    epoch: int
    ended: bool
    born: Moment


@dataclass(frozen=True)
class Signal:
    """A message to a run: a ``decision`` on a request, or an operator's ``pause``, ``resume``, …."""

    signal_id: int
    run_id: str
    kind: str
    request_id: str
    data: Json


@contextmanager
def _unavailable(doing: str) -> Iterator[None]:
    """Turn what the disk or SQLite has to say into JournalUnavailable, with what may be done about it."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        remedy = "; free some space, it is tried again" if name == "SQLITE_FULL" else ""
        raise JournalUnavailable(f"{doing}: {error} ({name}){remedy}") from error
    except OSError as error:
        raise JournalUnavailable(f"{doing}: {error}") from error


def provision(state_dir: str | os.PathLike[str]) -> None:
    """Make the state directory and its database durably; where they are there, silently do nothing."""
    folder = Path(state_dir)
    with _unavailable(f"can't set up {folder}"):
        (folder / "workers").mkdir(parents=True, exist_ok=True)
        for made in (folder, folder.parent):
            _sync_folder(made)
        # Going over to WAL needs the database to itself, so those who come at once take turns.
        with (folder / "provision.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = _connect(folder)
            try:
                if not _provisioned(connection):
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
            finally:
                connection.close()


def connect(state_dir: str | os.PathLike[str]) -> sqlite3.Connection:
    """A connection to a state directory's database, which is set up first where it is not there."""
    folder = Path(state_dir)
    with _unavailable(f"can't open {folder}"):
        connection = _connect(folder) if (folder / "journal.db").exists() else None
        if connection is not None and _provisioned(connection):
            return connection
        if connection is not None:
            connection.close()
        provision(folder)
        return _connect(folder)


def _connect(folder: Path) -> sqlite3.Connection:
    # A connection serves one thread at a time, but need not be closed by the one that opened it.
    connection = sqlite3.connect(
        folder / "journal.db", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _provisioned(connection: sqlite3.Connection) -> bool:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in {0, VERSION}:
        raise JournalUnavailable(f"the journal has format {found}, this is the runtime for format {VERSION}")
    return bool(found == VERSION)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def transaction(connection: sqlite3.Connection, *, fleeting: bool = False) -> Iterator[sqlite3.Connection]:
    """All of the block's writes, durable when it is left, or none. Raises JournalUnavailable.

    A power failure may take `fleeting` writes back. They hold the database's lock for no flush of the disk.
    """
    with _unavailable("the journal can't be written"):
        if fleeting:
            connection.execute("PRAGMA synchronous=NORMAL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            if fleeting:
                connection.execute("PRAGMA synchronous=FULL")


def append_rows(connection: sqlite3.Connection, run_id: str, events: Iterable[Event]) -> None:
    """Add events to the end of a run's journal, inside a transaction. Whether one may is up to the caller.

    Raises TypeError where an event is no JSON, before anything is written.
    """
    rows = [
        {"run_id": run_id, "at": event.at, "kind": event.kind, "name": event.name, "data": _text(event.data)}
        for event in events
    ]
    connection.executemany(
        "INSERT INTO events (run_id, seq, at, kind, name, data) VALUES (:run_id,"
        " (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE run_id = :run_id), :at, :kind, :name, :data)",
        rows,
    )


def _text(data: Json) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def read_run(connection: sqlite3.Connection, run_id: str) -> Run | None:
    """A run's row, None where it was never submitted."""
    with _unavailable("the journal can't be read"):
        row = connection.execute(
            "SELECT payload, owner, epoch, ended, wall, boot_id, boot_seconds FROM runs WHERE run_id = ?",
            (run_id,),
        ).fetchone()
    if row is None:
        return None
    return Run(run_id, json.loads(row[0]), row[1], row[2], bool(row[3]), Moment(*row[4:]))


def read_events(connection: sqlite3.Connection, run_id: str) -> list[Event]:
    """A run's journal, oldest first."""
    with _unavailable("the journal can't be read"):
        rows = connection.execute(
            "SELECT kind, name, data, at, seq FROM events WHERE run_id = ? ORDER BY seq", (run_id,)
        ).fetchall()
    return [Event(kind, name, json.loads(data), at, seq) for kind, name, data, at, seq in rows]


def read_signals(connection: sqlite3.Connection, *, run_id: str = "", after: int = 0) -> list[Signal]:
    """The signals with ids above `after`, of one run or (empty) of all, in the order of their arrival."""
    columns = "SELECT signal_id, run_id, kind, request_id, data FROM signals"
    with _unavailable("the journal can't be read"):
        if run_id:
            rows = connection.execute(
                columns + " WHERE run_id = ? AND signal_id > ? ORDER BY signal_id", (run_id, after)
            ).fetchall()
        else:
            rows = connection.execute(columns + " WHERE signal_id > ? ORDER BY signal_id", (after,)).fetchall()
    return [Signal(number, run, kind, request, json.loads(data)) for number, run, kind, request, data in rows]
