"""``kintsugi explore`` and ``kintsugi replay FILE``, as a user has them: what they find, print, keep, and refuse."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kintsugi.harness.cli import main
from kintsugi.harness.search import LOOKING_FOR

SECONDS_MAX = 180
"""As long as any of these may take on two cores."""
COMMAND = "from kintsugi.harness.cli import main; main()"
ONE = ("--workflow", "finance/customer_refund", "--seed", "7", "--deadline", "20")
"""One workflow, so that there is one clean run, and a deadline that is many times what a trial takes."""

# --- what it refuses ----------------------------------------------------------------------------------------


def refusal(*arguments: object) -> str:
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (outcome.exit_code, outcome.stdout) == (2, ""), (outcome.output, outcome.exception)
    (line,) = outcome.stderr.splitlines()
    return line.removeprefix("kintsugi: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say which SUT to search with --sut; see `kintsugi list suts`"),
        (("--sut", "minmal"), "no SUT is called 'minmal'; did you mean 'minimal'?"),
        (("--sut", "planted_no_keys"), "no SUT is called 'planted_no_keys'; did you mean 'planted_no_key'?"),
        (("--sut", "minimal", "--chain", "own"), "minimal runs no chain 'own'; known: naive, optimized"),
        (
            ("--sut", "planted_swallows_rejection", "--chain", "naive"),
            "planted_swallows_rejection runs no chain 'naive'; known: optimized",
        ),
        (("--sut", "minimal", "--workflow", "finance/x*"), "no workflow is called 'finance/x*'"),
        (("--sut", "minimal", "--adapter", "none.toml"), "none.toml: can't be read: No such file or directory"),
        (("--sut", "minimal", "--out", "."), ".: is a folder; give --out the path of a file"),
        (("--sut", "minimal", "--out", "none/f.json"), "none/f.json: can't be written: none is no folder"),
    ],
)
def test_what_can_t_be_searched_is_told_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    assert refusal("explore", *arguments).startswith(says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"deadline_seconds": "soon"}, "deadline_seconds: found 'soon'"),
        ({"adapters": {"x": 5}}, "adapters: found none"),
        ({"trial": {}}, "is no trial"),
        ({"trial": {"kind": "fault", "schedule": 5}}, "is no trial"),
    ],
)
def test_a_file_that_was_spoilt_is_told(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    trial = {"kind": "fault", "sut": "minimal", "chain": "optimized", "workflow": "finance/x", "schedule": []}
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"trial": trial, **changes}))
    assert says in refusal("replay", file)


def test_a_planted_sut_is_replayed_only_with_a_chain_that_it_has(tmp_path: Path) -> None:
    trial = {
        "kind": "fault",
        "sut": "planted_swallows_rejection",
        "chain": "naive",
        "workflow": "finance/customer_refund",
    }
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"trial": {**trial, "schedule": []}}))
    assert refusal("replay", file) == f"{file}: no chain is called 'naive'; known: optimized"


def test_a_schedule_whose_means_do_not_go_together_is_not_run(tmp_path: Path) -> None:
    strikes = [
        {"fault": "disk_full", "form": "frees_up", "point": "tool:order[0]#1@before"},
        {"fault": "power_loss", "form": "disk_cut", "point": "tool:pay[0]#1@before"},
    ]
    trial = {"kind": "fault", "sut": "minimal", "chain": "optimized", "workflow": "finance/invoice_payment"}
    file = tmp_path / "both.json"
    file.write_text(json.dumps({"trial": {**trial, "schedule": strikes}}))
    assert refusal("replay", file) == (
        f"{file}: loop_disk and small_disk can't be in one trial: each takes its state folder"
    )


# --- what it finds ------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path[1:])}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", COMMAND, *arguments]
    folder = Path(environment["TMPDIR"]).parent
    return subprocess.run(
        words, env=environment, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("sut", "looking_for", "rule"),
    [
        ("planted_dies_silently", "lost", "every submitted run ends with a report"),
        ("planted_asks_again", "asked_again", "an approval that is good is not asked for again"),
    ],
)
def test_a_planted_bug_is_found_from_scratch_and_replayed(
    environment: dict[str, str], tmp_path: Path, sut: str, looking_for: str, rule: str
) -> None:
    done = run(
        environment,
        "explore",
        "--sut",
        sut,
        *ONE,
        "--confirm",
        "2",
        "--out",
        "found.json",
        "--looking-for",
        looking_for,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout.partition("\n\n")[0].splitlines()
    assert f"broken    {rule}" in said
    kept = json.loads((tmp_path / "found.json").read_text())
    assert kept["confirmed"] == {"k": 2, "n": 2}
    assert 1 <= len(kept["trial"]["schedule"]) <= 2
    assert f"trials    {kept['trials_to_find']} to find it, seed 7" in said
    assert kept["shows"] == [LOOKING_FOR[looking_for]]
    assert f"found     {kept['shows'][0]}: {kept['reason']}" in said
    again = run(environment, "replay", "found.json", "--times", "2")
    assert again.returncode == 1, again.stdout + again.stderr
    assert f"broken    {rule}" in again.stdout.splitlines()
    assert again.stdout.splitlines()[-1].startswith("2 of 2 runs fail")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.process
def test_where_nothing_is_found_it_says_how_much_was_tried(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "explore", "--sut", "minimal", *ONE, "--trials", "6", "--out", "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("nothing found: 6 distinct schedules tried, seed 7: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


@pytest.mark.process
async def test_an_interrupted_search_says_what_was_tried(environment: dict[str, str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND, "explore", "--sut", "minimal", *ONE, "--seconds", "600"),
        env=environment,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS_MAX):
        # The clean run is over when a verdict is there.
        while not any((tmp_path / "tmp").glob("*/results/trials.jsonl")):
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, error = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    assert (process.returncode, said) == (130, b""), error.decode()
    assert "distinct schedules tried, seed 7" in error.decode().splitlines()[-1]
    assert error.decode().splitlines()[-1].startswith("interrupted: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
