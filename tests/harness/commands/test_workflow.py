"""``kintsugi workflow`` and ``--workflows``, as a user has them: a skeleton that works, notes, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from kintsugi.golden_workflows.spec import HERE, load_tools, load_workflows
from kintsugi.harness.cli import main

BROKEN = Path(__file__).parents[2] / "golden_workflows" / "broken"
SUITE = """
name = "small"
version = 1
about = "A few trials."
suts = ["minimal+optimized", "minimal+naive", "naive+naive"]

[[faults]]
fault = "worker_kill"
forms = ["at_boundary"]
shared = 2
"""


def told(*arguments: object) -> str:
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (outcome.exit_code, outcome.stderr) == (0, ""), (outcome.output, outcome.exception)
    return outcome.stdout


def refusal(*arguments: object) -> str:
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (outcome.exit_code, outcome.stdout) == (2, ""), (outcome.output, outcome.exception)
    (line,) = outcome.stderr.splitlines()
    return line.removeprefix("kintsugi: ")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of workflows, as `workflow new` leaves it."""
    told("workflow", "new", "shop/outage", "--into", tmp_path / "mine")
    load_tools.cache_clear()
    return tmp_path / "mine"


# --- new ----------------------------------------------------------------------------------------------------


def test_a_skeleton_is_proven_and_every_part_of_it_is_reached(mine: Path) -> None:
    assert sorted(str(path.relative_to(mine)) for path in mine.rglob("*.toml")) == [
        "shop/outage.toml",
        "tools/outage.toml",
    ]
    line = "shop/outage: plan and truth agree; 4 calls, 2 effects, 1 drifts\n"
    assert told("workflow", "check", mine / "shop" / "outage.toml") == line
    assert told("workflow", "check", mine) == line


def test_nothing_is_overwritten(mine: Path) -> None:
    again = refusal("workflow", "new", "shop/outage", "--into", mine)
    assert again == f"{mine}/shop/outage.toml: is there already; choose another name, or another folder with --into"
    (mine / "shop" / "outage.toml").unlink()
    assert refusal("workflow", "new", "shop/outage", "--into", mine).startswith(f"{mine}/tools/outage.toml: is there")
    assert not (mine / "shop" / "outage.toml").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("outage", "outage: give CLASS/NAME"),
        ("shop/Outage", "shop/Outage: give CLASS/NAME"),
        ("a/b/c", "a/b/c: give CLASS/NAME"),
        ("tools/outage", "tools/outage: tools/ is where the tool files are"),
        ("shop/bank", "shop/bank: bank is the name of a service already; choose another name"),
    ],
)
def test_a_name_that_can_t_be_is_told(name: str, says: str, tmp_path: Path) -> None:
    assert refusal("workflow", "new", name, "--into", tmp_path).startswith(says)
    assert list(tmp_path.iterdir()) == []


# --- check --------------------------------------------------------------------------------------------------


def test_what_is_never_reached_is_noted_and_nothing_of_it_is_an_error(mine: Path) -> None:
    path = mine / "shop" / "outage.toml"
    text = path.read_text(encoding="utf-8")
    other = '[world.reports.R-2]\ncustomer = "C-8"\nhours_down = 2\nours = true\n\n'
    path.write_text(text.replace("# The steps,", f"{other}# The steps,"), encoding="utf-8")
    shutil.copy(BROKEN / "base" / "tools" / "stock.toml", mine / "tools")
    load_tools.cache_clear()
    _, *notes = told("workflow", "check", path).splitlines()
    assert notes[0] == "  note: world.reports.R-2: no step reads or writes it"
    assert notes[1].startswith(f"  note: {mine}/tools: tools.stock.mark.idempotency: is not given, ")
    tools = ["stock.get", "stock.list", "stock.order", "stock.mark"]
    assert notes[2:] == [f"  note: {mine}/tools: tools.{name}: no workflow of this folder calls it" for name in tools]


def test_notes_on_tools_name_the_folder_as_it_was_given(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(BROKEN / "base" / "tools" / "stock.toml", mine / "tools")
    load_tools.cache_clear()
    monkeypatch.chdir(mine.parent)
    _, first, *_ = told("workflow", "check", "mine").splitlines()
    assert first.startswith("  note: mine/tools: tools.stock.mark.idempotency: ")


def test_shipped_tools_are_not_noted() -> None:
    path = HERE / "finance" / "customer_refund.toml"
    assert "tools" not in told("workflow", "check", path)


CASES = [
    (
        "workflows",
        ["not_toml", "misspelt_key_of_a_step", "missing_key", "infinite", "record_lacks_a_field"],
        "shop/restock.toml",
    ),
    ("unproven", None, "shop/restock.toml"),
    ("tools", None, "tools/stock.toml"),
]


@pytest.mark.parametrize(
    ("file", "case"),
    [
        pytest.param(file, case, id=name)
        for kind, names, file in CASES
        for name, case in tomllib.loads((BROKEN / f"{kind}.toml").read_text(encoding="utf-8")).items()
        if names is None or name in names
    ],
)
def test_a_broken_file_is_one_line_and_exit_2(file: str, case: dict[str, object], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BROKEN / "base", tmp_path / "mine"))
    path, text = folder / file, (folder / file).read_text(encoding="utf-8")
    for change in case["change"]:  # type: ignore[attr-defined]
        text = text.replace(change["old"], change["new"], 1)
    path.write_text(text, encoding="utf-8")
    line = refusal("workflow", "check", folder / "shop" / "restock.toml")
    assert line.startswith(f"{path}: ")
    assert " ".join(str(case["says"]).split()) in line


# --- a folder of one's own ----------------------------------------------------------------------------------


def test_a_folder_is_listed_and_planned(mine: Path) -> None:
    assert (
        told("list", "workflows", "--workflows", mine)
        == "workflows\n  shop/outage  Credit a customer for a reported fault\n"
    )
    # The workflows that a shipped suite names are shipped ones; of a user's own it takes all.
    title, *rows = told("plan", "--workflows", mine).splitlines()
    assert title.startswith("suite standard 2 on mine, seed 7: ")
    assert any(row.split() == ["clean", "16"] for row in rows)


def test_own_tools_stand_beside_the_shipped_ones(mine: Path) -> None:
    path = mine / "shop" / "outage.toml"
    text = path.read_text(encoding="utf-8")
    mail = 'tool = "tickets.comment"\nargs = { ticket_id = "T-9", state = "done", text = "= judge.text" }'
    given = 'customer = "= report.customer", about = "= report.id", text = "= judge.text"'
    sent = f'tool = "outage.send_message"\nargs = {{ {given} }}'
    effect = 'tool = "outage.send_message", args = { customer = "C-7", about = "R-1" }'
    commented = 'tool = "tickets.comment", args = { ticket_id = "T-9", state = "done" }'
    path.write_text(text.replace(sent, mail).replace(effect, commented), encoding="utf-8")
    workflow = load_workflows(mine)["shop/outage"]
    assert set(workflow.tools) == {"outage.get_report", "outage.credit", "tickets.comment"}


def test_a_tool_with_the_name_of_a_shipped_one_is_refused_and_a_copy_of_it_is_not(mine: Path) -> None:
    copied = Path(shutil.copy(HERE / "tools" / "bank.toml", mine / "tools" / "my_bank.toml"))
    assert told("list", "workflows", "--workflows", mine)
    copied.write_text(copied.read_text(encoding="utf-8").replace("description = ", "description = 'Mine.' #", 1))
    load_tools.cache_clear()
    line = refusal("list", "workflows", "--workflows", mine)
    assert line.startswith(f"{copied}: tools.bank.")
    assert line.endswith(": is a tool that Kintsugi brings; give yours another name")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--workflows", "absent"), "absent: there is no such folder"),
        (("--workflows", ""), "--workflows: found an empty name"),
        (("--workflows", "."), ".: holds no workflow; each is looked for as ./CLASS/NAME.toml"),
        (("--domain", "retail"), "--domain goes with --workflows tau2:CHECKOUT"),
        (("--workflows", "tau2:x"), "--workflows tau2:x: say which domain of it with --domain"),
        (("--workflows", "tau2:x", "--domain", "retail"), "x: has no src/tau2/domains"),
    ],
)
@pytest.mark.parametrize("command", [("list", "workflows"), ("plan",), ("run",), ("explore", "--sut", "minimal")])
def test_what_holds_no_workflows_is_told(
    command: tuple[str, ...], arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(*command, *arguments).startswith(says)


def test_a_file_whose_name_can_t_be_a_workflows_is_told(mine: Path) -> None:
    (mine / "shop" / "outage.toml").rename(mine / "shop" / "Out age.toml")
    line = refusal("list", "workflows", "--workflows", mine)
    assert "'Out age' names no class or workflow; take lower-case letters" in line


def test_a_suite_of_ones_own_keeps_to_the_workflows_it_names(mine: Path, tmp_path: Path) -> None:
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE.replace("[[faults]]", 'workflows = ["finance/*"]\n\n[[faults]]'), encoding="utf-8")
    line = refusal("plan", "--suite", suite, "--workflows", mine)
    assert line.startswith(f"suite 'small': its 'workflows' name none of those in {mine}; leave the key out")


# --- results ------------------------------------------------------------------------------------------------


ONE = "minimal+naive~shop/outage~baseline"


def kintsugi(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from kintsugi.harness.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:]), "COLUMNS": "200"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.process
def test_a_class_that_kintsugi_does_not_know_goes_all_the_way_and_results_know_their_workflows(
    mine: Path, tmp_path: Path
) -> None:
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    suite.write_text(SUITE, encoding="utf-8")
    asked = ("run", "--suite", suite, "--workflows", mine, "--jobs", "4", "--out", out)
    ran = kintsugi(*asked)
    assert ran.returncode == 0, ran.stderr
    results = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    ours = [line for line in results if line["trial"]["sut"] == "minimal"]
    assert len(ours) == 6
    assert {line["verdict"] for line in ours} == {"correct"}

    summary = json.loads((out / "summary.json").read_text())
    assert summary["suite"] == "small 1 on mine"
    assert set(summary["suts"]["minimal+optimized"]["classes"]) == {"shop"}
    assert "shop/outage" in (out / "junit.xml").read_text()
    assert "shop" in (out / "summary.md").read_text()
    assert "shop/outage" in (out / "scorecard.html").read_text()
    assert kintsugi("gate", out).returncode == 3  # Too few trials to say.

    assert kintsugi("check", out).stdout == "9 histories judged again, 0 verdicts differ\n"
    assert kintsugi("report", out).returncode == 0
    resumed = kintsugi(*asked, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    told = kintsugi("replay", out, "--stored", "--trial", ONE)
    assert told.returncode == 0, told.stderr

    path = mine / "shop" / "outage.toml"
    path.write_text(path.read_text(encoding="utf-8") + "# Another digest.\n", encoding="utf-8")
    for again in (("check", out), ("report", out), ("replay", out, "--trial", ONE), (*asked, "--resume")):
        changed = kintsugi(*again)
        assert changed.returncode == 2
        assert changed.stderr == (
            f"kintsugi: {mine}: its workflows have changed since they were run; put the files back, or run them again\n"
        )
