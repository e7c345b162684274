"""A disk of a few megabytes: a tmpfs for a trial's state folder, which can really be full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.means import mounts
from kintsugi.harness.means.means import Part
from kintsugi.harness.session import Session

__all__ = ["SMALL_DISK", "SmallDisk"]

SIZE_BYTES = 16 * 2**20
"""Each engine's empty store fits several times, and what it writes in a trial."""


class SmallDisk(mounts.Mounter):
    """The state folder lies on a tmpfs of its own."""

    about = "a small disk that is full for a while"
    takes: frozenset[Part] = frozenset({"state folder"})

    @lru_cache(maxsize=1)  # noqa: B019 - there is one of it, for ever
    def check(self) -> str:
        """Whether a tmpfs can be mounted here. Raises Unavailable."""
        try:
            mounts.attempt("mkdir disk; mount -t tmpfs -o size=1m tmpfs disk", privileged=False)
        except Unavailable as problem:
            raise Unavailable(
                f"small_disk: it takes root, or user namespaces that may mount a tmpfs: {problem}"
            ) from None
        return f"a tmpfs of {SIZE_BYTES // 2**20} MB can be mounted"

    @asynccontextmanager
    async def prepare(self, session: Session) -> AsyncIterator[None]:
        """Mount it before the state is provisioned; unmount it when the workers are dead."""
        mounts.mount_tmpfs(session.state_folder, SIZE_BYTES)
        try:
            yield
        finally:
            await mounts.unmount(session.state_folder, at_any_rate=True)


SMALL_DISK = SmallDisk()
