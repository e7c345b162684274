"""A made-up domain of τ²-bench's form becomes workflows, whose effects are those of its own tools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.records import Unservable
from kintsugi.golden_workflows.reference import check_truth, trajectory
from kintsugi.golden_workflows.sources import recorded_source, source_of
from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.golden_workflows.tau2 import Converted, load_domain
from kintsugi.golden_workflows.tau2.checkout import open_checkout
from kintsugi.golden_workflows.tau2.world import Answers, ToolkitRecords
from kintsugi.golden_workflows.workflow import Workflow

CHECKOUT = Path(__file__).parent / "tau2_checkout"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of the made-up checkout, to be changed; nothing of it is left in this process."""
    load_domain.cache_clear()
    yield Path(shutil.copytree(CHECKOUT, tmp_path / "checkout"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tau2"]:
        del sys.modules[name]


@pytest.fixture
def lending(checkout: Path) -> Converted:
    return load_domain(checkout, "lending")


@pytest.fixture
def both(lending: Converted) -> Workflow:
    """The task that reads, adds, and writes twice."""
    return lending.workflows["tau2_lending/task_0"]


def refusal(checkout: Path, domain: str = "lending") -> str:
    with pytest.raises(FileProblem) as caught:
        load_domain(checkout, domain)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- tasks --------------------------------------------------------------------------------------------------


def test_each_task_is_a_workflow_or_is_left_out_for_a_reason(lending: Converted) -> None:
    assert list(lending.workflows) == [
        "tau2_lending/task_0",
        "tau2_lending/task_1",
        "tau2_lending/task_back___forth",
        "tau2_lending/task_back---forth",
    ]
    told = {ids[0]: reason.partition(",")[0] for reason, ids in lending.left_out.items()}
    assert told == {
        "back _ forth": "its id differs from another's only in signs that a name can't hold",
        "talks": "it has no ground-truth actions",
        "looks": "none of its actions writes",
        "refused_write": "its own tools refuse a write of it",
        "refused_read": "its own tools refuse a read of it",
        "twice": "it makes the same write twice",
        "user": "its user acts with tools",
        "begun": "it begins from a state of its own",
        "unknown": "an action names no tool of the domain",
        "formula": "an argument begins with '='",
    }
    assert lending.tasks == len(lending.workflows) + sum(map(len, lending.left_out.values()))


def test_plan_and_truth_are_the_ground_truth(both: Workflow) -> None:
    check_truth(both)
    assert [(call.tool, call.arguments) for call in trajectory(both)] == [
        ("lending.find_member", {"email": "ada@example.com"}),
        ("lending.get_item", {"item_id": "I-1"}),
        ("lending.lend", {"item_ids": ["I-1", "I-2"], "member_id": "M-1"}),
        ("lending.add", {"numbers": [1, 2]}),
        ("lending.give_back", {"item_id": "I-3", "broken": True}),
    ]
    assert [effect.tool for effect in both.truth.effects] == ["lending.lend", "lending.give_back"]
    assert both.task.goal.startswith("You are here about 0.\nYou are Ada.\nThe policy is ")
    assert json.loads(json.dumps(both.plan)) == both.plan


def test_tools_say_what_their_makers_do(both: Workflow) -> None:
    kinds = {name: (tool.effect, tool.idempotency) for name, tool in both.tools.items()}
    assert kinds == {
        "lending.find_member": ("read", "none"),
        "lending.get_item": ("read", "none"),
        "lending.add": ("read", "none"),
        "lending.lend": ("write", "none"),
        "lending.give_back": ("write", "none"),
    }
    item = both.tools["lending.get_item"]
    assert item.parameters["additionalProperties"] is False
    assert item.result["properties"]["state"]["enum"] == ["there", "lent", "broken"]


@pytest.mark.parametrize("name", ["task_0", "task_1", "task_back___forth"])
def test_a_chain_reaches_the_truth(lending: Converted, name: str, run_chain: Callable[..., Any]) -> None:
    workflow = lending.workflows[f"tau2_lending/{name}"]
    assert run_chain(workflow).effects == workflow.truth.effects


# --- the world ----------------------------------------------------------------------------------------------


def test_each_run_has_a_database_of_its_own(both: Workflow) -> None:
    get, lend = both.tools["lending.get_item"], both.tools["lending.lend"]
    one, other = both.records(), both.records()
    lent = one.write(lend, {"item_ids": ["I-2"], "member_id": "M-1"})
    assert lent.result[0]["times_lent"] == 1
    assert one.read(get, {"item_id": "I-2"}).result["state"] == "lent"
    assert other.read(get, {"item_id": "I-2"}).result["state"] == "there"
    assert one.read(get, {"item_id": "I-2"}).version != other.read(get, {"item_id": "I-2"}).version


def test_a_write_that_is_refused_half_way_changes_nothing(both: Workflow) -> None:
    get, lend = both.tools["lending.get_item"], both.tools["lending.lend"]
    records = both.records()
    with pytest.raises(Unservable, match="saw is lent") as caught:
        records.write(lend, {"item_ids": ["I-1", "I-3"], "member_id": "M-1"})
    assert caught.value.status == 422
    assert records.read(get, {"item_id": "I-1"}).result["state"] == "there"


def test_a_repeat_acts_again_where_the_tool_does(lending: Converted) -> None:
    workflow = lending.workflows["tau2_lending/task_1"]
    remind, records = workflow.tools["lending.remind"], workflow.records()
    counts = [records.write(remind, {"member_id": "M-2"}).result["reminders"] for _ in range(3)]
    assert counts == [1, 2, 3]


def test_a_write_that_goes_through_a_whole_table_is_that_runs_alone(checkout: Path) -> None:
    opened = open_checkout(checkout, "lending")
    remind_all, remind = opened.tools["lending.remind_all"], opened.tools["lending.remind"]
    answers = Answers(opened)
    one, other = ToolkitRecords(answers), ToolkitRecords(answers)
    assert one.write(remind_all, {}).result == 2
    assert one.write(remind, {"member_id": "M-1"}).result["reminders"] == 2
    assert other.write(remind, {"member_id": "M-1"}).result["reminders"] == 1
    assert [member.reminders for member in opened.database.members.values()] == [0, 0]


def test_an_answer_can_t_be_altered_by_who_was_given_it(both: Workflow) -> None:
    get, records = both.tools["lending.get_item"], both.records()
    records.read(get, {"item_id": "I-1"}).result["state"] = "broken"
    assert records.read(get, {"item_id": "I-1"}).result["state"] == "there"


# --- the checkout -------------------------------------------------------------------------------------------


def test_what_the_checkout_sets_in_the_environment_is_not_taken_over(lending: Converted) -> None:
    assert lending.workflows
    assert "LENDING_SETTING" not in os.environ


def test_a_package_that_is_missing_is_told_by_the_name_it_is_installed_by(checkout: Path) -> None:
    database = checkout / "src/tau2/environment/db.py"
    database.write_text(f"import ast, absent_one\nfrom absent_two.part import x\n{database.read_text()}")
    assert refusal(checkout).endswith("not installed here: pip install absent_one absent_two")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("src/tau2/domains/lending/tools.py", "class LendingTools(ToolKitBase)", "class LendingTools"),
            "0 classes of",
        ),
        (("src/tau2/domains/lending/tools.py", "import os", "import os +"), "can't be imported: SyntaxError"),
        (("data/tau2/domains/lending/db.json", '"items"', '"things"'), "can't be read as the domain's database"),
        (("data/tau2/domains/lending/tasks.json", "[", "{", 1), "can't be read"),
        (("data/tau2/domains/lending/tasks.json", '"id"', '"it"'), "is no list of tasks, each with its id"),
    ],
)
def test_a_checkout_that_can_t_be_used_is_told_in_one_line(checkout: Path, change: tuple[Any, ...], says: str) -> None:
    path, *words = change
    path = checkout / path
    path.write_text(path.read_text().replace(*words))
    assert says in refusal(checkout)


def test_another_folder_or_domain_is_told(checkout: Path) -> None:
    assert "give the path of a checkout of tau2-bench" in refusal(checkout / "data")
    assert "has no domain 'lendings'; did you mean 'lending'?" in refusal(checkout, "lendings")
    (checkout / "data/tau2/domains/lending/db.json").unlink()
    assert "has no database" in refusal(checkout)


def test_a_checkout_that_changed_is_noticed(checkout: Path) -> None:
    record = source_of(f"tau2:{checkout}", "lending").record()
    assert recorded_source(record).domain == "lending"
    tasks = checkout / "data/tau2/domains/lending/tasks.json"
    tasks.write_text(tasks.read_text().replace("M-2", "M-1"))
    load_domain.cache_clear()
    with pytest.raises(FileProblem, match="have changed since they were run"):
        recorded_source(record)


# --- as a user has it ---------------------------------------------------------------------------------------

SUITE = """
name = "small"
version = 1
about = "A few trials."
suts = ["minimal+optimized", "minimal+naive"]

[[faults]]
fault = "worker_kill"
forms = ["at_boundary"]
shared = 1

[[faults]]
fault = "partial_side_effect"
forms = ["reset"]
shared = 1
"""


def kintsugi(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from kintsugi.harness.cli import main; main()", *arguments]
    paths = os.pathsep.join(sys.path[1:])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.process
def test_a_suite_runs_on_its_tasks_and_is_judged_again(tmp_path: Path) -> None:
    suite, out = tmp_path / "small.toml", tmp_path / "out"
    suite.write_text(SUITE)
    asked = ("--workflows", f"tau2:{CHECKOUT}", "--domain", "lending", "--workflow", "tau2_lending/task_[01]")
    ran = kintsugi("run", "--suite", str(suite), *asked, "--jobs", "4", "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    results = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert {line["verdict"] for line in results if line["trial"]["kind"] == "baseline"} == {"correct"}
    struck = [line for line in results if line["trial"]["kind"] == "fault"]
    assert len(struck) == 8
    # A write that knows no keys can't be repeated: in doubt, a person is asked.
    assert {line["verdict"] for line in struck} <= {"correct", "correct_halt"}
    assert json.loads((out / "summary.json").read_text())["suite"] == "small 1 on tau2 lending"
    again = kintsugi("check", str(out))
    assert (again.returncode, again.stdout) == (0, "12 histories judged again, 0 verdicts differ\n")


@pytest.mark.process
def test_the_check_counts_the_tasks() -> None:
    told = kintsugi("workflow", "check", f"tau2:{CHECKOUT}", "--domain", "lending")
    assert told.returncode == 0, told.stderr
    first, second, *rest = told.stdout.splitlines()
    assert first == "lending: 14 tasks, 4 of them workflows"
    assert second == "  plan and truth agree in each; 11 calls, 7 effects in all"
    assert len(rest) == 10
    assert "  1 left out: it has no ground-truth actions (talks)" in rest
