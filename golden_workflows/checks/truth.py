"""What is wrong with a truth and its drifts, as far as the text shows: pure, the first problem as a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kintsugi.golden_workflows.forms import Drift, Effect, Step, has_expression
from kintsugi.golden_workflows.problems import nearest
from kintsugi.golden_workflows.workflow import Workflow

__all__ = ["truth_problem"]


def truth_problem(workflow: Workflow, drift_names: Sequence[str]) -> str:
    """The first problem of truth and drifts as ``key: what was found, what is allowed``; else empty.

    `drift_names` are the names as the file gives them, where one may stand twice.
    """
    return next(_problems(workflow, drift_names), "")


def _problems(workflow: Workflow, drift_names: Sequence[str]) -> Iterator[str]:
    writes = {step.id: step for step in workflow.writes()}
    if not writes:
        yield "plan: at least one step must write; without an effect there is no truth to keep"
        return
    yield from _effects(workflow, writes, "truth.effects", workflow.truth.effects)
    for name in drift_names:
        if drift_names.count(name) > 1:
            yield f"drift.{name}: two drifts have this name; give each its own"
    for drift in workflow.drifts.values():
        yield from (f"drift.{drift.name}.{problem}" for problem in _drift(workflow, drift))
        yield from _effects(workflow, writes, f"drift.{drift.name}.effects", drift.effects)
        if drift.anew is not None and drift.outcome != "flag":
            yield f"drift.{drift.name}.anew: goes with outcome 'flag' only; a refresh has the same effects either way"
        yield from _effects(workflow, writes, f"drift.{drift.name}.anew", drift.anew or [])
    yield from _rejected(workflow, writes)


def _effects(workflow: Workflow, writes: Mapping[str, Step], key: str, effects: Sequence[Effect]) -> Iterator[str]:
    for position, effect in enumerate(effects):
        where = f"{key}[{position}]"
        if effect.step not in writes:
            yield f"{where}.step: {effect.step!r} is no step that writes{nearest(effect.step, writes)}"
            continue
        step = writes[effect.step]
        if effect.tool != step.tool:
            yield f"{where}.tool: step {step.id!r} calls {step.tool!r}, not {effect.tool!r}"
        free = workflow.free_arguments[step.id]
        for name, value in effect.args.items():
            if name not in step.args:
                yield f"{where}.args.{name}: step {step.id!r} has no such argument{nearest(name, step.args)}"
            elif name in free:
                yield f"{where}.args.{name}: free text of the model has no literal truth; leave it out"
            elif has_expression(value):
                yield f"{where}.args.{name}: the truth is literal; write the value, not {value!r}"
        for name in sorted(set(step.args) - free - set(effect.args)):
            yield f"{where}.args.{name}: this key is missing; step {step.id!r} gives it"


def _drift(workflow: Workflow, drift: Drift) -> Iterator[str]:
    step = workflow.steps.get(drift.step)
    if step is None:
        yield f"step: no step is called {drift.step!r}{nearest(drift.step, workflow.steps)}"
        return
    waits = [other.id for other in workflow.steps.values() if _waits(workflow, other)]
    if step.id not in waits:
        hint = nearest(step.id, waits)
        yield f"step: {step.id!r} waits for no one; a drift strikes at a timer or an approval{hint}"
    elif step.for_each is not None:
        yield f"step: {step.id!r} is a loop; what it did before its wait can't be done again on new values"
    collection, _, key = drift.record.partition("/")
    records = workflow.world.get(collection, {})
    if key not in records:
        known = [f"{name}/{each}" for name, held in workflow.world.items() for each in held]
        yield f"record: no seed record is called {drift.record!r}{nearest(drift.record, known)}"
        return
    for name, value in drift.set.items():
        if name not in records[key]:
            yield f"set.{name}: {drift.record!r} has no such field{nearest(name, records[key])}"
        elif records[key][name] == value:
            yield f"set.{name}: {value!r} is what the seed record says; a drift must change it"
    ids = list(workflow.steps)
    before = [workflow.steps[name] for name in ids[: ids.index(step.id)]]
    if not any(other.tool and _reads(workflow, other, collection) for other in before):
        yield f"record: no step before {step.id!r} reads {collection}, so nothing could turn stale"


def _waits(workflow: Workflow, step: Step) -> bool:
    return step.sleep_seconds is not None or (step.tool is not None and workflow.tools[step.tool].approval != "never")


def _reads(workflow: Workflow, step: Step, collection: str) -> bool:
    tool = workflow.tools[str(step.tool)]
    return tool.effect == "read" and tool.does.collection == collection


def _rejected(workflow: Workflow, writes: Mapping[str, Step]) -> Iterator[str]:
    approved = [step.id for step in writes.values() if workflow.tools[str(step.tool)].approval != "never"]
    order = list(workflow.steps)
    for name, kept in workflow.truth.rejected.items():
        if name not in approved:
            yield f"truth.rejected.{name}: no step of that id needs an approval{nearest(name, approved)}"
            continue
        for other in kept:
            if other not in writes:
                yield f"truth.rejected.{name}: {other!r} is no step that writes{nearest(other, writes)}"
            elif order.index(other) >= order.index(name):
                yield f"truth.rejected.{name}: {other!r} comes no earlier than {name!r}"
