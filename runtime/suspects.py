"""Which of the runs that no one carries may be taken up now, and which only later. Pure.

A run that was claimed again and again and got no further may be one that kills its worker, and would bring
down one after another before any of them could do the other runs. Such suspects come after the others, the
later the more often it happened, and at first one by one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Free", "Suspects", "fruitless_claims"]

SUSPECT_CLAIMS = 3
"""After so many claims without any progress a run is under suspicion."""
SUSPECT_SECONDS = 0.1
SUSPECT_SECONDS_MAX = 5.0


@dataclass(frozen=True)
class Free:
    """A run that no living worker carries."""

    run_id: str
    fruitless_claims: int
    """How often it was claimed since it last got further."""
    idle_seconds: float
    """Since its last event."""


def fruitless_claims(kinds: Iterable[str]) -> int:
    """The claims at the end of a run's journal, given its events' kinds, newest first."""
    return len(list(itertools.takewhile(lambda kind: kind == "claimed", kinds)))


class Suspects:
    """What one worker, which still lives, has taken up so far."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._at_once = 1

    def due(self, free: Sequence[Free], now: float) -> list[str]:
        """The runs to take up at `now` (monotonic seconds). Whoever asks takes them up."""
        due = [run.run_id for run in free if run.fruitless_claims < SUSPECT_CLAIMS]
        ripe = [run for run in free if run.fruitless_claims >= SUSPECT_CLAIMS and _has_rested(run)]
        if ripe and now >= self._next_at:
            # Among equals it is left to chance, so that the same one does not come first for ever.
            ripe.sort(key=lambda run: (run.fruitless_claims, random.random()))
            due += [run.run_id for run in ripe[: self._at_once]]
            # The worker has survived those it took before, so it dares to take more.
            self._next_at = now + SUSPECT_SECONDS
            self._at_once *= 2
        return due


def _has_rested(run: Free) -> bool:
    longer = 2.0 ** (run.fruitless_claims - SUSPECT_CLAIMS)
    return run.idle_seconds >= min(SUSPECT_SECONDS * longer, SUSPECT_SECONDS_MAX)
