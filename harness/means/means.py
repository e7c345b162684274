"""What a means is."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from kintsugi.harness.session import Session

__all__ = ["Means", "Part"]

Part = Literal["state folder", "addresses", "workers"]
"""What of a trial is one means' alone: what its state folder lies on, the addresses at which its workers are told to
find its services and their store, and how these workers are executed."""


class Means(Protocol):
    """Something of the machine that a trial can be given."""

    about: str
    """What it is for, for ``kintsugi doctor``."""
    takes: frozenset[Part]
    """What of a trial it has for itself: two that take the same can't be in one trial. Something at least, since a
    search gives a trial no means twice."""

    def check(self) -> str:
        """What was found, as one line. Raises Unavailable with one line that says what to do."""
        ...

    def prepare(self, session: Session) -> AbstractAsyncContextManager[None]:
        """Wrap a trial: entered when its ports are open, before its state is made; left when its workers are dead.

        May change what workers are told (``session.urls``, ``session.environment``), where they run
        (``session.workers``), whether they are executed afresh (``session.afresh``) and what the state folder is. What
        is to be done once that is provisioned goes into ``session.provisioned``; deeds find what it left in
        ``session.equipment``. Its mounts are made in a namespace of our own (see `mounts.Mounter`).
        """
        ...
