"""What the set of shipped workflows has to offer as a whole, so that every fault has somewhere to strike."""

from collections import Counter

from kintsugi.golden_workflows.forms import FREE_TEXT
from kintsugi.golden_workflows.reference import trajectory
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.workflow import Workflow

WORKFLOWS = list(load_workflows().values())
CLASSES = ("research", "marketing", "finance", "data", "operations", "support")


def boundaries(workflow: Workflow) -> int:
    calls = trajectory(workflow)
    return len(calls) + sum(call.needs_approval for call in calls)


def approved(workflow: Workflow) -> bool:
    return any(call.needs_approval for call in trajectory(workflow))


def kinds(workflow: Workflow) -> list[str]:
    return [workflow.tools[str(step.tool)].idempotency for step in workflow.writes()]


def test_each_class_has_two_workflows_and_eight_are_there() -> None:
    count = Counter(workflow.workflow_class for workflow in WORKFLOWS)
    assert len(WORKFLOWS) >= 8
    assert all(count[name] >= 2 for name in CLASSES)


def test_each_has_five_to_twenty_five_boundaries() -> None:
    assert {workflow.name: boundaries(workflow) for workflow in WORKFLOWS if not 5 <= boundaries(workflow) <= 25} == {}


def test_half_need_an_approval_and_each_class_has_one() -> None:
    needing = [workflow for workflow in WORKFLOWS if approved(workflow)]
    assert len(needing) * 2 >= len(WORKFLOWS)
    assert {workflow.workflow_class for workflow in needing} >= set(CLASSES)


def test_an_approval_depends_on_the_amount_in_some() -> None:
    rules = [tool.approval for workflow in WORKFLOWS if approved(workflow) for tool in workflow.tools.values()]
    assert sum(not isinstance(rule, str) for rule in rules) >= 2


def test_every_kind_of_repeat_is_in_several_and_mixed_within_each() -> None:
    count = Counter(kind for workflow in WORKFLOWS for kind in set(kinds(workflow)))
    assert all(count[kind] >= 3 for kind in ("key", "lookup", "none"))
    assert all(len(set(kinds(workflow))) >= 2 for workflow in WORKFLOWS)


def test_loops_branches_and_timers_occur() -> None:
    steps = {workflow.name: list(workflow.steps.values()) for workflow in WORKFLOWS}
    assert sum(any(step.for_each for step in each) for each in steps.values()) >= 3
    assert sum(any(step.when for step in each) for each in steps.values()) >= 4
    timers = [step for each in steps.values() for step in each if step.sleep_seconds]
    assert len(timers) >= 2
    assert all(3600 <= (step.sleep_seconds or 0) <= 72 * 3600 for step in timers)


def test_each_class_has_a_drift_and_some_drift_at_a_timer_or_is_flagged() -> None:
    drifts = [(workflow, drift) for workflow in WORKFLOWS for drift in workflow.drifts.values()]
    assert {workflow.workflow_class for workflow, _ in drifts} >= set(CLASSES)
    assert any(workflow.steps[drift.step].sleep_seconds for workflow, drift in drifts)
    assert {drift.outcome for _, drift in drifts} == {"refresh", "flag"}


def test_some_updates_take_if_match_and_rely_on_it() -> None:
    used = {
        step.tool
        for workflow in WORKFLOWS
        for step in workflow.writes()
        if workflow.tools[str(step.tool)].if_match and step.fresh
    }
    assert len(used) >= 2


def test_each_asks_the_model_once_or_twice_for_a_judgement_and_for_prose() -> None:
    for workflow in WORKFLOWS:
        assert 1 <= len(workflow.script) <= 2
        for fields in workflow.script.values():
            prose = [field for field, value in fields.items() if str(value).startswith(FREE_TEXT)]
            assert prose, workflow.name
            assert len(prose) < len(fields), workflow.name


def test_a_judgement_gives_arguments_of_a_write_so_that_a_wrong_parameter_shows() -> None:
    for workflow in WORKFLOWS:
        chosen = {
            f"{step}.{field}"
            for step, fields in workflow.script.items()
            for field, value in fields.items()
            if not str(value).startswith(FREE_TEXT)
        }
        uses = " ".join(f"{step.args} {step.for_each} {step.when}" for step in workflow.writes())
        assert any(name in uses for name in chosen), workflow.name


def test_operations_waits_polls_pages_meets_conflicts_and_closes_doors_side_by_side() -> None:
    chosen = [workflow for workflow in WORKFLOWS if workflow.workflow_class == "operations"]
    steps = [list(workflow.steps.values()) for workflow in chosen]
    tools = [list(workflow.tools.values()) for workflow in chosen]
    assert len(chosen) >= 5
    assert sum(any(step.for_each for step in each) for each in steps) >= 2
    assert sum(any(step.sleep_seconds or step.until for step in each) for each in steps) >= 3
    assert sum(any(step.until for step in each) for each in steps) >= 2
    assert any(step.parallel for each in steps for step in each)
    assert any(tool.does.page_size for each in tools for tool in each)
    assert any(tool.does.refuse for each in tools for tool in each)
    assert all(workflow.drifts for workflow in chosen)
    assert any(drift.instruction for workflow in chosen for drift in workflow.drifts.values())
    assert any(drift.outcome == "flag" for workflow in chosen for drift in workflow.drifts.values())
    assert {kind for workflow in chosen for kind in kinds(workflow)} == {"key", "lookup", "none"}


def test_marketing_and_research_loop_branch_page_wait_and_act_side_by_side() -> None:
    chosen = [workflow for workflow in WORKFLOWS if workflow.workflow_class in ("marketing", "research")]
    steps = [list(workflow.steps.values()) for workflow in chosen]
    drifts = [drift for workflow in chosen for drift in workflow.drifts.values()]
    assert Counter(workflow.workflow_class for workflow in chosen) >= Counter(marketing=5, research=5)
    assert sum(any(step.for_each for step in each) for each in steps) >= 6
    assert sum(any(step.when for step in each) for each in steps) >= 4
    assert sum(any(step.sleep_seconds for step in each) for each in steps) >= 4
    assert sum(any(step.until for step in each) for each in steps) >= 2
    assert sum(any(step.parallel for step in each) for each in steps) >= 2
    assert sum(any(tool.does.page_size for tool in workflow.tools.values()) for workflow in chosen) >= 3
    assert sum(map(approved, chosen)) >= 6
    assert all(workflow.drifts for workflow in chosen)
    assert sum(drift.instruction for drift in drifts) >= 3
    assert sum(drift.outcome == "flag" for drift in drifts) >= 2
    assert {kind for workflow in chosen for kind in kinds(workflow)} == {"key", "lookup", "none"}
