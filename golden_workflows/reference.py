"""Proves that plan and truth, written down independently, agree: walks the plan, and compares every effect.

It also proves that no workflow asks the impossible: a correct run notices what drifts before it acts on it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

from kintsugi.golden_workflows.checks.tool import schema_form_problem
from kintsugi.golden_workflows.forms import Drift, Effect, Tool
from kintsugi.golden_workflows.problems import FileProblem
from kintsugi.golden_workflows.walk import Call, Visit, script_reply, trajectory, walk
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.runtime.rules import canonical, schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Call", "check_truth", "script_reply", "trajectory", "truth_problem"]

PROSE = " To put it in other words, the same holds."
"""What a second walk adds to the model's free text, to see where it gets to."""


def check_truth(workflow: Workflow) -> None:
    """Prove that the plan's own walk has exactly the effects that the truth lists, for the seed and drifts.

    Raises FileProblem naming the first difference.
    """
    problem = truth_problem(workflow)
    if problem:
        raise FileProblem(f"{workflow.path or workflow.name}: {problem}")


def truth_problem(workflow: Workflow) -> str:
    """The first difference between plan and truth as one line; empty where they agree.

    Raises FileProblem where the plan can't be walked to its end.
    """
    return next(_problems(workflow), "")


def _problems(workflow: Workflow) -> Iterator[str]:
    seed = list(walk(workflow))
    yield from _sound(workflow, seed)
    yield from _prose(workflow, seed)
    yield from _any_order(workflow, seed)
    yield from _compare("truth.effects", workflow.truth.effects, _effects(workflow, seed))
    drifted = {name: list(walk(workflow, name)) for name in workflow.drifts}
    yield from _rejected(workflow, [seed, *drifted.values()])
    for name, visits in drifted.items():
        yield from (f"{problem} (under drift {name!r})" for problem in _sound(workflow, visits))
        yield from (f"drift.{name}.{problem}" for problem in _drift(workflow, workflow.drifts[name], seed, visits))


def _effects(workflow: Workflow, visits: Sequence[Visit]) -> list[Effect]:
    """The literal effects of a walk: its writes, free text left out."""
    return [
        Effect(step=call.step, tool=call.tool, args=workflow.literal(call.step, call.arguments))
        for call in (visit.call for visit in visits)
        if _is_write(workflow, call)
    ]


def _is_write(workflow: Workflow, call: Call) -> bool:
    return call.kind == "tool" and workflow.tools[call.tool].effect == "write"


# --- a walk by itself ---------------------------------------------------------------------------------------


def _sound(workflow: Workflow, visits: Sequence[Visit]) -> Iterator[str]:
    """Every call, result and answer keeps its schema, and nothing is asked for that no runtime could do."""
    for visit in visits:
        call = visit.call
        try:
            json.dumps([call.arguments, visit.value, visit.output], allow_nan=False)
        except (TypeError, ValueError):
            yield f"plan.{call.step}: a value has no form in JSON; does an expression lack '| list'?"
            continue
        if call.kind == "model":
            form = schema_form_problem(visit.output, "output")
            if form:
                yield f"plan.{call.step}.{form}"
            elif problem := schema_problem(visit.value, visit.output):
                yield f"script.{call.step}: the answer breaks the step's output at {problem}"
        elif call.kind == "tool":
            yield from (f"plan.{call.step}{problem}" for problem in _sound_call(workflow.tools[call.tool], visit))
    yield from _repeats(workflow, visits)
    for before, visit in pairwise(visits):
        if visit.call.kind == "sleep" and workflow.steps[before.call.step].until is not None:
            polled = f"{before.call.step!r}, whose last poll no one can tell from the others"
            yield f"plan.{visit.call.step}: begins right after {polled}; put another step between them"


def _sound_call(tool: Tool, visit: Visit) -> Iterator[str]:
    item = f" (item {visit.call.item})" if visit.call.item else ""
    if problem := schema_problem(visit.call.arguments, tool.parameters):
        yield f".args: they break the schema of {tool.name} at {problem}{item}"
    if problem := schema_problem(visit.value, tool.result):
        yield f": the result of {tool.name}, from {visit.record}, breaks its schema at {problem}"
    if visit.outdated:
        yield f".fresh: {visit.outdated!r} is changed by the plan's own writes, so it is always stale"
    if visit.unmatched:
        yield f".fresh: the first is no read of {visit.record}, which is written, so If-Match never holds"


def _repeats(workflow: Workflow, visits: Sequence[Visit]) -> Iterator[str]:
    done: set[str] = set()
    for visit in visits:
        call = visit.call
        if _is_write(workflow, call):
            same = canonical([call.tool, workflow.literal(call.step, call.arguments)])
            if same in done:
                yield f"plan.{call.step}: item {call.item} repeats an earlier write; runtimes refuse that"
            done.add(same)


def _prose(workflow: Workflow, seed: Sequence[Visit]) -> Iterator[str]:
    """The model's wording reaches free arguments only, and decides nothing."""
    for visit, other in zip(seed, walk(workflow, prose=PROSE), strict=False):
        call, varied = visit.call, other.call
        if (call.step, call.item) != (varied.step, varied.item):
            yield f"plan.{call.step}: whether it is done depends on the model's free text"
            return
        if call.kind != "tool":
            continue
        for name, value in workflow.literal(call.step, call.arguments).items():
            if varied.arguments.get(name) != value:
                yield (
                    f"plan.{call.step}.args.{name}: rests on the model's free text by a detour, so it has "
                    "no literal truth; take it from the model's field itself"
                )


def _any_order(workflow: Workflow, seed: Sequence[Visit]) -> Iterator[str]:
    """What is done does not depend on which of a parallel group comes first."""
    if not any(step.parallel for step in workflow.steps.values()):
        return
    try:
        other = {(v.call.step, v.call.item): v.call.arguments for v in walk(workflow, backwards=True)}
    except FileProblem as problem:
        yield f"plan: done in the opposite order, a parallel group leads nowhere: {problem}"
        return
    for call in (visit.call for visit in seed):
        if other.get((call.step, call.item)) != call.arguments:
            yield f"plan.{call.step}: what it is called with depends on which of a parallel group comes first"


# --- against the truth --------------------------------------------------------------------------------------


def _compare(key: str, truth: Sequence[Effect], walked: Sequence[Effect]) -> Iterator[str]:
    for position, (expected, got) in enumerate(zip(truth, walked, strict=False)):
        if expected.step != got.step:
            yield f"{key}[{position}].step: the truth says {expected.step!r}, the plan leads to {got.step!r}"
            return
        for name, value in got.args.items():
            if canonical(expected.args.get(name)) != canonical(value):
                said = expected.args.get(name)
                leads = f"the plan leads {got.step!r} to {value!r}"
                yield f"{key}[{position}].args.{name}: the truth says {said!r}, {leads}"
    if len(truth) != len(walked):
        longer, what = (walked, "is missing") if len(walked) > len(truth) else (truth, "is not done by the plan")
        odd = longer[min(len(truth), len(walked))]
        counts = f"{len(truth)} effects, the plan leads to {len(walked)}"
        yield f"{key}: {counts}; {odd.step!r} with {odd.args} {what}"


def _drift(workflow: Workflow, drift: Drift, seed: Sequence[Visit], drifted: Sequence[Visit]) -> Iterator[str]:
    wait = next((at for at, visit in enumerate(seed) if _waits_at(visit.call, drift.step)), None)
    if wait is None:
        yield f"step: {drift.step!r} does not wait in a run on the seed records"
        return
    readers = _readers(drift, seed[:wait]) | _readers(drift, drifted[:wait])
    if not readers:
        yield f"record: {drift.record} is not read before {drift.step!r}, so nothing could turn stale"
        return
    before, after = _effects(workflow, seed[:wait]), _effects(workflow, seed[wait:])
    refreshed = _effects(workflow, drifted)
    if refreshed[: len(before)] != before:
        yield f"step: a write before {drift.step!r} rests on {drift.record}, and can't be undone afterwards"
        return
    same = _common(after, refreshed[len(before) :])
    if same == len(after) == len(refreshed) - len(before):
        yield "set: the correct effects stay the same, so acting on the old values would pass"
        return
    noticed = next(
        (at for at, effect in enumerate(after[: same + 1]) if readers & set(workflow.steps[effect.step].fresh)),
        None,
    )
    if noticed is None:
        yield (
            f"step: no write between {drift.step!r} and the first effect that changes lists "
            f"{' or '.join(map(repr, sorted(readers)))} in 'fresh', so no runtime would notice"
        )
        return
    notices = workflow.steps[after[noticed].step]
    if notices.on_stale != drift.outcome:
        says = f"step {notices.id!r}, which notices it, says on_stale = {notices.on_stale!r}"
        yield f"outcome: is {drift.outcome!r}, and {says}"
    expected = refreshed if drift.outcome == "refresh" else before + after[:noticed]
    yield from _compare("effects", drift.effects, expected)
    if drift.outcome == "flag" and drift.anew is None:
        yield "anew: missing; give the effects of a run that was begun anew after the change"
    elif drift.anew is not None:
        yield from _compare("anew", drift.anew, refreshed)


def _waits_at(call: Call, step: str) -> bool:
    return call.step == step and (call.needs_approval or call.kind == "sleep")


def _readers(drift: Drift, visits: Sequence[Visit]) -> set[str]:
    """The steps that read the record that drifts, by itself or in a list."""
    collection, _, key = drift.record.partition("/")
    found = {visit.call.step for visit in visits if visit.record == drift.record}
    for visit in visits:
        if visit.record == collection and any(item["id"] == key for item in visit.value["items"]):
            found.add(visit.call.step)
    return found


def _common(left: Sequence[Effect], right: Sequence[Effect]) -> int:
    """How many effects two lists begin with in common."""
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _rejected(workflow: Workflow, walks: Sequence[Sequence[Visit]]) -> Iterator[str]:
    """For each step that needs an approval, the truth says which effects remain when it is rejected.

    Those are earlier steps, each as a whole; of a loop, the items before the rejected one remain in any case.
    """
    remain: dict[str, list[str]] = {}
    for visits in walks:
        for at, visit in enumerate(visits):
            if visit.call.needs_approval:
                before = dict.fromkeys(effect.step for effect in _effects(workflow, visits[:at]))
                remain.setdefault(visit.call.step, [step for step in before if step != visit.call.step])
    told = workflow.truth.rejected
    for step, kept in remain.items():
        if step not in told:
            yield f"truth.rejected.{step}: this key is missing; by then the plan has done {kept}"
        elif set(kept) != set(told[step]):
            yield f"truth.rejected.{step}: the truth says {told[step]}, the plan has done {kept} by then"
    for step in told:
        if step not in remain:
            yield f"truth.rejected.{step}: the step never needs an approval; leave it out"
