"""``kintsugi run`` as a process of its own: interrupted, killed, out of room, and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

SUITE = """
name = "small"
version = 1
about = "A few trials on each SUT."
workflows = ["finance/invoice_payment"]
suts = ["minimal+optimized", "naive+naive"]
clean_seeds = 1

[[faults]]
fault = "worker_kill"
forms = ["at_boundary"]
shared = 6

[[faults]]
fault = "partial_side_effect"
shared = 2

[[faults]]
fault = "stale_data"
shared = 1
"""
SEED = 3
SECONDS_MAX = 60

Verdicts = dict[str, tuple[str, str | None]]


def words(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from kintsugi.harness.cli import main; main()", *arguments]


def verdicts(folder: Path) -> Verdicts:
    """Injection and verdict of every trial; each line is whole, and each trial is there once."""
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    found = {line["id"]: (line["injection"], line["verdict"]) for line in lines}
    assert len(found) == len(lines)
    return found


class Command:
    """Runs ``kintsugi run`` on the small suite with folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.out, self.temporary, self.suite = folder / "out", folder / "temporary", folder / "small.toml"
        self.temporary.mkdir()
        self.suite.write_text(SUITE)
        paths = os.pathsep.join(sys.path[1:])
        self.environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": paths, "COLUMNS": "200"}

    def words(self, *more: str) -> list[str]:
        return words("run", "--suite", str(self.suite), "--seed", str(SEED), "--out", str(self.out), *more)

    async def begin(self, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.words("--jobs", "4", *more),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def finish(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        done = subprocess.run(
            self.words(*more), env=self.environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        assert "Traceback" not in done.stderr
        return done

    def left(self) -> list[str]:
        """What only a run that is under way may have on the disk."""
        debris = [path for path in self.out.rglob("*") if path.name.startswith(".")]
        return [str(path) for path in [*debris, *self.temporary.rglob("*")]]


async def underway(process: asyncio.subprocess.Process, trials: int) -> None:
    """Wait until a run has said that so many trials are judged."""
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS_MAX):
        while line := (await process.stderr.readline()).decode():
            if "trials:" in line and int(line.split("/")[0]) >= trials:
                return
    raise AssertionError("the run ended first")


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # A worker may have ended since.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                found |= family(int(child))
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """The inodes of the listening sockets that some processes hold."""
    held = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            # A connection may have been closed since.
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    held.add(target[8:-1])
    return held & open_ports()


def open_ports() -> set[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A"}


async def gone(pids: Iterable[int]) -> None:
    """Wait until none of some processes is left."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        await asyncio.wait_for(ended.wait(), 20)
        loop.remove_reader(descriptor)
        os.close(descriptor)


def of_harness(pid: int) -> list[str]:
    """The launchers and workers of a harness, dead or alive; a worker is called as its launcher is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            called = process.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"launcher.py") for word in called) and str(pid).encode() in called:
            found.append(process.name)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The suite run to its end without a disturbance."""
    command = Command(tmp_path_factory.mktemp("whole"))
    done = command.finish()
    assert done.returncode == 0, done.stderr
    assert command.left() == []
    return command


@pytest.fixture(scope="module")
def undisturbed(whole: Command) -> Verdicts:
    """What the suite comes to when nobody disturbs it."""
    return verdicts(whole.out)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


async def interrupted(command: Command, send: Callable[[int], None]) -> tuple[int, str]:
    """Begin a run, and interrupt it in the middle; its exit code, and what it said last. Nothing of it is left."""
    process = await command.begin()
    await underway(process, 6)
    everyone = family(process.pid)
    ports = listening([process.pid])
    assert len(everyone) >= 1 + 4
    assert ports
    send(process.pid)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    await gone(everyone)
    assert of_harness(process.pid) == []
    assert not ports & open_ports()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_an_interrupted_run_leaves_nothing_and_is_gone_on_with(command: Command, undisturbed: Verdicts) -> None:
    def impatient(pid: int) -> None:
        for _ in range(3):
            os.kill(pid, signal.SIGINT)

    code, said = await interrupted(command, impatient)
    assert code == 130
    assert command.left() == []
    kept = verdicts(command.out)
    assert 6 <= len(kept) < len(undisturbed)
    assert f"interrupted: {len(kept)} of {len(undisturbed)} trials are kept" in said
    assert "Traceback" not in said
    for name in ("summary.json", "scorecard.html"):
        assert not (command.out / name).exists()
    finished = command.finish("--resume")
    assert finished.returncode == 0, finished.stderr
    after = verdicts(command.out)
    assert after == undisturbed
    assert list(after)[: len(kept)] == list(kept)
    assert command.left() == []
    assert (command.out / "scorecard.html").is_file()


async def test_a_terminated_run_ends_like_an_interrupted_one(command: Command) -> None:
    code, said = await interrupted(command, lambda pid: os.kill(pid, signal.SIGTERM))
    assert (code, "trials are kept" in said) == (130, True)
    assert command.left() == []


async def test_a_run_that_is_interrupted_over_its_scorecard_keeps_every_verdict(
    command: Command, undisturbed: Verdicts
) -> None:
    process = await command.begin()
    await underway(process, len(undisturbed))
    while not (command.out / "summary.json").exists():
        await asyncio.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said.decode().splitlines()[-1]) == (130, "kintsugi: interrupted")
    assert not (command.out / "scorecard.html").exists()
    assert verdicts(command.out) == undisturbed
    assert command.left() == []


async def test_a_killed_run_is_gone_on_with(command: Command, undisturbed: Verdicts) -> None:
    code, _ = await interrupted(command, lambda pid: os.kill(pid, signal.SIGKILL))
    assert code == -signal.SIGKILL
    trials = command.out / "trials.jsonl"
    kept = verdicts(command.out)
    # What a kill in the middle of a write leaves.
    last = trials.read_bytes().splitlines(keepends=True)[-1]
    with trials.open("ab") as file:
        file.write(last.replace(b"invoice_payment", b"half_a_line")[: len(last) // 2])
    finished = command.finish("--resume")
    assert finished.returncode == 0, finished.stderr
    after = verdicts(command.out)
    assert after == undisturbed
    assert list(after)[: len(kept)] == list(kept)
    assert command.left() == []


def test_a_run_that_is_gone_on_with_at_its_end_changes_nothing(whole: Command) -> None:
    before = (whole.out / "trials.jsonl").read_bytes()
    again = whole.finish("--resume")
    assert again.returncode == 0, again.stderr
    assert (whole.out / "trials.jsonl").read_bytes() == before


def test_a_sut_that_can_t_be_loaded_is_a_gap_with_one_line_and_the_others_go_on(command: Command) -> None:
    broken = """
import dataclasses
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.cli import main
ADAPTERS["naive"] = dataclasses.replace(ADAPTERS["naive"], side="no_such_engine")
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", broken, *command.words()[3:]],
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0
    assert "not run: the launcher of no_such_engine ended with 1; see its output above" in done.stderr.splitlines()
    assert "No module named 'no_such_engine'" in done.stderr
    assert {name.split("+")[0] for name in verdicts(command.out)} == {"minimal"}
    assert "no_such_engine" in (command.out / "scorecard.html").read_text()
    assert command.left() == []


async def test_an_interrupted_replay_leaves_nothing(command: Command, whole: Command) -> None:
    trial = next(iter(verdicts(whole.out)))
    process = await asyncio.create_subprocess_exec(
        *words("replay", str(whole.out), "--trial", trial, "--times", "100"),
        env=command.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while not any(command.temporary.glob("*/results/histories/*")):
        await asyncio.sleep(0.01)
    everyone = family(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said.decode()) == (130, "kintsugi: interrupted\n")
    await gone(everyone)
    assert command.left() == []


# --- no room ------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from kintsugi.harness.cli import main
from kintsugi.harness.suite_run import SuiteRun

limit = int(sys.argv.pop(1))
run_all = SuiteRun.each

async def limited(self, trials, jobs):
    # The launchers are up; they and their workers have no limit.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    await run_all(self, trials, jobs)

SuiteRun.each = limited
main()
"""


def one_line(said: str) -> str:
    """The one line that is left of what was said, progress apart."""
    (line,) = [line for line in said.splitlines() if "trials:" not in line]
    return line


async def test_results_that_can_t_be_written_end_the_run_with_one_line(command: Command, undisturbed: Verdicts) -> None:
    """A limit on the size of a file stands in for a full disk: verdicts reach it after a few trials."""
    limit = 30_000
    words = [sys.executable, "-c", LIMITED, str(limit), *command.words("--jobs", "4")[3:]]
    done = subprocess.run(
        words, env=command.environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert line.startswith(f"kintsugi: {command.out}")
    assert line.endswith("can't be written: File too large")
    kept = verdicts(command.out)
    assert 0 < len(kept) < len(undisturbed)
    assert kept.items() <= undisturbed.items()
    assert (command.out / "trials.jsonl").stat().st_size <= limit
    assert command.left() == []


FULL = """
set -e
mount -t tmpfs -o size=40m tmpfs "$1"
cp -r "$1.before/." "$1/" 2>/dev/null || true
out="$1"; shift
# Once a few trials are judged, something else takes the room that is left.
( while [ "$(cat "$out/out/trials.jsonl" 2>/dev/null | wc -l)" -lt 4 ]; do sleep 0.01; done
  head -c 30m /dev/zero > "$out/filler" ) &
code=0
"$@" || code=$?
wait
rm -f "$out/filler"
cp -r "$out/." "$out.after/"
exit $code
"""


def may_mount() -> bool:
    """Whether a file system of its own can be mounted here, in a name space of its own."""
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True, check=False).returncode == 0


if may_mount():

    def test_a_disk_that_fills_up_ends_the_run_and_is_charged_to_no_sut(
        command: Command, undisturbed: Verdicts, tmp_path: Path
    ) -> None:
        disk, after = tmp_path / "disk", tmp_path / "disk.after"
        disk.mkdir()
        after.mkdir()
        command.out = disk / "out"
        words = ["unshare", "--mount", "sh", "-c", FULL, "sh", str(disk), *command.words("--jobs", "4")]
        done = subprocess.run(
            words, env=command.environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        assert done.returncode == 2, done.stderr
        assert "make room and go on with --resume" in one_line(done.stderr)
        command.out = after / "out"
        kept = verdicts(command.out)
        assert 4 <= len(kept) < len(undisturbed)
        # No SUT is said to have failed that only had no room.
        assert kept.items() <= undisturbed.items()
        assert command.left() == []
        assert command.finish("--resume").returncode == 0
        assert verdicts(command.out) == undisturbed
