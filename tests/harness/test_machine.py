"""The disks and the clock that a trial can be given: they do what they say, and nothing is left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.deeds.disk import BALLAST, fill
from kintsugi.harness.means import MEANS, fake_clock, make_ready, missing_among, mounts
from kintsugi.harness.means.fake_clock import Clock
from kintsugi.harness.means.loop_disk import Disk

pytestmark = pytest.mark.process

SECONDS_MAX = 30.0

MOUNTER = """
import asyncio, sys
from pathlib import Path
from kintsugi.harness.means import make_ready, mounts
from kintsugi.harness.means.loop_disk import Disk

async def main(folder):
    make_ready(["loop_disk", "small_disk"])
    small, looped = folder / "small", folder / "looped"
    small.mkdir()
    looped.mkdir()
    mounts.mount_tmpfs(small, 2**20)
    await Disk(looped, folder / "image").make()
    print("mounted", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def must_be_here(name: str) -> None:
    if problem := missing_among([name]):
        pytest.skip(problem[name])


def mounted(pid: str, folder: Path) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/mounts").read_text().splitlines() if str(folder) in line]


def looped(folder: Path) -> list[str]:
    """The loop devices whose image lies in a folder."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text())
        except OSError:
            continue
    return [image for image in found if str(folder) in image]


@pytest.mark.parametrize("ended_by", ["kill", "terminate"])
def test_mounts_die_with_the_process_and_are_seen_by_nobody_else(tmp_path: Path, ended_by: str) -> None:
    must_be_here("loop_disk")
    words = [sys.executable, "-c", MOUNTER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "mounted\n"
            assert len(mounted(str(process.pid), tmp_path)) == 3
            assert len(looped(tmp_path)) == 1
            assert mounted("self", tmp_path) == []
        finally:
            getattr(process, ended_by)()
    until = time.monotonic() + SECONDS_MAX
    while looped(tmp_path) and time.monotonic() < until:
        time.sleep(0.01)
    assert looped(tmp_path) == []
    assert [path for path in (tmp_path / "small", tmp_path / "looped") if os.path.ismount(path)] == []


def test_nothing_is_mounted_where_others_would_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_entered", set())
    with pytest.raises(Unavailable, match="no namespace of our own"):
        mounts.mount_tmpfs(tmp_path, 2**20)
    assert not tmp_path.is_mount()


def test_what_can_not_be_mounted_is_said_in_one_line() -> None:
    with pytest.raises(Unavailable) as problem:
        mounts.attempt("mount -t no_such_file_system nothing .", privileged=False)
    assert str(problem.value)
    assert "\n" not in str(problem.value)


# --- a disk that is full ------------------------------------------------------------------------------------


async def test_a_small_disk_is_full_to_the_last_byte_until_it_is_freed(tmp_path: Path) -> None:
    must_be_here("small_disk")
    make_ready(["small_disk"])
    mounts.mount_tmpfs(tmp_path, 2**20)
    try:
        there = tmp_path / "there"
        there.write_bytes(b"x")
        assert fill(tmp_path / BALLAST)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (tmp_path / "new").write_bytes(b"x")
        (tmp_path / BALLAST).unlink()
        (tmp_path / "new").write_bytes(b"x")
        assert there.read_bytes() == b"x"
    finally:
        assert await mounts.unmount(tmp_path, at_any_rate=True)
    assert list(tmp_path.iterdir()) == []


# --- a disk that loses its power ----------------------------------------------------------------------------


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    must_be_here("loop_disk")
    make_ready(["loop_disk"])
    folder = tmp_path / "state"
    folder.mkdir()
    made = Disk(folder, tmp_path / "image")
    try:
        await made.make()
        yield made
    finally:
        await made.take_away()
        assert not folder.is_mount()
        assert looped(tmp_path) == []


def write(path: Path, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(b"said to be written")
        if sync:
            file.flush()
            os.fsync(file.fileno())


async def test_a_power_loss_takes_what_was_not_synced_and_nothing_else(disk: Disk) -> None:
    assert list(disk.folder.iterdir()) == []
    write(disk.folder / "provisioned", sync=False)
    disk.sync()
    write(disk.folder / "synced", sync=True)
    write(disk.folder / "written", sync=False)
    assert "failed with EIO" in disk.cut()
    assert "one that was not synced was gone" in await disk.come_back()
    assert (disk.folder / "provisioned").read_bytes() == b"said to be written"
    assert (disk.folder / "synced").read_bytes() == b"said to be written"
    assert not (disk.folder / "written").exists()
    write(disk.folder / "again", sync=True)


async def test_a_disk_that_somebody_uses_does_not_come_back(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "UNMOUNT_SECONDS", 0.05)
    write(disk.folder / "held", sync=True)
    with (disk.folder / "held").open("rb"):
        disk.cut()
        with pytest.raises(OSError, match="still open"):
            await disk.come_back()


async def test_nobody_can_write_where_the_disk_is_while_it_is_away(disk: Disk) -> None:
    disk.sync()
    disk.cut()
    assert await mounts.unmount(disk.folder, at_any_rate=False)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (disk.folder / "store").write_bytes(b"x")
    await disk.mount()


# --- a clock that is set ------------------------------------------------------------------------------------


@asynccontextmanager
async def under(clock: Clock, *words: str | Path) -> AsyncIterator[tuple[int, Callable[[], Awaitable[bytes]]]]:
    """A program under a clock: its process id, and how to have a line of it. Both are gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **clock.environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def ask() -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        return await process.stdout.readline()

    try:
        yield process.pid, ask
    finally:
        process.kill()
        await process.wait()
        clock.close()


async def test_a_clock_is_set_for_programs_that_run_and_only_for_those(tmp_path: Path) -> None:
    must_be_here("fake_clock")
    program = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    clock = Clock(fake_clock.library(os.environ), tmp_path / "clock")
    shared = clock.environment["FAKETIME_SHARED"].split()
    async with under(clock, sys.executable, "-c", program) as (pid, ask):
        for hours in (0.0, 6.0, -6.0):
            clock.set(hours)
            assert await clock.hours_off() == pytest.approx(hours, abs=0.01)
            wall, monotonic = map(float, (await ask()).split())
            assert (wall - time.time()) / 3600 == pytest.approx(hours, abs=0.01)
            assert abs(monotonic - time.monotonic()) < SECONDS_MAX
        assert clock.governs(pid)
        other = Clock(clock.library, tmp_path / "other")
        assert not other.governs(pid)
        other.close()
    assert not clock.governs(pid)
    left = {path.name for path in Path("/dev/shm").iterdir()}  # noqa: S108 - where the library keeps them
    assert left.isdisjoint({shared[0].replace("/", "sem."), shared[1].removeprefix("/")})


@pytest.mark.parametrize("mark", [b"", b"\xff Go buildinf:"], ids=["of_c", "of_go"])
async def test_no_clock_governs_a_program_that_asks_the_kernel_itself(tmp_path: Path, mark: bytes) -> None:
    """What Go's linker makes loads the library where it uses the C library at all, and reads the time past it."""
    must_be_here("fake_clock")
    program = tmp_path / "program"
    program.write_bytes(Path(shutil.which("cat") or "").read_bytes() + mark)
    program.chmod(0o700)
    clock = Clock(fake_clock.library(os.environ), tmp_path / "clock")
    async with under(clock, program) as (pid, ask):
        await ask()
        assert str(clock.library) in Path(f"/proc/{pid}/maps").read_text()
        assert clock.governs(pid) is not bool(mark)


def test_a_library_that_is_named_has_to_be_there() -> None:
    with pytest.raises(Unavailable, match="KINTSUGI_FAKETIME names /no/such/file"):
        fake_clock.library({"KINTSUGI_FAKETIME": "/no/such/file"})


def test_a_library_that_is_nowhere_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_clock, "PLACES", ())
    with pytest.raises(Unavailable, match="install it"):
        fake_clock.library({})


# --- what is missing ----------------------------------------------------------------------------------------


def test_what_is_missing_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_: object) -> str:
        raise Unavailable("get one")

    monkeypatch.setattr(type(MEANS["fake_clock"]), "check", check)
    assert missing_among(["fake_clock"]) == {"fake_clock": "get one"}
    assert missing_among([]) == {}
