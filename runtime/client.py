"""What other processes do with runs: submit them, answer their questions, steer them, and look at them.

Every function opens the state directory for itself and lets go of it again. What one of them has done when
it returns is durable, whether or not a worker lives.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from kintsugi.runtime.clock import RunClock, moment
from kintsugi.runtime.legible import view
from kintsugi.runtime.protocol import Decision
from kintsugi.runtime.rules import canonical
from kintsugi.runtime.store import (
    Event,
    append_rows,
    connect,
    read_events,
    read_run,
    read_signals,
    transaction,
)

__all__ = ["cancel", "decide", "pause", "resume", "retry", "runs", "status", "submit"]


def submit(state_dir: str | os.PathLike[str], run_id: str, payload: Mapping[str, Any]) -> None:
    """Have a run of ``{"chain", "plan"}`` carried out; the same again is no second run.

    Raises ValueError where `run_id` was submitted with another payload, JournalUnavailable.
    """
    text = canonical(payload)
    now = moment()
    with closing(connect(state_dir)) as connection, transaction(connection):
        known = connection.execute("SELECT payload FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if known is None:
            connection.execute(
                "INSERT INTO runs (run_id, payload, wall, boot_id, boot_seconds) VALUES (?, ?, ?, ?, ?)",
                (run_id, text, now.wall, now.boot_id, now.boot_seconds),
            )
        elif known[0] != text:
            raise ValueError(f"run {run_id!r} was submitted before with another payload; take another run_id")


def decide(state_dir: str | os.PathLike[str], run_id: str, request_id: str, decision: Mapping[str, Any]) -> None:
    """Deliver a person's decision on a request; the same `decision_id` again changes nothing.

    It is kept if it comes before the run waits for it. Of two different decisions the first stands.
    Raises LookupError for an unknown run, ValueError for what is no decision, JournalUnavailable.
    """
    decision_id = Decision.from_json(decision).decision_id
    _signal(state_dir, run_id, "decision", request_id, decision_id, dict(decision))


def pause(state_dir: str | os.PathLike[str], run_id: str) -> None:
    """Let a run begin nothing new; what is under way is finished and recorded. Survives restarts."""
    _signal(state_dir, run_id, "pause")


def resume(state_dir: str | os.PathLike[str], run_id: str) -> None:
    """Let a paused run go on."""
    _signal(state_dir, run_id, "resume")


def cancel(state_dir: str | os.PathLike[str], run_id: str) -> None:
    """End a run as failed, once what is under way has been finished and recorded."""
    _signal(state_dir, run_id, "cancel")


def retry(state_dir: str | os.PathLike[str], run_id: str) -> None:
    """Try again now: cut a back-off short, grant a fresh budget, or reopen a run that has failed.

    A run that is halted because a budget is spent is given a fresh one. A failed run is carried again from
    what its journal holds, for when what made it fail has been mended. Raises LookupError,
    JournalUnavailable.
    """
    with closing(connect(state_dir)) as connection, transaction(connection):
        _known(connection, run_id)
        shown = view(read_run(connection, run_id), read_events(connection, run_id), [], set(), 0.0)
        key = secrets.token_hex(8)
        if shown["state"] == "failed" and shown["ended"]:
            _reopen(connection, run_id)
        for question in shown["questions"]:
            if question["kind"] == "budget":
                decision = {"decision_id": f"retry-{key}", "decision": "continue"}
                _insert(connection, run_id, "decision", question["request_id"], key, decision)
        _insert(connection, run_id, "retry", "", key, {})


def runs(state_dir: str | os.PathLike[str]) -> list[str]:
    """The ids of all runs, in the order of their submission."""
    with closing(connect(state_dir)) as connection:
        return [row[0] for row in connection.execute("SELECT run_id FROM runs ORDER BY rowid")]


def status(state_dir: str | os.PathLike[str], run_id: str) -> dict[str, Any]:
    """What is known of a run; see `legible.view`. Its ``state`` is ``unknown`` where there is no such run."""
    with closing(connect(state_dir)) as connection:
        # One snapshot, so that what is shown was true at one time.
        connection.execute("BEGIN")
        run = read_run(connection, run_id)
        events = read_events(connection, run_id)
        signals = read_signals(connection, run_id=run_id) if run is not None else []
        workers = {row[0] for row in connection.execute("SELECT incarnation FROM workers")}
    now = RunClock(run.born).now() if run is not None else 0.0
    return view(run, events, signals, workers, now)


def _signal(
    state_dir: str | os.PathLike[str],
    run_id: str,
    kind: str,
    request_id: str = "",
    key: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    with closing(connect(state_dir)) as connection, transaction(connection):
        _known(connection, run_id)
        _insert(connection, run_id, kind, request_id, key or secrets.token_hex(8), data or {})


def _known(connection: sqlite3.Connection, run_id: str) -> None:
    if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is None:
        raise LookupError(f"there is no run {run_id!r}; submit it first")


def _insert(
    connection: sqlite3.Connection, run_id: str, kind: str, request_id: str, key: str, data: Mapping[str, Any]
) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO signals (run_id, kind, request_id, signal_key, data) VALUES (?, ?, ?, ?, ?)",
        (run_id, kind, request_id, key, json.dumps(data)),
    )


def _reopen(connection: sqlite3.Connection, run_id: str) -> None:
    run = read_run(connection, run_id)
    at = RunClock(run.born).now() if run is not None else 0.0
    connection.execute("UPDATE runs SET ended = 0, owner = NULL, epoch = epoch + 1 WHERE run_id = ?", (run_id,))
    append_rows(connection, run_id, [Event("reopened", "", {}, at)])
