"""Which step of the plan a request belongs to: decided from the workflow alone, so that it is the same for every SUT.

No SUT has to say where in the plan it is, and none can say it wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
    free = workflow.free_arguments[call.step]
    return canonical([call.step, {name: value for name, value in call.arguments.items() if name not in free}])


class Identifier:
    """Identifies the tool calls of one workflow's runs."""

    def __init__(self, workflow: Workflow) -> None:
        self._free = workflow.free_arguments
        self._calls: dict[str, list[Call]] = {}
        for call in reference_calls(workflow):
            self._calls.setdefault(call.tool, []).append(call)

    def tool(
        self, tool: str, arguments: Mapping[str, Any], done: Mapping[tuple[str, int], int]
    ) -> tuple[str, int] | None:
        """The (step, item) that a call is most likely meant to be; None where the plan has no call of that tool.

        The one that shares most arguments, free text aside; among equals the first that is not `done` (a count of
        delivered answers for each step and item), else the first.
        """
        candidates = self._calls.get(tool)
        if not candidates:
            return None

        def rank(position: int) -> tuple[int, int, int]:
            call = candidates[position]
            named = set(call.arguments) - self._free[call.step]
            shared = sum(call.arguments[name] == arguments.get(name) for name in named)
            exact = shared == len(named)
            return (shared + (1 if exact else 0), -min(done.get((call.step, call.item), 0), 1), -position)

        best = candidates[max(range(len(candidates)), key=rank)]
        return best.step, best.item


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
