"""``kintsugi selftest`` as a process of its own: every planted bug is caught, one that is not fails it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kintsugi.harness.selftest import BUGS

pytestmark = pytest.mark.process

SECONDS_MAX = 180
"""As long as a self-test may take on two cores."""

COMMAND = "from kintsugi.harness.cli import main; main()"

HARMLESS = """
import sys
from dataclasses import replace
from kintsugi.harness.adapters import minimal, planted
from kintsugi.harness.commands.selftest import selftest_command
from kintsugi.harness.selftest import BUGS

(bug,) = [bug for bug in BUGS if bug.sut == "planted_no_key"]
planted.PLANTED[bug.sut] = replace(minimal.ADAPTER, name=bug.sut)
sys.exit(selftest_command(7, None, [bug]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path[1:])}


def run(environment: dict[str, str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", program, *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)


def test_every_planted_bug_is_caught_and_the_right_runtime_passes(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, COMMAND, "selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    signs = sum(len(bug.signs) for bug in BUGS)
    rows = [line.split("│")[1:3] for line in done.stdout.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert [mark.strip() for mark, _ in rows] == ["ok"] * (signs + 1)
    assert {what.strip() for _, what in rows} == {bug.what for bug in BUGS} | {"none (minimal)"}
    assert f"{len(BUGS)} of {len(BUGS)} bugs caught, 0 signs missed, 0 false alarms" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_bug_that_is_not_there_fails_the_self_test(environment: dict[str, str]) -> None:
    """The planted SUT is in truth the runtime without a bug: so would one be that the benchmark does not see."""
    done = run(environment, HARMLESS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("NOT CAUGHT") == 2
    assert "correct: every expected effect, once" in done.stdout
    assert "0 of 1 bugs caught, 2 signs missed, 0 false alarms" in done.stdout


async def test_an_interrupted_self_test_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        "selftest",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS_MAX):
        while not any(tmp_path.glob("*/results/histories/*")):
            await asyncio.sleep(0.01)
    everyone = family(process.pid)
    assert len(everyone) > 2
    process.send_signal(signal.SIGTERM)
    said, error = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    assert (process.returncode, said) == (130, b"")
    assert error.decode().splitlines()[-1] == "interrupted: nothing is kept of a self-test; run it again"
    async with asyncio.timeout(SECONDS_MAX):
        while [pid for pid in everyone if Path(f"/proc/{pid}").exists()]:
            await asyncio.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def family(pid: int) -> list[int]:
    """A process's children, and theirs; none of one that has just ended."""
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*found, *(grandchild for child in found for grandchild in family(child))]
