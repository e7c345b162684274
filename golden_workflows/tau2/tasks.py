"""Makes a workflow of each task whose ground truth is a sequence of tool calls. Pure but for the calls themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kintsugi.golden_workflows.forms import Effect, Policy, Step, Task, Truth, WorkflowFile, has_expression
from kintsugi.golden_workflows.records import Unservable
from kintsugi.golden_workflows.reference import truth_problem
from kintsugi.golden_workflows.tau2.checkout import Checkout
from kintsugi.golden_workflows.tau2.world import Answers, ToolkitRecords
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.runtime.rules import canonical

__all__ = ["Converted", "convert"]

REVIEW_MINUTES = 2.0
REPAIR_MINUTES = 15.0
"""Ours, as τ²-bench counts no people's time: a case of customer service is taken up again by a colleague."""

Json = Mapping[str, Any]


@dataclass
class Converted:
    """What became of a domain's tasks."""

    domain: str
    tasks: int
    digest: str
    workflows: dict[str, Workflow] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """For each reason, the ids of the tasks that are no workflow because of it."""


class _Unfit(Exception):
    """A task can't be a workflow; the message is the reason."""


def convert(checkout: Checkout) -> Converted:
    """A workflow ``tau2_<domain>/task_<id>`` for each task that can be one, and the reason for each other."""
    converted = Converted(checkout.domain, len(checkout.tasks), checkout.digest)
    answers = Answers(checkout)
    for task in checkout.tasks:
        name = f"tau2_{checkout.domain}/task_{re.sub(r'[^a-z0-9_-]', '_', str(task['id']).lower())}"
        try:
            workflow = _workflow(name, task, checkout, answers)
        except _Unfit as unfit:
            reason = str(unfit)
        else:
            reason = "its id differs from another's only in signs that a name can't hold"
            if name not in converted.workflows:
                converted.workflows[name] = workflow
                continue
        converted.left_out.setdefault(reason, []).append(str(task["id"]))
    return converted


def _workflow(name: str, task: Json, checkout: Checkout, answers: Answers) -> Workflow:
    """The task as a workflow whose plan is its ground truth, call by call. Raises _Unfit."""
    calls = _calls(task, checkout)
    _try(calls, checkout, ToolkitRecords(answers))
    steps = [
        Step(id=f"step_{number}_{tool.partition('.')[2]}".lower(), tool=tool, args=dict(arguments))
        for number, (tool, arguments) in enumerate(calls, start=1)
    ]
    writes = [step for step in steps if checkout.tools[str(step.tool)].effect == "write"]
    effects = [Effect(step=step.id, tool=str(step.tool), args=step.args) for step in writes]
    # Made without its checks: a plan of one step is less than we would write, and yet a task.
    file = WorkflowFile.model_construct(
        task=_words(task, checkout),
        world={},
        plan=steps,
        policy=Policy(),
        script={},
        drift=[],
        truth=Truth(effects=effects),
    )
    used = {tool: checkout.tools[tool] for tool, _ in calls}
    workflow = Workflow(name, file, used, opens=partial(ToolkitRecords, answers))
    if problem := truth_problem(workflow):
        raise _Unfit(f"its ground truth does not fit its tools: {problem}")
    return workflow


def _calls(task: Json, checkout: Checkout) -> list[tuple[str, Json]]:
    """The tools and arguments of a task's ground truth, in order. Raises _Unfit where they make no workflow."""
    if task.get("initial_state"):
        raise _Unfit("it begins from a state of its own, not from the domain's database")
    actions: Sequence[Json] = (task.get("evaluation_criteria") or {}).get("actions") or []
    if not actions:
        raise _Unfit("it has no ground-truth actions")
    if any(action.get("requestor", "assistant") != "assistant" for action in actions):
        raise _Unfit("its user acts with tools, too")
    calls = [(f"{checkout.domain}.{action['name']}", action["arguments"]) for action in actions]
    if any(tool not in checkout.tools for tool, _ in calls):
        raise _Unfit("an action names no tool of the domain")
    writes = [canonical(call) for call in calls if checkout.tools[call[0]].effect == "write"]
    if not writes:
        raise _Unfit("none of its actions writes, so that there is no effect to keep true")
    if len(writes) > len(set(writes)):
        raise _Unfit("it makes the same write twice, which no ledger could tell from a repeat")
    if any(map(has_expression, (arguments for _, arguments in calls))):
        raise _Unfit("an argument begins with '=', as our expressions do")
    return calls


def _try(calls: Sequence[tuple[str, Json]], checkout: Checkout, records: ToolkitRecords) -> None:
    """Make the calls once. Raises _Unfit where the toolkit refuses one."""
    for name, arguments in calls:
        tool = checkout.tools[name]
        try:
            (records.write if tool.effect == "write" else records.read)(tool, arguments)
        except Unservable as error:
            raise _Unfit(f"its own tools refuse {'a write' if tool.effect == 'write' else 'a read'} of it") from error


def _words(task: Json, checkout: Checkout) -> Task:
    """The task in words: its user's scenario, and where the domain's policy stands."""
    scenario = task.get("user_scenario") or {}
    said = scenario.get("instructions") or task.get("ticket") or ""
    parts = list(said.values()) if isinstance(said, Mapping) else [said]
    policy = f"The policy is data/tau2/domains/{checkout.domain}/policy.md of the checkout."
    return Task(
        title=f"τ²-bench, {checkout.domain}, task {task['id']}",
        goal="\n".join([*(str(part) for part in parts if part), policy]),
        why="A public benchmark's task with the ground truth that its makers wrote down.",
        review_minutes=REVIEW_MINUTES,
        repair_minutes=REPAIR_MINUTES,
    )
