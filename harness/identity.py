"""Which step of the plan a request belongs to: decided from the workflow alone, so that it is the same for every SUT.

No SUT has to say where in the plan it is, and none can say it wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.golden_workflows.reference import Call, trajectory
from kintsugi.golden_workflows.spec import Workflow

__all__ = ["UNPLANNED", "Identifier", "reference_calls"]

UNPLANNED = "unplanned"
"""The step of whatever the plan has no place for: calls of other tools, questions about no one step."""


def reference_calls(workflow: Workflow) -> list[Call]:
    """The tool calls of the reference trajectory, then those that only a declared drift leads to."""
    calls = [call for call in trajectory(workflow) if call.kind == "tool"]
    for drift in workflow.drifts:
        calls += [call for call in trajectory(workflow, drift) if call.kind == "tool" and call not in calls]
    return calls


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
