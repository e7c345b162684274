"""A clock that can be set: every worker of a trial is started under libfaketime, which reads it from a file."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.means.means import Part
from kintsugi.harness.session import Session

__all__ = ["FAKE_CLOCK", "Clock", "FakeClock", "library"]

VARIABLE = "KINTSUGI_FAKETIME"
PLACES = (
    "usr/lib/*/faketime/libfaketimeMT.so.1",
    "usr/lib/faketime/libfaketimeMT.so.1",
    "usr/lib64/faketime/libfaketimeMT.so.1",
    "usr/local/lib/faketime/libfaketimeMT.so.1",
)
GO = b"\xff Go buildinf:"
"""What Go's linker writes into each program."""
PROBE = "import time; print(time.time(), time.monotonic())"
SHARED = Path("/dev/shm")  # noqa: S108 - where semaphores and shared memory have their names
PAGE_BYTES = 4096
PROBE_SECONDS = 30.0


class Clock:
    """The wall clock of a trial's workers, by how far it is off. Clocks that nobody sets stay as they are.

    The library shares a semaphore and a page between processes. Left to itself it makes them for each, and leaves them
    behind where one is killed; so they are made here for all of a trial's, and removed by `close`.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self.library = library
        self._file = file
        name = f"kintsugi_{secrets.token_hex(8)}"
        self._semaphore, self._page = f"{name}_sem", f"{name}_shm"
        self.set(0.0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.sem_open.restype = ctypes.c_void_p
        semaphore = libc.sem_open(f"/{self._semaphore}".encode(), os.O_CREAT | os.O_EXCL, 0o600, 1)
        if semaphore is None:
            number = ctypes.get_errno()
            raise OSError(number, f"no semaphore can be made: {os.strerror(number)}")
        libc.sem_close(ctypes.c_void_p(semaphore))
        (SHARED / self._page).write_bytes(bytes(PAGE_BYTES))

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told that is to have this clock."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_SHARED": f"/{self._semaphore} /{self._page}",
        }

    def set(self, hours: float) -> None:
        """Be so many hours off from now on, for programs that run as well as for those that come."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{hours * 3600:+.0f}\n")
        fresh.replace(self._file)

    async def hours_off(self) -> float:
        """By how much the clock of a program is off that is started now. Raises OSError where it can't tell."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROBE,
            env={"PATH": os.environ.get("PATH", os.defpath), **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        return _hours_off(said.decode())

    def governs(self, pid: int) -> bool:
        """Whether a living process, or one that it has started, has loaded the library and was told of this clock.

        Where one of them reads the time past the library nobody can tell whose clock counts: it does not govern them.
        """
        family = list(_with_children(pid))
        return any(map(self._governs, family)) and not any(map(_reads_past_the_library, family))

    def _governs(self, pid: int) -> bool:
        try:
            told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            loaded = Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False
        return f"FAKETIME_TIMESTAMP_FILE={self._file}".encode() in told and str(self.library) in loaded

    def close(self) -> None:
        """Remove what its programs shared."""
        for name in (f"sem.{self._semaphore}", self._page):
            (SHARED / name).unlink(missing_ok=True)


def _reads_past_the_library(pid: int) -> bool:
    """Whether a process asks the kernel for the time itself, whatever it has loaded: programs made by Go do."""
    try:
        with (
            Path(f"/proc/{pid}/exe").open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as program,
        ):
            return program.find(GO) >= 0
    except OSError:
        return False


def _hours_off(said: str) -> float:
    words = said.split()
    if len(words) != 2:
        raise OSError(f"a program under libfaketime said {said!r} in place of the time")
    return (float(words[0]) - time.time()) / 3600


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _with_children(int(child))


def library(environment: Mapping[str, str]) -> Path:
    """The file of libfaketime. Raises Unavailable."""
    if told := environment.get(VARIABLE):
        if not Path(told).is_file():
            raise Unavailable(f"fake_clock: {VARIABLE} names {told}, which is not there")
        return Path(told).resolve()
    for found in sorted(path for place in PLACES for path in Path("/").glob(place)):
        return found.resolve()
    raise Unavailable(
        f"fake_clock: libfaketime is not here; install it (Debian: faketime), or name its file in {VARIABLE}"
    )


class FakeClock:
    """The workers' clock; deeds find it as ``session.equipment["fake_clock"]``."""

    about = "a worker whose clock is hours off"
    takes: frozenset[Part] = frozenset({"workers"})

    def check(self) -> str:
        """Which library was found, and that it works. Raises Unavailable."""
        return _checked(os.environ.get(VARIABLE, ""))

    @asynccontextmanager
    async def prepare(self, session: Session) -> AsyncIterator[None]:
        """Have the workers executed afresh under the library, with the right time at first."""
        clock = Clock(library(os.environ), session.folder / "clock")
        session.equipment["fake_clock"] = clock
        session.environment.update(clock.environment)
        session.afresh = True
        try:
            yield
        finally:
            clock.close()


@lru_cache(maxsize=1)
def _checked(_: str) -> str:
    found = library(os.environ)
    with tempfile.TemporaryDirectory(prefix="kintsugi-clock-") as folder:
        try:
            clock = Clock(found, Path(folder, "clock"))
            try:
                clock.set(6.0)
                environment = {"PATH": os.environ.get("PATH", os.defpath), **clock.environment}
                words = [sys.executable, "-c", PROBE]
                said = subprocess.check_output(words, env=environment, timeout=PROBE_SECONDS, text=True)
                off = _hours_off(said)
                monotonic = float(said.split()[1]) - time.monotonic()
            finally:
                clock.close()
        except (OSError, subprocess.SubprocessError) as problem:
            raise Unavailable(f"fake_clock: {found} does not work here: {problem}") from None
    if round(off, 2) != 6.0 or abs(monotonic) > PROBE_SECONDS:
        raise Unavailable(f"fake_clock: {found} does not set clocks as it should: {off:.2f} h in place of 6")
    return str(found)


FAKE_CLOCK = FakeClock()
