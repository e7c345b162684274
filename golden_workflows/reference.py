"""The reference trajectory of a workflow: its plan, walked once over its own records with the script's answers.

It names the boundaries that a correct run crosses, before any SUT has run, and proves that plan and truth, which
are written down independently, agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kintsugi.golden_workflows.expressions import ExpressionError, evaluate
from kintsugi.golden_workflows.plan import Results, next_instance
from kintsugi.golden_workflows.records import Records, Unservable
from kintsugi.golden_workflows.spec import FREE_TEXT, Effect, FileProblem, Workflow

__all__ = ["Call", "script_reply", "trajectory", "check_truth"]

STEPS_MAX = 200


@dataclass(frozen=True)
class Call:
    """One boundary of a correct run: a tool call, a question to the model, or a timer, at a step and item."""

    step: str
    item: int
    kind: str
    tool: str
    arguments: Mapping[str, Any]
    needs_approval: bool = False


def script_reply(script: Mapping[str, Any], inputs: Mapping[str, Any], prose: str = "") -> dict[str, Any]:
    """The scripted model's answer to a step's inputs; `prose` varies the wording of its free text.

    Raises ExpressionError where an input that the answer rests on is missing.
    """
    reply: dict[str, Any] = {}
    for field, value in script.items():
        if isinstance(value, str) and value.startswith(FREE_TEXT):
            reply[field] = f"{evaluate(value.removeprefix('~'), inputs)}{prose}"
        elif isinstance(value, str) and value.startswith("="):
            reply[field] = evaluate(value, inputs)
        else:
            reply[field] = value
    return reply


def trajectory(workflow: Workflow, drift: str | None = None) -> list[Call]:
    """The calls of a correct run, in order, for the seed records or for a drift that came before everything.

    Raises FileProblem where the plan can't be walked to its end.
    """
    from kintsugi.runtime.rules import approval_needed  # noqa: PLC0415 - rules load jsonschema; a plan alone needs none

    records = Records.seeded(workflow.world)
    if drift is not None:
        records.change(workflow.drifts[drift].record, workflow.drifts[drift].set)
    results: Results = {}
    calls: list[Call] = []
    for _ in range(STEPS_MAX):
        step = "the plan"
        try:
            due = next_instance(workflow.plan, results)
            if due is None:
                return calls
            step = due.step
            value: Any = {}
            if due.kind == "tool":
                tool = workflow.tools[due.tool]
                act = records.write if tool.effect == "write" else records.read
                value = act(tool, due.values).result
                needs = tool.effect == "write" and approval_needed(tool.public(), due.values)
                calls.append(Call(due.step, due.item, "tool", due.tool, due.values, needs))
            elif due.kind == "model":
                value = script_reply(workflow.script[due.step], due.values["inputs"])
                calls.append(Call(due.step, due.item, "model", "", due.values["inputs"]))
            else:
                calls.append(Call(due.step, due.item, "sleep", "", due.values))
        except (ExpressionError, Unservable) as error:
            raise FileProblem(f"{workflow.name}: plan.{step}: {error}") from error
        results.setdefault(due.step, {})[due.item] = value
    raise FileProblem(f"{workflow.name}: plan: it does not end within {STEPS_MAX} steps; is a loop too long?")


def check_truth(workflow: Workflow) -> None:
    """Prove that the plan's own walk has exactly the effects that the truth lists, for the seed and each drift.

    Raises FileProblem naming the first difference.
    """
    for drift in [None, *workflow.drifts]:
        name = f"drift.{drift}.effects" if drift else "truth.effects"
        truth = workflow.drifts[drift].effects if drift else workflow.truth.effects
        if drift and workflow.drifts[drift].outcome == "flag":
            continue
        walked = [
            Effect(step=call.step, tool=call.tool, args=_literal(workflow, call))
            for call in trajectory(workflow, drift)
            if call.kind == "tool" and workflow.tools[call.tool].effect == "write"
        ]
        for position, (expected, got) in enumerate(zip(truth, walked, strict=False)):
            if expected != got:
                raise FileProblem(
                    f"{workflow.name}: {name}[{position}]: the truth says {expected.step} {expected.args}, "
                    f"the plan leads to {got.step} {got.args}"
                )
        if len(truth) != len(walked):
            raise FileProblem(f"{workflow.name}: {name}: {len(truth)} effects, but the plan leads to {len(walked)}")
    needing = {call.step for call in trajectory(workflow) if call.needs_approval}
    for step in needing - set(workflow.truth.rejected):
        raise FileProblem(f"{workflow.name}: truth.rejected.{step}: missing; say which effects remain if it is rejected")


def _literal(workflow: Workflow, call: Call) -> dict[str, Any]:
    free = workflow.free_arguments[call.step]
    return {name: value for name, value in call.arguments.items() if name not in free}
