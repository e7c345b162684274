"""``kintsugi adapter check`` on agents that keep to the protocol, and on agents that break one rule of it each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kintsugi.harness.cli import main

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parent / "examples"
AGENT = (EXAMPLES / "short_agent.py").read_text(encoding="utf-8")
LONG_SECONDS = 15
"""For agents that never come to an end: long enough for a busy machine to get them as far as they go."""
TOML = (EXAMPLES / "short_agent.toml").read_text(encoding="utf-8")


def check(path: Path | str, seconds: float = 60) -> Result:
    return CliRunner().invoke(main, ["adapter", "check", str(path), "--seconds", str(seconds)])


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on PATH")


def lines(result: Result) -> dict[str, str]:
    """What each check came to: its name, and the rest of its line with the outcome first."""
    found = {}
    for line in result.output.splitlines():
        if line[:5].strip() in {"ok", "FAIL", "note", "skip"}:
            found[line[6:29].strip()] = f"{line[:5].strip()} {line[29:]}"
    return found


def broken(folder: Path, *changes: tuple[str, str], toml: tuple[str, str] = ("", "")) -> Path:
    """The short agent with a part of it replaced."""
    text = AGENT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "short_agent.py").write_text(text)
    (folder / "agent.toml").write_text(TOML.replace(*toml))
    return folder / "agent.toml"


# --- agents that keep to it ---------------------------------------------------------------------------------


def test_a_script_of_under_forty_lines_conforms(tmp_path: Path) -> None:
    assert len(AGENT.splitlines()) < 40
    result = check(EXAMPLES / "short_agent.toml")
    assert result.exit_code == 0, result.output
    found = lines(result)
    assert found["completes"].startswith("ok correct")
    assert found["keys"].startswith("note no Client-Reference with ads.exclude_contact")
    assert found["restart"].startswith("ok killed with signal 9; worker 2 went on")
    # What it does after a kill is the benchmark's matter, and no failure here.
    assert found["and the run"] == "note correct: every expected effect, once"
    assert "note    and the run          corrupted: duplicate effect of ads.create_campaign" in result.output
    assert result.output.endswith("short_agent conforms: 8 checks\n")


def test_a_plain_node_agent_with_a_journal_conforms_and_recovers() -> None:
    needs("node")
    result = check(EXAMPLES / "journal_agent.toml")
    assert result.exit_code == 0, result.output
    assert result.output.count("and the run          correct: every expected effect, once") == 2
    assert "worker ends" not in lines(result)


@pytest.mark.parametrize(("language", "program", "suffix"), [("python", "python3", "py"), ("node", "node", "mjs")])
def test_a_new_skeleton_conforms_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, program: str, suffix: str
) -> None:
    needs(program)
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["adapter", "new", "fresh", "--language", language])
    assert made.exit_code == 0, made.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"fresh.{suffix}", "fresh.toml"])
    result = check("fresh.toml")
    assert result.exit_code == 0, result.output
    assert lines(result)["keys"].startswith("ok")


def test_a_sut_that_comes_with_kintsugi_is_checked_by_its_name() -> None:
    result = check("minimal")
    assert result.exit_code == 0, result.output
    found = lines(result)
    assert found["verb decide"].startswith("ok")
    assert found["fail-over"].startswith("ok")


# --- agents that break one rule each ------------------------------------------------------------------------


def test_a_worker_that_ends_without_a_request_is_told_what_to_do(tmp_path: Path) -> None:
    path = broken(tmp_path, ("import json\n", "import json\nprint('nothing to do')\nraise SystemExit\n"))
    result = check(path)
    assert result.exit_code == 1
    assert lines(result)["worker starts"] == "FAIL no request came; it ended with 0"
    assert "set submit_first = true" in result.output
    assert "      | nothing to do\n" in result.output
    assert lines(result)["restart"].startswith("skip")


def test_what_a_worker_printed_before_it_died_is_shown(tmp_path: Path) -> None:
    result = check(broken(tmp_path, ("import json\n", "import jsonn\n")))
    assert lines(result)["worker starts"] == "FAIL no request came; it ended with 1"
    assert "| ModuleNotFoundError: No module named 'jsonn'" in result.output


def test_a_wrong_token_is_named(tmp_path: Path) -> None:
    result = check(broken(tmp_path, ("os.environ['KINTSUGI_TOKEN']", "'abc'")))
    assert "a request was turned away with 401" in lines(result)["worker starts"]
    assert "KINTSUGI_TOKEN" in result.output


def test_a_verb_that_fails_says_what_it_said(tmp_path: Path) -> None:
    verb = '[submit]\nargv = ["sh", "-c", "echo no room >&2; exit 3"]\n\n[worker]'
    result = check(broken(tmp_path, toml=("[worker]", verb)))
    assert result.exit_code == 1
    assert lines(result)["verb submit"] == "FAIL submit: sh ended with 3: no room"


def test_a_status_that_is_no_object_with_a_state_is_a_failure(tmp_path: Path) -> None:
    result = check(broken(tmp_path, toml=("[worker]", '[status]\nargv = ["echo", "fine"]\n\n[worker]')))
    assert result.exit_code == 1
    assert lines(result)["verb status"].startswith("FAIL")
    assert 'a JSON object that has a "state"' in result.output


def test_a_write_without_its_approval_is_a_failure(tmp_path: Path) -> None:
    path = broken(tmp_path, ('headers["Approval-Token"] = got.pop("token", "")', 'got.pop("token", "")'))
    result = check(path)
    assert lines(result)["approval"] == "FAIL ads.create_campaign was called and took effect: no approval"


def test_a_wait_that_is_not_scaled_is_recognised(tmp_path: Path) -> None:
    path = broken(tmp_path, ('float(os.environ["KINTSUGI_TIME_SCALE"])', "1"))
    result = check(path, seconds=LONG_SECONDS)
    assert lines(result)["completes"].startswith("FAIL lost: no end report before the deadline")
    assert "times KINTSUGI_TIME_SCALE" in result.output


def test_a_script_that_does_not_end_is_a_failure(tmp_path: Path) -> None:
    end = 'post("HUMAN", "/end", {"status": "completed"})'
    result = check(broken(tmp_path, (end, f"{end}\n    time.sleep(600)")), seconds=LONG_SECONDS)
    assert lines(result)["completes"].startswith("ok")
    assert lines(result)["worker ends"] == "FAIL it was still there"


def test_runs_that_are_mixed_up_are_a_failure(tmp_path: Path) -> None:
    result = check(broken(tmp_path, ('"Kintsugi-Run": path.stem', '"Kintsugi-Run": "r0"')), seconds=LONG_SECONDS)
    assert result.exit_code == 1
    assert lines(result)["two runs at once"].startswith("FAIL")
    assert "every request says in Kintsugi-Run which run it is for" in result.output


def test_a_worker_that_does_not_come_back_is_a_failure(tmp_path: Path) -> None:
    seen = (
        'seen = Path(os.environ["KINTSUGI_STATE_DIR"], "seen")\nif seen.exists():\n    time.sleep(600)\nseen.touch()\n'
    )
    result = check(broken(tmp_path, ("ThreadPool(50)", f"{seen}ThreadPool(50)")), seconds=LONG_SECONDS)
    assert result.exit_code == 1
    assert lines(result)["restart"] == "FAIL no request came after the kill"
    assert lines(result)["restart while waiting"] == "FAIL no request came after the kill"


def test_a_process_that_is_left_is_found_and_ended(tmp_path: Path) -> None:
    daemon = 'import subprocess\nsubprocess.Popen(["sleep", "600"], start_new_session=True)\n'
    result = check(broken(tmp_path, ("import json\n", f"import json\n{daemon}")))
    assert result.exit_code == 1
    left = lines(result)["nothing left"]
    assert "processes outlived their trial" in left
    pids = left.rpartition(": ")[2].split(", ")
    assert pids
    for pid in pids:
        path = Path("/proc", pid, "stat")
        assert not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"


# --- what is no agent at all --------------------------------------------------------------------------------


def test_a_name_that_nothing_has_is_one_line() -> None:
    result = check("minmal")
    assert (result.exit_code, result.output) == (
        2,
        "kintsugi: minmal: there is no such file, and no SUT of that name; did you mean 'minimal'?\n",
    )


def test_a_program_that_is_missing_is_one_line(tmp_path: Path) -> None:
    path = broken(tmp_path, toml=('"python3"', '"pythonn"'))
    result = check(path)
    assert result.exit_code == 2
    assert f"kintsugi: {path}: worker.argv[0]: no program 'pythonn' is on PATH" in result.output


def test_a_skeleton_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fresh.py").write_text("mine")
    made = CliRunner().invoke(main, ["adapter", "new", "fresh"])
    assert (made.exit_code, "fresh.py: is there already" in made.output) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.py"]
    for name, said in (("minimal", "a SUT that Kintsugi brings"), ("My-Agent", "lower-case letters")):
        made = CliRunner().invoke(main, ["adapter", "new", name])
        assert (made.exit_code, said in made.output) == (2, True)
