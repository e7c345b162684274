"""What of a workflow is never reached, on its seed records and under every drift, and what tools leave unsaid. Pure.

Nothing of it is wrong by itself, as a seed record may be there to be passed over, and a branch to be left. So these are
notes for whoever writes the workflow, not problems.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kintsugi.golden_workflows.expressions import fields_in
from kintsugi.golden_workflows.walk import Visit, walk

if TYPE_CHECKING:
    from kintsugi.golden_workflows.forms import Tool
    from kintsugi.golden_workflows.workflow import Workflow

__all__ = ["unreached", "unsaid_repeats", "unused_tools"]


def unreached(workflow: Workflow) -> list[str]:
    """A line for each part that no run on the seed records or under a drift comes to: ``key: what``.

    Raises FileProblem where the plan can't be walked to its end.
    """
    walks = [list(walk(workflow)), *(list(walk(workflow, drift)) for drift in workflow.drifts)]
    return [*_steps(workflow, walks), *_answers(workflow), *_records(workflow, walks)]


def unused_tools(own: Mapping[str, Tool], used: Collection[str]) -> list[str]:
    """A line for each tool of one's own that no workflow of the folder names."""
    return [f"tools.{name}: no workflow of this folder calls it" for name in own if name not in used]


def unsaid_repeats(own: Mapping[str, Tool]) -> list[str]:
    """A line for each write of one's own that does not say how its service treats a repeat."""
    said = "is not given, so that it is 'none' and a run in doubt asks a person; say so, or 'key' or 'lookup'"
    return [
        f"tools.{name}.idempotency: {said}"
        for name, tool in own.items()
        if tool.effect == "write" and "idempotency" not in tool.model_fields_set
    ]


def _steps(workflow: Workflow, walks: Sequence[Sequence[Visit]]) -> Iterator[str]:
    """Steps that are never done, and branches that are always the same."""
    done = [{visit.call.step for visit in visits} for visits in walks]
    where = "on the seed records" + (" and under every drift" if workflow.drifts else "")
    for step in workflow.steps.values():
        times = sum(step.id in each for each in done)
        if step.when is not None and times == len(walks):
            yield f"plan.{step.id}.when: holds {where}, so that no run leaves the step out"
        elif times == 0:
            why = (
                ".when: never holds" if step.when else ".for_each: gives no item" if step.for_each else ": is not done"
            )
            yield f"plan.{step.id}{why} {where}, so that no run does the step"


def _answers(workflow: Workflow) -> Iterator[str]:
    """Fields of the model's answers that no later step uses."""
    used: set[tuple[str, str | None]] = set()
    for step in workflow.steps.values():
        for key in ("args", "inputs", "output", "when", "for_each", "until"):
            used |= fields_in(getattr(step, key, None))
    for name, answer in workflow.script.items():
        if (name, None) not in used:
            yield from (f"script.{name}.{field}: no step uses it" for field in answer if (name, field) not in used)


def _records(workflow: Workflow, walks: Sequence[Sequence[Visit]]) -> Iterator[str]:
    """Seed records that no call reads, writes, or looks through on its way to others."""
    visits = [visit for visits in walks for visit in visits if visit.call.kind == "tool"]
    met = {visit.record for visit in visits} | {
        tool.does.refuse.collection
        for tool in (workflow.tools[visit.call.tool] for visit in visits)
        if tool.does.refuse is not None
    }
    for collection, records in workflow.world.items():
        missed = [] if collection in met else [key for key in records if f"{collection}/{key}" not in met]
        if len(missed) == len(records) and records:
            yield f"world.{collection}: no step reads or writes any of its records"
        else:
            yield from (f"world.{collection}.{key}: no step reads or writes it" for key in missed)
