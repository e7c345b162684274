"""Whether a provider is there at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FAILURES_MAX", "Reach"]

FAILURES_MAX = 3
"""How many calls may fail before the first answer."""


class Reach:
    """What a run has heard of its provider: until the first answer, a failure says nothing of any SUT.

    A provider that no connection can be made to, or of which enough calls have failed, is not there. Calls that were
    under way by then are waited for: one that turns some away, being asked by too many at once, answers the others.
    """

    def __init__(self) -> None:
        self.answered = False
        """Whether any call was, be it with an error that is the asker's own; a 429, which may be anybody's, is none."""
        self.last = ""
        """What the last failure was, in one line."""
        self._failed = 0
        self._begun = 0
        self._under_way: set[int] = set()
        self._waited_for = 0
        """The last call that had begun when enough had failed."""

    @property
    def gone(self) -> bool:
        """Whether no call will be answered, as far as can be known."""
        waiting = any(call <= self._waited_for for call in self._under_way)
        return not self.answered and self._failed >= FAILURES_MAX and not waiting

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call is under way within."""
        self._begun += 1
        call = self._begun
        self._under_way.add(call)
        try:
            yield
        finally:
            self._under_way.discard(call)

    def answers(self) -> None:
        """The call was answered."""
        self.answered = True

    def fails(self, why: str, *, counts: int = 1) -> None:
        """The call was not answered. It counts as so many: a time-out as none, for whom nobody can reach as all."""
        self.last = why
        if self._failed < FAILURES_MAX:
            self._failed += counts
            self._waited_for = self._begun
