"""A worker's way to the store: group commit through one writer thread, and reads from the event loop.

Everything that the loop has queued while one transaction was being synced goes into the next, so that a
hundred workflows share an fsync. A future is resolved only after the commit it rode on: what is acknowledged
is durable.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from kintsugi.runtime.store import (
    Event,
    JournalUnavailable,
    Run,
    Signal,
    append_rows,
    connect,
    read_events,
    read_run,
    read_signals,
    transaction,
)

__all__ = ["Claim", "Fenced", "Journal"]

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""What is done inside a transaction. It may raise only before it has written anything."""

HELD = """
SELECT 1 FROM runs JOIN workers ON workers.incarnation = runs.owner
WHERE run_id = ? AND epoch = ? AND owner = ? AND NOT ended
"""


class Fenced(Exception):
    """The run is no longer this worker's: another one took it over, or it has ended. Nothing was written."""


@dataclass(frozen=True)
class Claim:
    """The right to carry a run: it lasts until someone else raises the run's epoch."""

    run_id: str
    owner: str
    epoch: int


@dataclass
class _Job:
    operation: Operation[Any]
    future: asyncio.Future[Any]


class Journal:
    """The journal as one worker sees it. To be made, used and closed in one running event loop.

    `at_each_commit` runs inside every transaction, and at least every `idle_seconds`: it is the heartbeat.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        at_each_commit: Operation[None] | None = None,
        idle_seconds: float = 0.5,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._at_each_commit = at_each_commit
        self._idle_seconds = idle_seconds
        self._writing = connect(state_dir)
        self._reading = connect(state_dir)
        self._seen_version = -1
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="journal", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """Commit what is queued, and let go of the database. Not needed for safety, only for tidiness."""
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        self._writing.close()
        self._reading.close()

    # --- writing ------------------------------------------------------------------------------------------

    async def write(self, operation: Operation[T]) -> T:
        """What `operation` returned, once it is committed. Raises what it raised, or JournalUnavailable."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(operation, future))
        return await future

    async def append(self, claim: Claim, events: Iterable[Event], *, end: bool = False) -> None:
        """Add events to a claimed run, all or none; with `end`, nothing can be added after them.

        Without events it only makes sure that the claim still holds. Raises Fenced, JournalUnavailable.
        """
        rows = list(events)

        def operation(connection: sqlite3.Connection) -> None:
            if connection.execute(HELD, (claim.run_id, claim.epoch, claim.owner)).fetchone() is None:
                raise Fenced(f"run {claim.run_id} is no longer with {claim.owner} (epoch {claim.epoch})")
            append_rows(connection, claim.run_id, rows)
            if end:
                connection.execute("UPDATE runs SET ended = 1 WHERE run_id = ?", (claim.run_id,))

        await self.write(operation)

    def _write_until_closed(self) -> None:
        closing = False
        while not closing:
            batch: list[_Job] = []
            try:
                taken = [self._jobs.get(timeout=self._idle_seconds)]
                while not self._jobs.empty():
                    taken.append(self._jobs.get())
                batch = [job for job in taken if job is not None]
                closing = len(batch) < len(taken)
            except queue.Empty:
                pass
            outcomes = self._commit([job.operation for job in batch])
            try:
                self._loop.call_soon_threadsafe(_resolve, batch, outcomes)
            except RuntimeError:
                return  # The loop is closed, and no one is left to hear of it.

    def _commit(self, operations: list[Operation[Any]]) -> list[Any]:
        """One transaction; for each operation its value, or the exception to raise where it was called."""
        outcomes: list[Any] = []
        try:
            # A heartbeat is news to the living only: a worker stopped in the middle of one is not to block the others.
            with transaction(self._writing, fleeting=not operations) as connection:
                for operation in operations:
                    try:
                        outcomes.append(operation(connection))
                    except (sqlite3.Error, JournalUnavailable):
                        raise
                    except Exception as error:  # noqa: BLE001 - it belongs to the caller, not to the batch
                        outcomes.append(error)
                if self._at_each_commit is not None:
                    self._at_each_commit(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live, and the callers must hear
            return [JournalUnavailable(str(error) or repr(error)) for _ in operations]
        return outcomes

    # --- reading ------------------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Whether anything was committed, by anyone, since this was last asked."""
        version = self.query("PRAGMA data_version")[0][0]
        changed = version != self._seen_version
        self._seen_version = version
        return bool(changed)

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT. Raises JournalUnavailable."""
        try:
            return self._reading.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise JournalUnavailable(f"the journal can't be read: {error}") from error

    def run(self, run_id: str) -> Run | None:
        """A run's row."""
        return read_run(self._reading, run_id)

    def events(self, run_id: str) -> list[Event]:
        """A run's events, oldest first."""
        return read_events(self._reading, run_id)

    def signals(self, *, run_id: str = "", after: int = 0) -> list[Signal]:
        """The signals with ids above `after`, of one run or of all."""
        return read_signals(self._reading, run_id=run_id, after=after)


def _resolve(batch: list[_Job], outcomes: list[Any]) -> None:
    for job, outcome in zip(batch, outcomes, strict=True):
        if job.future.done():
            continue  # Who asked was cancelled; what was written stands.
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
