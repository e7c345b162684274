"""SUTs with one bug each in what they take a machine to be: its disk, its power, its clock. See `planted`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress

from kintsugi.runtime import carried, journal, worker
from kintsugi.runtime.clock import RunClock
from kintsugi.runtime.engines.planted import Planted
from kintsugi.runtime.journal import Claim, Journal
from kintsugi.runtime.store import Event, JournalUnavailable, transaction

__all__ = ["DOES_NOT_SYNC", "GOES_BY_THE_WALL_CLOCK", "GOES_ON_UNRECORDED"]


def _unsynced(connection: sqlite3.Connection, *, fleeting: bool = False) -> AbstractContextManager[sqlite3.Connection]:
    """A transaction whose commit is with the operating system, and may never reach the disk."""
    del fleeting
    return transaction(connection, fleeting=True)


DOES_NOT_SYNC = Planted((journal, "transaction", _unsynced))


class _Careless(Journal):
    """What can't be recorded is taken to be."""

    async def append(self, claim: Claim, events: Iterable[Event], *, end: bool = False) -> None:
        with suppress(JournalUnavailable):
            await super().append(claim, events, end=end)


GOES_ON_UNRECORDED = Planted((worker, "Journal", _Careless))


class _WallClock(RunClock):
    """The time of a run is whatever the machine says at the moment."""

    def now(self) -> float:
        return time.time()


GOES_BY_THE_WALL_CLOCK = Planted((carried, "RunClock", _WallClock))
