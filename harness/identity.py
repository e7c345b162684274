"""Which step of the plan a request belongs to: decided from the workflow alone, so that it is the same for every SUT.

No SUT has to say where in the plan it is, and none can say it wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from kintsugi.golden_workflows.reference import Call, trajectory
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.runtime.rules import canonical

__all__ = ["UNPLANNED", "Identifier", "first_alike", "reference_calls", "reference_steps"]

UNPLANNED = "unplanned"
"""The step of whatever the plan has no place for: calls of other tools, questions about no one step."""


def reference_calls(workflow: Workflow) -> list[Call]:
    """The tool calls of the reference trajectory, then those that only a declared drift leads to.

    An item of a loop that a drift moves to another place in its list is the same call, under its first number.
    """
    calls = [call for call in trajectory(workflow) if call.kind == "tool"]
    known = {_what(workflow, call) for call in calls}
    for drift in workflow.drifts:
        new = [c for c in trajectory(workflow, drift) if c.kind == "tool" and _what(workflow, c) not in known]
        calls += new
        known |= {_what(workflow, call) for call in new}
    return calls


def _what(workflow: Workflow, call: Call) -> str:
    """What a call is, wherever in a loop it stands; free text aside."""
    return canonical([call.step, workflow.literal(call.step, call.arguments)])


class Identifier:
    """Identifies the tool calls of one workflow's runs."""

    def __init__(self, workflow: Workflow) -> None:
        self._free = workflow.free_arguments
        self._calls: dict[str, list[Call]] = {}
        for call in reference_calls(workflow):
            self._calls.setdefault(call.tool, []).append(call)
        self._comes_after = _comes_after(workflow)

    def tool(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        done: Mapping[tuple[str, int], int],
        effects: Collection[str] = (),
    ) -> tuple[str, int] | None:
        """The (step, item) that a call is most likely meant to be; None where the plan has no call of that tool.

        The one that shares most arguments, free text aside; among equals the first that is not `done` (a count of
        delivered results for each step and item), else the first. A read that the plan makes once more after a write
        is that one only once the write is done or in the ledger (`effects`: the steps); before, it is the first again.
        """
        candidates = self._calls.get(tool)
        if not candidates:
            return None

        written = {step for (step, _), count in done.items() if count} | set(effects)

        def rank(position: int) -> tuple[int, bool, int, int]:
            call = candidates[position]
            named = set(call.arguments) - self._free[call.step]
            shared = sum(call.arguments[name] == arguments.get(name) for name in named)
            exact = shared == len(named)
            place = (call.step, call.item)
            due = self._comes_after.get(place, call.step) in {call.step, *written}
            return (shared + (1 if exact else 0), due, -min(done.get(place, 0), 1), -position)

        best = candidates[max(range(len(candidates)), key=rank)]
        return best.step, best.item


@cache
def _comes_after(workflow: Workflow) -> Mapping[tuple[str, int], str]:
    """For each read that repeats an earlier one in the plan the step of the last write before it."""
    alike, found, last = first_alike(workflow, None), {}, ""
    for call in trajectory(workflow):
        place = (call.step, call.item)
        if call.kind == "tool" and workflow.tools[call.tool].effect == "write":
            last = call.step
        elif last and alike.get(place, place) != place:
            found[place] = last
    return found


@cache
def first_alike(workflow: Workflow, drift: str | None) -> Mapping[tuple[str, int], tuple[str, int]]:
    """For each tool call of a correct run the first that is the very same: no request tells which it was for."""
    firsts: dict[str, tuple[str, int]] = {}
    calls = [call for call in trajectory(workflow, drift) if call.kind == "tool"]
    return {
        (call.step, call.item): firsts.setdefault(canonical([call.tool, call.arguments]), (call.step, call.item))
        for call in calls
    }


def reference_steps(workflow: Workflow, drift: str | None = None) -> list[tuple[str, int]]:
    """The (step, item) of each tool call of a correct run, in order, as the requests for them are identified."""
    calls = [call for call in trajectory(workflow, drift) if call.kind == "tool"]
    if drift is None:
        return [(call.step, call.item) for call in calls]
    identifier, done = Identifier(workflow), Counter[tuple[str, int]]()
    found: list[tuple[str, int]] = []
    for call in calls:
        found.append(identifier.tool(call.tool, call.arguments, done) or (UNPLANNED, 0))
        done[found[-1]] += 1
    return found
