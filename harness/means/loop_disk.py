"""A disk that can lose power: ext4 in an image file, mounted by a loop device as a trial's state folder."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.means import mounts
from kintsugi.harness.means.means import Part
from kintsugi.harness.session import Session

__all__ = ["LOOP_DISK", "Disk", "LoopDisk"]

SIZE_BYTES = 64 * 2**20
"""Sparse: what is not written takes no room."""
AT_ONCE = 4
"""How many there are at once at the most: a machine has eight loop devices, unless it is told otherwise."""
MKFS = ("mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")
COMMIT_SECONDS = 60
"""Longer than a trial: what nobody has asked to be on the disk is not there by luck."""

EXT4_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2
"""Not even the journal's part that is still in memory is written out."""
CANARY = b"kintsugi"


class Disk:
    """One mounted image. Of the two canaries in it only the synced one may be there after a power loss."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image
        self._synced, self._unsynced = folder / ".canary-synced", folder / ".canary-unsynced"

    async def make(self) -> None:
        """Make the image and mount it; where it is not mounted, its folder is an empty one that can't be written."""
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        await mounts.run_program(*MKFS, str(self._image))
        mounts.mount_tmpfs(self.folder, 2**20, writable=False)
        await self.mount()
        (self.folder / "lost+found").rmdir()

    async def mount(self) -> None:
        """Mount the image as it is, which replays its journal."""
        options = f"loop,commit={COMMIT_SECONDS}"
        await mounts.run_program("mount", "-t", "ext4", "-o", options, str(self._image), str(self.folder))

    def sync(self) -> None:
        """Have everything on the disk, as it would be long before a run."""
        self._synced.write_bytes(CANARY)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _syncfs(descriptor)
        finally:
            os.close(descriptor)

    def cut(self) -> str:
        """Take its power away: from now on it takes no write, and keeps only what it had been made to. The evidence."""
        self._unsynced.write_bytes(CANARY)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(descriptor)
        try:
            (self.folder / ".canary-late").write_bytes(CANARY)
        except OSError as error:
            if error.errno == errno.EIO:
                return "the file system was shut down without a flush, and a write to it failed with EIO"
            raise
        raise OSError("the file system still takes writes after it was shut down")

    async def come_back(self) -> str:
        """Unmount it and mount what is left of it; how the canaries fared, empty where that shows no loss.

        Raises OSError where someone keeps it from being unmounted.
        """
        if not await mounts.unmount(self.folder, at_any_rate=False):
            raise OSError(f"{self.folder}: a file is still open there, and it can't be unmounted")
        await self.mount()
        kept = self._synced.read_bytes() == CANARY
        lost = not self._unsynced.exists() or not self._unsynced.read_bytes()
        self._unsynced.unlink(missing_ok=True)
        return "mounted again, a synced file was there and one that was not synced was gone" if kept and lost else ""

    async def take_away(self) -> None:
        """Unmount all there is of it."""
        while self.folder.is_mount():
            if not await mounts.unmount(self.folder, at_any_rate=True):
                return


def _syncfs(descriptor: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class LoopDisk(mounts.Mounter):
    """The state folder is a file system of its own; deeds find its `Disk` in ``session.equipment["loop_disk"]``."""

    about = "a disk that loses what was not synced"
    takes: frozenset[Part] = frozenset({"state folder"})

    def __init__(self) -> None:
        self._places: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @lru_cache(maxsize=1)  # noqa: B019 - there is one of it, for ever
    def check(self) -> str:
        """Whether an image can be made and mounted here. Raises Unavailable."""
        script = f"mkdir disk; truncate -s 16M image; {' '.join(MKFS)} image; mount -t ext4 -o loop image disk"
        try:
            mounts.attempt(script, privileged=True)
        except Unavailable as problem:
            raise Unavailable(f"loop_disk: it takes root, mkfs.ext4 (e2fsprogs) and loop devices: {problem}") from None
        return "ext4 can be mounted from a file"

    def _place(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._places is None or self._places[0] is not loop:
            self._places = loop, asyncio.Semaphore(AT_ONCE)
        return self._places[1]

    @asynccontextmanager
    async def prepare(self, session: Session) -> AsyncIterator[None]:
        """Mount it before the state is provisioned, sync it right after that, unmount it when the workers are dead."""
        mounts.must_be_entered()
        async with self._place():
            disk = Disk(session.state_folder, session.folder / "state.ext4")
            try:
                await disk.make()
                session.equipment["loop_disk"] = disk
                session.provisioned.append(disk.sync)
                yield
            finally:
                await disk.take_away()


LOOP_DISK = LoopDisk()
