"""Mounts of our own: made in a mount namespace that dies with this process, so that none can be left behind.

The namespace has to be entered before anything is started that is to see the mounts, and by the main thread, from which
all other processes and threads come. Without privileges it lies in a user namespace, where only a tmpfs can be mounted.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

from kintsugi.harness.adapters import Unavailable

__all__ = ["Mounter", "attempt", "enter_namespace", "mount_tmpfs", "must_be_entered", "run_program", "unmount"]

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REC, MS_PRIVATE = 0x1, 0x4000, 0x40000
MNT_DETACH = 2
UNMOUNT_SECONDS = 5.0
"""How long whoever still has a file open there has to let go of it."""
RETRY_SECONDS = 0.02

_LIBC = ctypes.CDLL(None, use_errno=True)
_entered: set[int] = set()
"""The process that has a namespace of its own: a forked one shares that of its parent."""


class Mounter:
    """A means that mounts something: before a suite's launchers start, the process gets a namespace for it."""


def enter_namespace() -> None:
    """Give this process mounts of its own. Doing it again does nothing. Raises Unavailable."""
    if os.getpid() in _entered:
        return
    uid, gid = os.geteuid(), os.getegid()
    # That of a user is possible only while there is one thread; and root would lose all other users in it.
    if _LIBC.unshare(CLONE_NEWNS | (CLONE_NEWUSER if uid else 0)) != 0:
        raise Unavailable(f"mounts: no namespace of our own ({os.strerror(ctypes.get_errno())}): run as root")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if _LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise Unavailable(f"mounts: they can't be kept to ourselves ({os.strerror(ctypes.get_errno())}): run as root")
    _entered.add(os.getpid())


def must_be_entered() -> None:
    """Raise Unavailable where a mount would be seen by others, and by none of our workers."""
    if os.getpid() not in _entered:
        raise Unavailable("mounts: no namespace of our own was entered before the workers' launchers were started")


def mount_tmpfs(folder: Path, size_bytes: int, *, writable: bool = True) -> None:
    """Mount an empty tmpfs on a folder. Raises OSError, Unavailable."""
    must_be_entered()
    options = f"size={size_bytes},mode=0700".encode()
    if _LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0 if writable else MS_RDONLY, options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"can't mount a tmpfs: {os.strerror(number)}", str(folder))


async def unmount(folder: Path, *, at_any_rate: bool) -> bool:
    """Unmount what lies on a folder once nobody uses it any more; whether it is gone within a few seconds.

    `at_any_rate`: after that it is taken out of sight, and ends when its last file is closed.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + UNMOUNT_SECONDS
    while _LIBC.umount2(os.fsencode(folder), 0) != 0:
        if loop.time() > until:
            return at_any_rate and _LIBC.umount2(os.fsencode(folder), MNT_DETACH) == 0
        await asyncio.sleep(RETRY_SECONDS)
    return True


async def run_program(*words: str) -> None:
    """Run a program to its end. Raises OSError with what it said."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise OSError(f"{words[0]}: {said.decode(errors='replace').strip()}")


def attempt(script: str, *, privileged: bool) -> None:
    """Run a shell script in an empty folder, in a mount namespace that is gone afterwards, to see whether it can be.

    Without root that lies in a user namespace, unless it has to be `privileged`. Raises Unavailable with what was said
    last.
    """
    mapped = [] if privileged or os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *mapped, "--mount", "sh", "-ec", script]
    with tempfile.TemporaryDirectory(prefix="kintsugi-mount-") as folder:
        try:
            tried = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise Unavailable(f"{problem}; it needs util-linux") from None
    if tried.returncode != 0:
        raise Unavailable((tried.stderr.strip().splitlines() or [f"ended with {tried.returncode}"])[-1])
