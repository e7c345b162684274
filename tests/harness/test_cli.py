"""What the command says to what it can't do: one line that says what to do, exit 2, and never a traceback."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kintsugi.harness.cli import main
from kintsugi.scenarios.suite import load_suite, suite_names

SUITE = """
name = "one"
version = 1
about = "One trial."
workflows = ["finance/invoice_payment"]
suts = ["minimal+optimized"]
"""
TRIAL = {
    "kind": "fault",
    "sut": "minimal",
    "chain": "optimized",
    "workflow": "finance/invoice_payment",
    "seed": 7,
    "schedule": [{"fault": "worker_kill", "form": "at_boundary", "point": "tool:pay[0]#1@before"}],
}


def refusal(*arguments: object) -> str:
    """The one line with which the command refuses."""
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert outcome.exit_code == 2, (outcome.output, outcome.exception)
    assert isinstance(outcome.exception, SystemExit)
    assert "Traceback" not in outcome.output
    (line,) = outcome.stderr.splitlines()
    assert outcome.stdout == ""
    assert line.startswith("kintsugi: ")
    return line.removeprefix("kintsugi: ")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def begun(out: Path) -> Path:
    """A results folder whose run has not come to its end: nothing is judged yet."""
    out.mkdir()
    suite = load_suite("standard")
    asked = {
        "suite": "standard",
        "suite_version": suite.version,
        "seed": 7,
        "suts": ["minimal+optimized"],
        "workflows": ["finance/invoice_payment"],
        "faults": ["loop"],
        "timing": False,
        "planned": 3,
        "code": "other",
    }
    (out / "run.json").write_text(json.dumps(asked))
    (out / "trials.jsonl").touch()
    return out


@pytest.fixture
def summarised(begun: Path) -> Path:
    (begun / "summary.json").write_text('{"suts": {}}')
    return begun


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "standart"), "no suite is called 'standart'; did you mean 'standard'?"),
        (("--sut", "minmal"), "no SUT is called 'minmal'; did you mean 'minimal'?"),
        (("--sut", "minimal", "--sut", "temporl"), "no SUT is called 'temporl'; did you mean 'temporal'?"),
        (
            ("--sut", "temporal"),
            "suite 'standard' does not run temporal; these do: engines, engines-full, engines-golden, stores",
        ),
        (("--chain", "optimised"), "no chain is called 'optimised'; did you mean 'optimized'?"),
        (("--fault", "worker_kil"), "no fault class is called 'worker_kil'; did you mean 'worker_kill'?"),
        (
            ("--workflow", "finance/invoice_paymnet"),
            "no workflow is called 'finance/invoice_paymnet'; did you mean 'finance/invoice_payment'?",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_an_unknown_name_is_told_with_the_nearest(out: Path, arguments: tuple[str, ...], says: str) -> None:
    assert refusal("run", "--out", out, *arguments) == says
    assert not out.exists()


def suites_with(sut: str) -> list[str]:
    return [name for name in suite_names() if any(key.startswith(f"{sut}+") for key in load_suite(name).suts)]


def test_plan_knows_the_same_suites() -> None:
    assert refusal("plan", "--suite", "standart") == "no suite is called 'standart'; did you mean 'standard'?"


def test_what_a_suite_does_not_hold_can_t_be_run(tmp_path: Path, out: Path) -> None:
    suite = tmp_path / "one.toml"
    suite.write_text(SUITE)
    said = refusal("run", "--suite", suite, "--sut", "naive", "--out", out)
    assert said == f"suite 'one' does not run naive; these do: {', '.join(suites_with('naive'))}"
    said = refusal("run", "--suite", suite, "--chain", "naive", "--out", out)
    assert said == "suite 'one' has no trial for what was asked; see `kintsugi plan`"


# --- suite files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("wokflows = []", "wokflows"),
        ("deadline_seconds = 'long'", "deadline_seconds"),
        ("clean_seeds = '3'", "clean_seeds"),
        ("clean_seeds = -1", "clean_seeds"),
        ("[[faults]]\nfault = 'worker_kil'", "did you mean 'worker_kill'"),
        ("[[faults]]\nfault = 'loop'\nforms = ['repeat_3']", "did you mean 'repeats_3'"),
        ("[[faults]]\nfault = 'loop'\nshard = 1", "shard"),
        ("[timing]\nper_class = 0", "per_class"),
        ("[timing]\nper_class = 1\nfault = 'worker_kil'", "did you mean 'worker_kill'"),
        ("= 5", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_suite_file_is_told(tmp_path: Path, out: Path, more: str, says: str) -> None:
    suite = tmp_path / "bad.toml"
    suite.write_text(SUITE + more)
    line = refusal("run", "--suite", suite, "--out", out)
    assert line.startswith(f"{suite}: ")
    assert says in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("suts", "says"),
    [
        ('["minimal"]', "suts"),
        ('["minmal+optimized"]', "no SUT is called 'minmal'; did you mean 'minimal'?"),
        ('["minimal+optimised"]', "no chain is called 'optimised'; did you mean 'optimized'?"),
        ("[]", "suts"),
    ],
)
def test_a_suite_file_s_suts_are_known(tmp_path: Path, out: Path, suts: str, says: str) -> None:
    suite = tmp_path / "bad.toml"
    suite.write_text(SUITE.replace('["minimal+optimized"]', suts))
    assert says in refusal("run", "--suite", suite, "--out", out)
    assert not out.exists()


def test_a_suite_file_s_variance_is_known(tmp_path: Path, out: Path) -> None:
    suite = tmp_path / "bad.toml"
    suite.write_text(SUITE + 'variance = "tipical"')
    assert "tipical" in refusal("run", "--suite", suite, "--out", out)


@pytest.mark.parametrize(("content", "says"), [(b"\xff\xfe", "UTF-8"), (None, "there is no such suite file")])
def test_a_suite_file_that_can_t_be_read_is_told(tmp_path: Path, out: Path, content: bytes | None, says: str) -> None:
    suite = tmp_path / "bad.toml"
    if content is not None:
        suite.write_bytes(content)
    line = refusal("run", "--suite", suite, "--out", out)
    assert line.startswith(f"{suite}: ")
    assert says in line


# --- results folders ----------------------------------------------------------------------------------------


def test_a_results_folder_that_can_t_be_made_is_told(tmp_path: Path) -> None:
    """Root may write anywhere, but not below a file, in /proc, or under a name that is too long."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "out", tmp_path / "file", Path("/proc/kintsugi"), tmp_path / ("x" * 300)):
        line = refusal("run", "--out", folder)
        assert line.startswith(f"{folder}: can't be written: ")
        assert "--out" in line


def test_other_results_are_not_written_over(begun: Path) -> None:
    before = sorted(begun.rglob("*"))
    said = refusal("run", "--out", begun)
    assert said == f"{begun}: holds results already; go on with --resume, or choose another with --out"
    assert sorted(begun.rglob("*")) == before


def test_there_is_nothing_to_go_on_with(out: Path) -> None:
    assert refusal("run", "--resume") == "--resume needs --out, the folder of the run to go on with"
    assert refusal("run", "--resume", "--out", out) == f"{out}: holds no run to resume"


@pytest.mark.parametrize(
    ("changed", "says"),
    [(("--seed", "8"), "seed 7, not 8"), (("--chain", "naive"), "suts"), (("--fault", "worker_kill"), "faults")],
)
def test_a_run_is_gone_on_with_as_it_was_begun(begun: Path, changed: tuple[str, str], says: str) -> None:
    before = (begun / "run.json").read_text()
    given = {"--sut": "minimal", "--workflow": "finance/invoice_payment", "--chain": "optimized", "--fault": "loop"}
    given |= dict([changed])
    line = refusal("run", "--resume", "--out", begun, *itertools.chain(*given.items()))
    assert line.startswith(f"{begun}: was begun with ")
    assert says in line
    assert (begun / "run.json").read_text() == before


def test_two_runs_do_not_write_into_one_folder(begun: Path) -> None:
    with (begun / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for more in ((), ("--resume",)):
            line = refusal("run", "--out", begun, *more)
            assert line == f"{begun}: another run is writing there; wait for it or choose another with --out"


@pytest.mark.parametrize("command", ["check", "report", "gate", "replay"])
def test_a_folder_without_results_is_told(tmp_path: Path, command: str) -> None:
    line = refusal(command, tmp_path, *(("--trial", "x") if command == "replay" else ()))
    assert line == f"{tmp_path}: holds no results (no run.json); give the folder that `kintsugi run` wrote"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "report", "gate", "replay"])
@pytest.mark.parametrize("content", ["{", "[]", "5", "{}"])
def test_a_folder_whose_run_is_none_is_told(begun: Path, command: str, content: str) -> None:
    (begun / "summary.json").write_text(content)
    (begun / "run.json").write_text(content)
    (begun / "trials.jsonl").write_text('{"id": 1}\n')
    more = ("--trial", "x") if command == "replay" else ()
    assert refusal(command, begun, *more).startswith(str(begun))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"id": "x", "verdict": "correct"}'])
def test_a_line_that_is_no_verdict_is_told_with_its_number(begun: Path, line: str) -> None:
    (begun / "trials.jsonl").write_text(f"{line}\n")
    assert refusal("check", begun).startswith(f"{begun / 'trials.jsonl'}:1: is no trial result")


def test_a_run_without_a_summary_can_t_be_gated(begun: Path) -> None:
    assert refusal("gate", begun) == f"{begun}: has no summary.json yet; finish it with `kintsugi run --resume {begun}`"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read"),
        ("= 5", "not valid TOML"),
        ("colour = 'red'", "colour"),
        ("[[lines]]\nmetric = 'pass_kk'\nmode = 'point'\nat_least = 1.0", "pass_kk"),
        ("[[lines]]\nmetric = 'pass_k'\nmode = 'point'\nat_least = 'much'", "at_least"),
    ],
)
def test_what_is_wrong_in_a_thresholds_file_is_told(
    summarised: Path, tmp_path: Path, content: str | None, says: str
) -> None:
    thresholds = tmp_path / "bad.toml"
    if content is not None:
        thresholds.write_text(content)
    line = refusal("gate", summarised, "--thresholds", thresholds)
    assert line.startswith(f"{thresholds}:")
    assert says in line


# --- replay -------------------------------------------------------------------------------------------------


def test_a_trial_to_replay_is_named_and_known(begun: Path) -> None:
    assert "--trial" in refusal("replay", begun)
    assert refusal("replay", begun, "--trial", "x") == (f"{begun}: 0 trials match 'x'; give one id from trials.jsonl")


TWO_NODES = {"fault": "node_loss", "form": "process", "point": "tool:pay[0]#1@before"}
SEVERAL = {"fault": "poison_workflow", "form": "one_node", "point": "tool:pay[0]#1@before"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sut": "minmal"}, "no SUT is called 'minmal'; did you mean 'minimal'?"),
        ({"chain": "optimised"}, "no chain is called 'optimised'; did you mean 'optimized'?"),
        ({"workflow": "finance/invoices"}, "no workflow is called 'finance/invoices'"),
        ({"variance": "tipical"}, "no variance is called 'tipical'; did you mean 'typical'?"),
        ({"schedule": [{**TRIAL["schedule"][0], "fault": "worker_kil"}]}, "did you mean 'worker_kill'?"),  # type: ignore[index]
        ({"schedule": [{**TRIAL["schedule"][0], "form": "at_bondary"}]}, "did you mean 'at_boundary'?"),  # type: ignore[index]
        ({"schedule": [{**TRIAL["schedule"][0], "point": "tool:pay@before"}]}, "is no point"),  # type: ignore[index]
        ({"schedule": [{**TRIAL["schedule"][0], "point": "tool:pai[0]#1@before"}]}, "did you mean 'pay'?"),  # type: ignore[index]
        (
            {"schedule": [{"fault": "stale_data", "form": "while_waiting", "point": "human:pay[0]#1@waiting"}]},
            "has no drift ''",
        ),
        ({"schedule": 5}, "is no trial"),
        ({"copies": "x"}, "is no trial: copies: found 'x', a whole number from 1 on is needed"),
        ({"nodes": 0}, "is no trial: nodes: found 0, a whole number from 1 on is needed"),
        ({"schedule": [TWO_NODES]}, "node_loss.process needs 2 nodes, the trial has nodes 1"),
        ({"schedule": [SEVERAL]}, "poison_workflow.one_node needs copies 2 or more, the trial has copies 1"),
    ],
    ids=[
        *("sut", "chain", "workflow", "variance", "fault", "form", "point", "step", "drift", "schedule"),
        *("copies", "nodes", "few_nodes", "few_copies"),
    ],
)
def test_what_is_wrong_in_a_trial_file_is_told(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    file = tmp_path / "trial.json"
    file.write_text(json.dumps({**TRIAL, **changes}))
    assert says in refusal("replay", file)


@pytest.mark.parametrize("content", [b"{", b"[]", b"5", b"\xff", b"{}", None])
def test_a_file_that_is_no_trial_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "trial.json"
    if content is not None:
        file.write_bytes(content)
    assert refusal("replay", file).startswith(f"{file}: ")


# --- the machine --------------------------------------------------------------------------------------------


def test_too_few_open_files_for_the_jobs_are_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that ran out of sockets were said to have broken the harness, one by one."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    line = refusal("run", "--jobs", "100", "--out", out)
    assert re.fullmatch(r"100 trials at once need \d+ open files, and the limit is 1024; .*--jobs.*ulimit -n", line)
    assert not out.exists()


@pytest.mark.process
def test_help_loads_nothing_heavy() -> None:
    """How fast it answers is measured by the bench; what it must not load is said here."""
    probe = """
import sys
from kintsugi.harness.cli import main
main(["--help"], standalone_mode=False)
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    assert "Usage:" in done.stdout
    loaded = set(done.stderr.split())
    assert "click" in loaded
    heavy = {
        "pandas",
        "matplotlib",
        "scipy",
        "numpy",
        "aiohttp",
        "litellm",
        "docker",
        "jsonschema",
        "pydantic",
        "jinja2",
    }
    assert loaded & heavy == set()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wherever a refused command might write, it is not here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "results").exists()
