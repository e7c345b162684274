"""Who is alive: a heartbeat and a locked file for each worker, and the take-over of what the dead leave.

A process that is gone has let go of its file's lock, which is seen at once. One that is only paused, or cut
off, still holds it, and loses its runs when its beat has stood still for the length of a lease. No clocks are
compared: each watcher counts the time for which it has itself seen no beat, so a clock that jumps convicts
nobody.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from kintsugi.runtime.clock import Moment, RunClock
from kintsugi.runtime.journal import Claim, Fenced
from kintsugi.runtime.store import Event, JournalUnavailable, append_rows

__all__ = [
    "HEARTBEAT_SECONDS",
    "LEASE_SECONDS",
    "UNCARRIED",
    "Lease",
    "Watch",
    "claim",
    "declare_dead",
    "lock_path",
    "release",
]

LEASE_SECONDS = 2.0
HEARTBEAT_SECONDS = 0.5


class Lease:
    """The presence of the process itself: one incarnation of a worker.

    The file's lock is taken before the row exists, so a row without a locked file means that the process is
    gone.
    """

    def __init__(self, state_dir: str | os.PathLike[str], worker_id: str) -> None:
        self.incarnation = f"{quote(worker_id, safe='')}.{secrets.token_hex(4)}"
        self.evicted = False
        """Whether others held this incarnation to be dead: all of its runs are lost to it."""
        self._path = lock_path(state_dir, self.incarnation)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalUnavailable(f"can't take the worker's lock: {error}") from error

    def register(self, connection: sqlite3.Connection) -> None:
        """Become known to the other workers."""
        connection.execute("INSERT INTO workers (incarnation) VALUES (?)", (self.incarnation,))

    def beat(self, connection: sqlite3.Connection) -> None:
        """Be seen alive; notice when that is too late."""
        done = connection.execute("UPDATE workers SET beat = beat + 1 WHERE incarnation = ?", (self.incarnation,))
        self.evicted = done.rowcount == 0

    def resign(self, connection: sqlite3.Connection) -> None:
        """Give up every run, for others to claim at once."""
        connection.execute("DELETE FROM workers WHERE incarnation = ?", (self.incarnation,))

    def close(self) -> None:
        """Let go of the file, as the end of the process would."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def lock_path(state_dir: str | os.PathLike[str], incarnation: str) -> Path:
    """The file that an incarnation's process holds locked while it lives."""
    return Path(state_dir) / "workers" / f"{incarnation}.lock"


def process_gone(path: Path) -> bool:
    """Whether nobody holds the lock of a worker's file, or the file is not there at all."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise JournalUnavailable(f"can't look at {path}: {error}") from error
    try:
        # Shared, so that two who look at once don't take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass
class _Sighting:
    beat: int
    still_seconds: float


class Watch:
    """What one worker has seen of the others. `time_source` gives monotonic seconds."""

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        lease_seconds: float = LEASE_SECONDS,
        time_source: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state_dir = state_dir
        self._lease_seconds = lease_seconds
        self._time_source = time_source
        self._looked_at = time_source()
        self._sightings: dict[str, _Sighting] = {}

    def dead(self, workers: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of the other workers (incarnation, beat) that are gone, or silent for a lease."""
        now = self._time_source()
        # Whoever looks seldom may have been paused itself: a gap counts as no more than one missed heartbeat.
        elapsed = min(now - self._looked_at, HEARTBEAT_SECONDS)
        self._looked_at = now
        before, self._sightings = self._sightings, {}
        found = []
        for incarnation, beat in workers:
            last = before.get(incarnation)
            still = last.still_seconds + elapsed if last is not None and last.beat == beat else 0.0
            self._sightings[incarnation] = _Sighting(beat, still)
            path = lock_path(self._state_dir, incarnation)
            if still >= self._lease_seconds or process_gone(path):
                found.append((incarnation, beat))
        return found


def declare_dead(connection: sqlite3.Connection, incarnation: str, beat: int) -> bool:
    """Drop a worker, unless it has beaten again since `beat`: from here on it can write nothing."""
    done = connection.execute("DELETE FROM workers WHERE incarnation = ? AND beat = ?", (incarnation, beat))
    return done.rowcount == 1


UNCARRIED = """
SELECT run_id, epoch, wall, boot_id, boot_seconds FROM runs
WHERE NOT ended AND (owner IS NULL OR owner NOT IN (SELECT incarnation FROM workers))
"""
"""The runs that no living worker carries."""


def release(connection: sqlite3.Connection, run_id: str, owner: str) -> None:
    """Give a run back, for any worker to claim."""
    connection.execute("UPDATE runs SET owner = NULL WHERE run_id = ? AND owner = ?", (run_id, owner))


def claim(connection: sqlite3.Connection, run_ids: Iterable[str], owner: str) -> list[Claim]:
    """Take the runs of `run_ids` that no living worker carries; whoever carried them before is fenced off.

    Raises Fenced where `owner` is itself held to be dead.
    """
    if connection.execute("SELECT 1 FROM workers WHERE incarnation = ?", (owner,)).fetchone() is None:
        raise Fenced(f"{owner} was held to be dead, and takes nothing")
    wanted = set(run_ids)
    claims = []
    for run_id, epoch, *born in connection.execute(UNCARRIED).fetchall():
        if run_id not in wanted:
            continue
        taken = Claim(run_id, owner, epoch + 1)
        connection.execute("UPDATE runs SET owner = ?, epoch = ? WHERE run_id = ?", (owner, taken.epoch, run_id))
        data = {"worker": owner, "epoch": taken.epoch}
        append_rows(connection, run_id, [Event("claimed", "", data, RunClock(Moment(*born)).now())])
        claims.append(taken)
    return claims
