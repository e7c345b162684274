"""Every workflow that is shipped, by itself: its truth is proven, and a chain reaches it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kintsugi.golden_workflows.checks.world import world_problem
from kintsugi.golden_workflows.forms import FREE_TEXT, Effect, Truth
from kintsugi.golden_workflows.reference import check_truth, script_reply, trajectory, truth_problem
from kintsugi.golden_workflows.spec import load_workflow, load_workflows
from kintsugi.golden_workflows.workflow import Workflow

WORKFLOWS = load_workflows()
DRIFTS = [(name, drift) for name, workflow in WORKFLOWS.items() for drift in workflow.drifts]
REJECTED = [(name, step) for name, workflow in WORKFLOWS.items() for step in workflow.truth.rejected]

RunChain = Callable[..., Any]


def fresh_copy(name: str) -> Workflow:
    """A workflow that a test may alter."""
    path = WORKFLOWS[name].path
    assert path is not None
    return load_workflow(path)


def altered(effect: Effect, name: str) -> Effect:
    """The effect with one argument that is of the same kind, and wrong."""
    value = effect.args[name]
    wrong: Any = [*value, "X-0"] if isinstance(value, list) else value + 1 if isinstance(value, int) else f"{value}?"
    return effect.model_copy(update={"args": {**effect.args, name: wrong}})


def asked_under(workflow: Workflow, step: str) -> str:
    """The first drift under which a step needs an approval; empty where it does on the seed records."""
    walks = {drift: trajectory(workflow, drift or None) for drift in ("", *workflow.drifts)}
    return next(drift for drift, calls in walks.items() if any(c.step == step and c.needs_approval for c in calls))


def mutations(effects: list[Effect]) -> Iterator[tuple[str, list[Effect]]]:
    """Every way to drop, repeat, swap or alter one effect of a truth."""
    for at, effect in enumerate(effects):
        yield f"without {at}", effects[:at] + effects[at + 1 :]
        yield f"{at} twice", effects[: at + 1] + effects[at:]
        for name in effect.args:
            yield f"{at} with another {name}", [*effects[:at], altered(effect, name), *effects[at + 1 :]]
        if at + 1 < len(effects):
            swapped = [*effects[:at], effects[at + 1], effect, *effects[at + 2 :]]
            yield f"{at} and {at + 1} swapped", swapped


@pytest.mark.parametrize("name", WORKFLOWS)
def test_plan_and_truth_agree(name: str) -> None:
    check_truth(WORKFLOWS[name])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_mutation_of_the_truth_is_noticed(name: str) -> None:
    workflow = fresh_copy(name)
    truth = workflow.truth
    for what, effects in mutations(truth.effects):
        workflow.truth = Truth.model_construct(effects=effects, rejected=truth.rejected)
        assert "truth.effects" in truth_problem(workflow), what


@pytest.mark.parametrize(("name", "drift"), DRIFTS)
def test_every_mutation_of_a_drifts_effects_is_noticed(name: str, drift: str) -> None:
    workflow = fresh_copy(name)
    declared = workflow.drifts[drift]
    added = [*declared.effects, workflow.truth.effects[0]]
    for what, effects in [*mutations(declared.effects), ("one more", added)]:
        workflow.drifts[drift] = declared.model_copy(update={"effects": effects})
        assert f"drift.{drift}.effects" in truth_problem(workflow), what


@pytest.mark.parametrize(("name", "step"), REJECTED)
def test_every_mutation_of_what_a_rejection_leaves_is_noticed(name: str, step: str) -> None:
    workflow = fresh_copy(name)
    truth = workflow.truth
    kept = truth.rejected[step]
    others = {key: value for key, value in truth.rejected.items() if key != step}
    for rejected in (
        others,
        {**others, step: [*kept, workflow.writes()[-1].id]},
        {**others, step: kept[:-1] or ["x"]},
    ):
        workflow.truth = truth.model_copy(update={"rejected": rejected})
        assert f"truth.rejected.{step}" in truth_problem(workflow)


@pytest.mark.parametrize("name", sorted({name for name, _ in DRIFTS}))
def test_a_drift_that_no_step_revalidates_is_refused(name: str) -> None:
    workflow = fresh_copy(name)
    workflow.steps = {key: step.model_copy(update={"fresh": []}) for key, step in workflow.steps.items()}
    assert "in 'fresh', so no runtime would notice" in truth_problem(workflow)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_record_without_a_field_that_a_get_promises_is_refused(name: str) -> None:
    workflow = fresh_copy(name)
    gets = [tool for tool in workflow.tools.values() if tool.does.op == "get"]
    promised = [
        (tool, key, field)
        for tool in gets
        for key in workflow.world.get(tool.does.collection, {})
        for field in tool.result["required"]
        if field != "id"
    ]
    for tool, key, field in promised:
        held = workflow.world[tool.does.collection][key]
        value = held.pop(field)
        problem = world_problem(workflow)
        assert problem.startswith(f"world.{tool.does.collection}.{key}: ")
        assert f"'{field}'" in problem
        held[field] = value
    assert promised
    assert world_problem(workflow) == ""


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_chain_reaches_the_truth(name: str, run_chain: RunChain) -> None:
    workflow = WORKFLOWS[name]
    ran = run_chain(workflow)
    assert ran.ended == "all steps done"
    assert ran.effects == workflow.truth.effects
    asked = [(question.step, question.item) for question in ran.questions]
    assert asked == [(call.step, call.item) for call in trajectory(workflow) if call.needs_approval]


@pytest.mark.parametrize(("name", "drift"), DRIFTS)
def test_a_chain_that_revalidates_reaches_the_truth_of_a_drift(name: str, drift: str, run_chain: RunChain) -> None:
    workflow = WORKFLOWS[name]
    ran = run_chain(workflow, drift)
    assert ran.effects == workflow.drifts[drift].effects
    assert ran.ended.startswith("stopped" if workflow.drifts[drift].outcome == "flag" else "all steps done")


@pytest.mark.parametrize(("name", "drift"), DRIFTS)
def test_a_chain_that_does_not_revalidate_leaves_the_truth_of_a_drift(
    name: str, drift: str, run_chain: RunChain
) -> None:
    workflow = fresh_copy(name)
    workflow.steps = {
        key: step.model_copy(update={"fresh": [], "on_stale": "refresh"}) for key, step in workflow.steps.items()
    }
    assert run_chain(workflow, drift).effects != workflow.drifts[drift].effects


@pytest.mark.parametrize(("name", "step"), REJECTED)
def test_a_rejection_leaves_what_the_truth_says(name: str, step: str, run_chain: RunChain) -> None:
    workflow = WORKFLOWS[name]
    ran = run_chain(workflow, asked_under(workflow, step), refused=step)
    kept = set(workflow.truth.rejected[step])
    assert ran.ended.startswith("stopped")
    assert ran.effects == [effect for effect in workflow.truth.effects if effect.step in kept]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_plan_is_json_and_tells_nothing_of_the_truth(name: str) -> None:
    workflow = WORKFLOWS[name]
    told = json.dumps(workflow.plan)
    assert json.loads(told) == workflow.plan
    assert set(workflow.plan) == {"schema", "workflow", "task", "model", "steps", "tools", "policy"}
    assert FREE_TEXT not in told
    for key in ("does", "price_usd", "latency_ms"):
        assert not any(key in tool for tool in workflow.plan["tools"].values())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_free_arguments_are_the_prose_and_nothing_else(name: str) -> None:
    workflow = WORKFLOWS[name]
    prose = {"text", "body", "headline"}
    for step, free in workflow.free_arguments.items():
        assert free <= prose, step
        assert not any(prose & set(effect.args) for effect in workflow.truth.effects)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_script_answers_even_where_a_mistaken_read_found_nothing(name: str) -> None:
    workflow = WORKFLOWS[name]
    for call in trajectory(workflow):
        if call.kind == "model":
            empty = {key: [] if isinstance(value, list) else value for key, value in call.arguments.items()}
            assert set(script_reply(workflow.script[call.step], empty)) == set(workflow.script[call.step])
