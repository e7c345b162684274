"""What a means is."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kintsugi.harness.session import Session

__all__ = ["Means"]


class Means(Protocol):
    """Something of the machine that a trial can be given."""

    about: str
    """What it is for, for ``kintsugi doctor``."""

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
