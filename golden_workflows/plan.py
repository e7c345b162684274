"""Walks a plan: which step is next, given what is known so far. Pure, and the same for everyone.

The optimized chain walks a plan over the results it recorded, the scripted model walks it over the values
in a transcript, and the harness walks it over the reference trajectory. A plan is JSON.

A step is one of
    ``{"id", "tool", "args", …}``      a tool call
    ``{"id", "ask", "inputs", "output", …}``  a question for the model, with the JSON schema of its answer
    ``{"id", "sleep_seconds"}``        a timer
and may carry ``when`` (an expression: skipped if false), ``for_each`` (tool steps only: once per item, with
``item`` and ``index``), ``fresh`` (the read steps whose records must be current when this step acts), and
``until`` (reads only: read again every ``every_seconds``, until it holds of the ``result``). Consecutive tool steps
of the same ``parallel`` group may be done at the same time, since none rests on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kintsugi.golden_workflows.expressions import ExpressionError, evaluate, names_in, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "POLLS_MAX",
    "Instance",
    "Results",
    "bindings",
    "dependents",
    "due_together",
    "next_instance",
    "places",
    "settled",
    "shows_end",
    "step_named",
    "step_names_used",
]

Results = dict[str, dict[int, Any]]
"""What is known: for each step id, the value of each item (item 0 for a step that is no loop)."""

POLLS_MAX = 100
"""How often a step with ``until`` is read at most, where it has no ``polls_max``."""


@dataclass(frozen=True)
class Instance:
    """One step that is ready to be done: its resolved arguments (tool), inputs (model) or seconds (timer)."""

    step: str
    item: int
    kind: str
    """``tool``, ``model`` or ``sleep``."""
    tool: str
    values: Mapping[str, Any]


def step_named(plan: Mapping[str, Any], step_id: str) -> Mapping[str, Any]:
    """The step of that id. KeyError where there is none."""
    for step in plan["steps"]:
        if step["id"] == step_id:
            return dict(step)
    raise KeyError(step_id)


def bindings(plan: Mapping[str, Any], results: Results) -> dict[str, Any]:
    """The names an expression may use: each step's value (a list for a loop), None where it has none yet."""
    names: dict[str, Any] = {}
    for step in plan["steps"]:
        known = results.get(step["id"], {})
        if "for_each" in step:
            names[step["id"]] = [known[index] for index in sorted(known)]
        else:
            names[step["id"]] = known.get(0)
    return names


def next_instance(plan: Mapping[str, Any], results: Results) -> Instance | None:
    """The first step, in the plan's order, that is due and has no result; None when the plan is done.

    Raises ExpressionError, which begins with the step's id, where the known values don't allow to go on.
    """
    names = bindings(plan, results)
    return next(filter(None, (_next_of(step, results, names) for step in plan["steps"])), None)


def due_together(plan: Mapping[str, Any], results: Results) -> list[Instance]:
    """What may be done now: the first step that is due, with all of its parallel group that are due; else nothing.

    Raises ExpressionError, as `next_instance` does.
    """
    first = next_instance(plan, results)
    if first is None:
        return []
    group = step_named(plan, first.step).get("parallel")
    if group is None:
        return [first]
    names = bindings(plan, results)
    members = [step for step in plan["steps"] if step.get("parallel") == group]
    return [due for due in (_next_of(step, results, names) for step in members) if due is not None]


def _next_of(step: Mapping[str, Any], results: Results, names: Mapping[str, Any]) -> Instance | None:
    try:
        return _due(step, results.get(step["id"], {}), names)
    except ExpressionError as error:
        raise ExpressionError(f"{step['id']}: {error}") from error


def places(plan: Mapping[str, Any]) -> dict[str, int]:
    """Where in the plan each step stands; those of a parallel group all where its first does."""
    firsts: dict[str, int] = {}
    found: dict[str, int] = {}
    for at, step in enumerate(plan["steps"]):
        found[step["id"]] = firsts.setdefault(step["parallel"], at) if "parallel" in step else at
    return found


def _due(step: Mapping[str, Any], known: Mapping[int, Any], names: Mapping[str, Any]) -> Instance | None:
    """The first item of a step that is due and not known."""
    if "for_each" not in step and 0 in known:
        return None
    if "when" in step and not evaluate(step["when"], names):
        return None
    if "for_each" not in step:
        return _instance(step, 0, names)
    items = evaluate(step["for_each"], names)
    if not isinstance(items, (list, tuple)):
        raise ExpressionError(f"'for_each' gives {items!r}, which is no list")
    for index, item in enumerate(items):
        if index not in known:
            return _instance(step, index, {**names, "item": item, "index": index})
    return None


def _instance(step: Mapping[str, Any], item: int, names: Mapping[str, Any]) -> Instance:
    if "tool" in step:
        return Instance(step["id"], item, "tool", step["tool"], resolve(step.get("args", {}), names))
    if "ask" in step:
        values = {"inputs": resolve(step["inputs"], names), "output": resolve(step["output"], names)}
        return Instance(step["id"], item, "model", "", values)
    return Instance(step["id"], item, "sleep", "", {"seconds": step["sleep_seconds"]})


def settled(plan: Mapping[str, Any], step_id: str, results: Results, result: Any) -> bool:
    """Whether a step has come to its value with this result: it need not be made again until something holds.

    Raises ExpressionError where the result does not allow to tell.
    """
    step = step_named(plan, step_id)
    return "until" not in step or bool(evaluate(step["until"], {**bindings(plan, results), "result": result}))


def shows_end(plan: Mapping[str, Any], step_id: str, results: Results, result: Any) -> bool:
    """Whether a step has come to its value with this result; one that can't be told by is taken for too early."""
    try:
        return settled(plan, step_id, results, result)
    except ExpressionError:
        return False


def step_names_used(step: Mapping[str, Any]) -> frozenset[str]:
    """The step ids (and ``item``, ``index``) that a step's expressions mention."""
    own = names_in(step["until"]) - {"result"} if "until" in step else frozenset[str]()
    return own | names_in([step.get(key) for key in ("args", "inputs", "output", "when", "for_each") if key in step])


def dependents(plan: Mapping[str, Any], changed: str) -> list[str]:
    """The later steps whose values rest, directly or not, on the step `changed`, in the plan's order."""
    tainted = {changed}
    for step in plan["steps"]:
        if step_names_used(step) & tainted:
            tainted.add(step["id"])
    return [step["id"] for step in plan["steps"] if step["id"] in tainted and step["id"] != changed]
