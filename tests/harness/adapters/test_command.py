"""Command adapters: what a file may hold, what is said of one that is wrong, and how a run takes one along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.adapters.command import lacking, load_adapter, load_adapters, recorded, to_records, verbs_of
from kintsugi.harness.cli import main
from kintsugi.harness.commands.run import narrow
from kintsugi.runtime.engines.command import FILE, _file
from kintsugi.scenarios.suite import load_suite

EXAMPLES = Path(__file__).parent / "examples"
SHORT = EXAMPLES / "short_agent.toml"

GOOD = """
name = "mine"
about = "An agent."

[worker]
argv = ["sh", "-c", "exit"]
"""


def written(folder: Path, text: str = GOOD, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def kintsugi(*words: str) -> Result:
    return CliRunner().invoke(main, words)


# --- the file -----------------------------------------------------------------------------------------------


def test_a_file_says_all_that_the_harness_asks_of_an_adapter(tmp_path: Path) -> None:
    lines = 'decisions = "push"\nfails_over = true\nresumes = "supervisor"\nsubmit_first = true\n'
    text = GOOD.replace("\n[worker]", f'{lines}settings = {{ retries = "5" }}\n[worker]')
    text += '[decide]\nargv = ["true"]\n[retire]\nhttp = { url = "http://127.0.0.1:1/{state_dir}" }\n'
    adapter = load_adapter(written(tmp_path, text))
    assert (adapter.name, adapter.about, adapter.decisions, adapter.resumes) == (
        "mine",
        "An agent.",
        "push",
        "supervisor",
    )
    assert adapter.fails_over
    assert adapter.submit_first
    assert adapter.own_chain
    assert adapter.retires
    assert adapter.settings == {"retries": "5"}
    assert adapter.environment[FILE] == str(tmp_path / "mine.toml")


def test_a_disk_is_broken_only_under_what_is_kept_there(tmp_path: Path) -> None:
    """What has its state elsewhere would pass, and was never tried."""
    kept = load_adapter(written(tmp_path, GOOD)).lacks()
    elsewhere = load_adapter(written(tmp_path, GOOD.replace("\n[worker]", '\nstate = "elsewhere"\n[worker]'))).lacks()
    assert elsewhere - kept == {"own_files"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'nmae = "mine"', "nmae: unknown key; did you mean 'name'?"),
        ('name = "mine"', "", "name: this key is missing"),
        ('"mine"', '"My-Agent"', "name: string should match pattern '^[a-z][a-z0-9_]*$', found 'My-Agent'"),
        ('"mine"', '"naive"', "name: 'naive' is a SUT that Kintsugi brings; choose another"),
        ('"An agent."', '""', "about: string should have at least 1 character, found ''"),
        ("[worker]", 'decisions = "ask"\n[worker]', "decisions: input should be 'poll' or 'push', found 'ask'"),
        ("[worker]", 'fails_over = "no"\n[worker]', "fails_over: input should be a valid boolean, found 'no'"),
        ("[worker]", 'decisions = "push"\n[worker]', 'decisions = "push" needs [decide]'),
        ("[worker]", '[decide]\nargv = ["x"]\n[worker]', '[decide] is never used with decisions = "poll"'),
        ("[worker]", '[environment]\nKINTSUGI_TOKEN = "x"\n[worker]', "environment.KINTSUGI_TOKEN: what begins with"),
        ("[worker]", "[workers]", "workers: unknown key; did you mean 'worker'?"),
        ('["sh", "-c", "exit"]', '"sh"', "worker.argv: input should be a valid list, found 'sh'"),
        ('["sh", "-c", "exit"]', "[]", "worker.argv: list should have at least 1 item"),
        ('"exit"', '"{statedir}"', "worker.argv[2]: nothing is called {statedir} here; did you mean '{state_dir}'?"),
        ("[worker]", '[submit]\nargv = ["x", "{request_id}"]\n[worker]', "submit.argv[1]: nothing is called {request"),
        ("[worker]", "[submit]\n[worker]", "submit: give either argv or http, and not both"),
        ("[worker]", '[submit]\nargs = ["x"]\n[worker]', "submit.args: unknown key; did you mean 'argv'?"),
        ("[worker]", '[submit.http]\nurl = "ftp://x"\n[worker]', "submit.http.url: string should match pattern"),
        ("[worker]", '[status.http]\nurl = "http://x"\nverb = "GET"\n[worker]', "status.http.verb: unknown key"),
        ("[worker]", "[worker", "not valid TOML"),
    ],
)
def test_each_mistake_in_a_file_is_one_line_with_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(FileProblem) as problem:
        load_adapter(path)
    assert str(problem.value).startswith(f"{path}: ")
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_file_that_can_not_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="can't be read: No such file"):
        load_adapter(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(FileProblem, match="byte 8 is not UTF-8"):
        load_adapter(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_passed_over_by_the_harness_and_by_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load_adapter(written(tmp_path, f"\ufeff{GOOD}"))
    assert verbs_of(adapter) == frozenset()
    monkeypatch.setenv(FILE, adapter.environment[FILE])
    assert _file.__wrapped__()[0]["name"] == "mine"


def test_two_files_may_not_call_their_suts_the_same(tmp_path: Path) -> None:
    both = [written(tmp_path), written(tmp_path, name="other.toml")]
    with pytest.raises(FileProblem, match=r"other\.toml: name: another file given calls its SUT 'mine' too"):
        load_adapters(both)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("no-such-program", "worker.argv[0]: no program 'no-such-program' is on PATH"),
        ("./agent", "a relative path begins at the file's folder"),
        ("{here}/plain", "may not be executed; chmod +x it"),
    ],
)
def test_a_program_that_is_not_there_is_named(tmp_path: Path, program: str, said: str) -> None:
    (tmp_path / "plain").write_text("")
    adapter = load_adapter(written(tmp_path, GOOD.replace('"sh"', f'"{program}"')))
    with pytest.raises(Unavailable) as problem:
        adapter.must_be_there()
    assert said in str(problem.value)


# --- in a suite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sut", "chain", "chosen"),
    [
        ([], [], ["naive+naive", "mine+own"]),
        (["mine"], [], ["mine+own"]),
        (["minimal"], [], ["minimal+optimized", "minimal+naive", "mine+own"]),
        (["minimal", "mine"], ["naive"], ["minimal+naive", "mine+own"]),
    ],
)
def test_a_sut_of_ones_own_stands_beside_the_reference_or_what_is_named(
    tmp_path: Path, sut: list[str], chain: list[str], chosen: list[str]
) -> None:
    own = load_adapters([written(tmp_path)])
    _, _, suts = narrow(load_suite("standard"), sut, chain, [], [], own)
    assert suts == chosen


def test_a_suite_may_name_the_sut_itself(tmp_path: Path) -> None:
    suite = tmp_path / "mine_suite.toml"
    suite.write_text('name = "s"\nversion = 1\nabout = "x"\nsuts = ["mine+own", "minimal+naive"]\n')
    own = load_adapters([written(tmp_path)])
    assert narrow(load_suite(str(suite)), [], [], [], [], own)[2] == ["mine+own"]
    assert narrow(load_suite(str(suite)), ["minimal"], [], [], [], own)[2] == ["minimal+naive", "mine+own"]
    with pytest.raises(FileProblem, match="no SUT is called 'mine'"):
        narrow(load_suite(str(suite)), [], [], [], [], {})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("mine+naive", r"mine\+naive: mine brings its own agent: mine\+own"),
        ("minimal+own", r"minimal\+own: minimal brings no agent of its own"),
    ],
)
def test_its_own_chain_is_its_only_one_and_no_one_elses(tmp_path: Path, key: str, said: str) -> None:
    suite = tmp_path / "mixed.toml"
    suite.write_text(f'name = "s"\nversion = 1\nabout = "x"\nsuts = ["{key}"]\n')
    with pytest.raises(FileProblem, match=said):
        narrow(load_suite(str(suite)), [key.split("+", maxsplit=1)[0]], [], [], [], load_adapters([written(tmp_path)]))


def test_what_is_kept_of_it_is_enough_to_plan_with_when_its_file_is_gone(tmp_path: Path) -> None:
    own = load_adapters([written(tmp_path)])
    records = json.loads(json.dumps(to_records(own)))
    (tmp_path / "mine.toml").unlink()
    again = recorded(records)
    assert (again["mine"].about, again["mine"].own_chain) == ("An agent.", True)
    assert lacking(again) == lacking(own)
    assert "pushed_decisions" in lacking(own)["mine"]


def test_the_plan_shows_it() -> None:
    shown = kintsugi("plan", "--suite", "standard", "--adapter", str(SHORT))
    assert shown.exit_code == 0
    assert "trials on naive+naive, short_agent+own" in shown.output


def test_a_broken_file_ends_each_command_with_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("about", "abuot"))
    for words in (["run", "--adapter"], ["plan", "--adapter"], ["adapter", "check"]):
        ended = kintsugi(*words, str(path))
        assert ended.exit_code == 2
        assert ended.output == f"kintsugi: {path}: abuot: unknown key; did you mean 'about'?\n"


@pytest.mark.process
def test_a_run_with_it_is_scored_gone_on_with_judged_again_and_replayed(tmp_path: Path) -> None:
    suite, out = tmp_path / "tiny.toml", tmp_path / "out"
    suite.write_text(
        'name = "tiny"\nversion = 1\nabout = "x"\nworkflows = ["finance/invoice_payment"]\nsuts = ["naive+naive"]\n'
        '[[faults]]\nfault = "worker_kill"\nforms = ["at_boundary"]\nshared = 2\nmodel = 1\n'
    )
    words = ["run", "--suite", str(suite), "--sut", "short_agent", "--adapter", str(SHORT), "--out", str(out)]
    ran = kintsugi(*words)
    assert ran.exit_code == 0, ran.output
    results = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert {(r["sut"], r["chain"]) for r in results} == {("short_agent", "own")}
    assert [r["injection"] for r in results if r["kind"] == "fault"] == ["witnessed"] * 3
    assert "short_agent+own" in (out / "scorecard.html").read_text().replace(" ", "")
    # What was cut off is run again, under the same request and no other.
    lines = (out / "trials.jsonl").read_text().splitlines(keepends=True)
    (out / "trials.jsonl").write_text("".join(lines[:-1]))
    resumed = kintsugi(*words, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert len((out / "trials.jsonl").read_text().splitlines()) == len(lines)
    without = kintsugi("run", "--suite", str(suite), "--out", str(out), "--resume")
    assert (without.exit_code, "resume it as it was begun" in without.output) == (2, True)
    # Judging again needs no program; running one again does.
    assert kintsugi("check", str(out)).exit_code == 0
    assert kintsugi("report", str(out)).exit_code == 0
    trial = next(r["id"] for r in results if r["kind"] == "baseline")
    told = kintsugi("replay", str(out), "--trial", trial)
    assert told.exit_code == 0, told.output
    assert "verdict   correct" in told.output
    assert kintsugi("replay", str(out), "--trial", trial, "--stored").exit_code == 0
