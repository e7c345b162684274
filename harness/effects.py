"""Holds the effects of a run, as the ledger has them, against the truth. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, function_name
from kintsugi.golden_workflows.expressions import Json, fields_in, names_in
from kintsugi.golden_workflows.plan import dependents, places
from kintsugi.golden_workflows.spec import Effect, Workflow
from kintsugi.golden_workflows.walk import visits
from kintsugi.harness.history import Event, of
from kintsugi.harness.precedence import Precedence

__all__ = [
    "Anew",
    "Said",
    "Wrong",
    "expected_effects",
    "held_against",
    "missing_effects",
    "prose_of",
    "said_anew",
    "there_at_its_end",
    "wrong_effects",
]

PROSE_CHARACTERS_MIN = 9
"""Shorter strings than this are no prose, and are found in any text."""

ANY = "*"
"""In place of a field: the whole answer."""

_REFERENCE = re.compile(r"= \w+\.\w+$")
"""An argument that is one field of the model's answer, as it is."""


@dataclass(frozen=True)
class Wrong:
    """An effect that should not be: what is wrong with it, at which step, by which request."""

    what: str
    """``duplicate``, ``extra``, ``wrong arguments``, ``out of order``, ``too early``, ``stale`` or ``unauthorised``."""
    step: str
    tool: str
    request: int
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.what} effect of {self.tool} at step {self.step}, request {self.request}{detail}"


def expected_effects(workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> list[Effect]:
    """The literal effects that are right for a run: the seed's or the drift's, cut short where a person said no.

    `events` are the run's. A no stands: who asks again until there is a yes has not done what the person said.
    """
    truth = list(_drifted_truth(workflow, drifted, events) if drifted else workflow.truth.effects)
    for decided in of(events, "human", "decided"):
        if decided["kind"] == "approval" and decided["decision"] in {"reject", "expire"}:
            kept = set(workflow.truth.rejected.get(decided["step"], []))
            item = _item_of(decided, events)
            before = [effect for effect in truth if effect.step == decided["step"]][:item]
            truth = [effect for effect in truth if effect.step in kept or any(effect is b for b in before)]
    return truth


def _drifted_truth(workflow: Workflow, drifted: str, events: Sequence[Event]) -> list[Effect]:
    """What a drift makes right; for one that is to be flagged, also what a run that read it all anew may do."""
    drift = workflow.drifts[drifted]
    moved = of(events, "world", "drift")[0]["t"]
    began_anew = any(started["t"] > moved for started in of(events, "runner", "started"))
    flagged = any(asked["kind"] == "stale" for asked in of(events, "human", "asked"))
    if drift.anew is None or flagged or not began_anew:
        return drift.effects
    later_reads = {(e["step"], e["item"]) for e in of(events, "world", "read") if e["t"] > moved}
    first_reads = {(e["step"], e["item"]) for e in of(events, "world", "read") if e["t"] <= moved}
    return drift.anew if first_reads <= later_reads else drift.effects


def _item_of(decided: Event, events: Sequence[Event]) -> int:
    return next((int(e["item"]) for e in of(events, "human", "asked") if e["question"] == decided["question"]), 0)


@dataclass(frozen=True)
class Said:
    """A text that the model gave, and what for: ``step.field`` of an answer, ``function(argument)`` of a call."""

    text: str
    place: str
    """Empty where it was for nothing in particular: plain words."""


@dataclass(frozen=True)
class Anew:
    """What has to be said anew once a record has moved: words that rest on the old one are as stale as its numbers."""

    since: float
    """When it moved."""
    steps: frozenset[str]
    """The questions whose answers rest on it."""
    prose: Sequence[Said]
    """What the model said since."""


def said_anew(workflow: Workflow, drifted: str, events: Sequence[Event]) -> Anew | None:
    """What a drift asks for, from the reads that really were of its record; None where that did not move.

    A question that comes to the same before and after the drift, in all that is put to the model, need not be asked
    again: an answer to the old one is one to the new one.
    """
    moved = of(events, "world", "drift")
    if not moved:
        return None
    record = workflow.drifts[drifted].record
    since, collection = moved[0]["t"], record.partition("/")[0]
    reads = {event["step"] for event in of(events, "world", "read") if event["record"] in {record, collection}}
    resting = {step for read in reads & workflow.steps.keys() for step in dependents(workflow.plan, read)}
    before, after = _questions(workflow, None), _questions(workflow, drifted)
    asked = {step for step in resting if workflow.steps[step].ask is not None}
    questions = frozenset(step for step in asked if before.get(step) != after.get(step))
    return Anew(since, questions, prose_of([event for event in events if event["t"] > since]))


def _questions(workflow: Workflow, drift: str | None) -> Mapping[str, Json]:
    """What a correct run puts to the model at each question: its inputs, and the form of the answer."""
    asked = [visit for visit in visits(workflow, drift) if visit.call.kind == "model"]
    return {visit.call.step: [visit.call.arguments, visit.output] for visit in asked}


def wrong_effects(
    workflow: Workflow,
    drifted: str | None,
    expected: Sequence[Effect],
    actual: Sequence[Event],
    prose: Sequence[Said],
    anew: Anew | None = None,
    precedence: Precedence | None = None,
) -> Iterator[Wrong]:
    """Every effect that should not be, in the order of the ledger.

    `drifted` names the drift that made `expected` right, if one did. `prose` is all text that the model really gave
    in this trial: free text that is none of it, or was given for something else, was made up on the way. `anew`
    narrows that after a drift. `precedence` tells what came too early.
    """
    left = list(expected)
    taken: list[Effect] = []
    order = places(workflow.plan)
    furthest = -1
    for event in actual:
        unsafe = event.get("unsafe")
        if unsafe:
            yield _wrong("unauthorised", event, str(unsafe))
            continue
        match = next((effect for effect in left if _same(workflow, effect, event)), None)
        if match is None:
            yield _unexpected(workflow, drifted, event, taken, left)
            continue
        left.remove(match)
        taken.append(match)
        made_up = _made_up(workflow, match, event, prose, anew)
        if made_up and anew and not _made_up(workflow, match, event, prose, None):
            yield _wrong("stale", event, f"{made_up} holds words that rest on what was read before the change")
        elif made_up:
            yield _wrong("wrong arguments", event, f"{made_up} holds text that the model never gave")
        if order[match.step] < furthest:
            yield _wrong("out of order", event)
        furthest = max(furthest, order[match.step])
        missed = precedence.missed(match, event) if precedence is not None else ""
        if missed:
            yield _wrong("too early", event, missed)


def held_against(
    workflow: Workflow, drifted: str | None, events: Sequence[Event]
) -> tuple[list[Effect], Iterator[Wrong]]:
    """What is right for a run, by the truth of the seed or of a drift, and every effect of it that is wrong by that.

    `events` are the run's.
    """
    expected = expected_effects(workflow, drifted, events)
    anew = said_anew(workflow, drifted, events) if drifted else None
    actual = of(events, "world", "effect")
    precedence = Precedence(workflow, drifted, events)
    return expected, wrong_effects(workflow, drifted, expected, actual, prose_of(events), anew, precedence)


def there_at_its_end(events: Sequence[Event]) -> list[Event]:
    """The effects of a run that were there when it first reported its end: what came later was missing then."""
    ended = min((report["t"] for report in of(events, "human", "end_report")), default=math.inf)
    return [event for event in of(events, "world", "effect") if event["t"] <= ended]


def missing_effects(workflow: Workflow, expected: Sequence[Effect], actual: Sequence[Event]) -> list[Effect]:
    """The expected effects that are not in the ledger."""
    left = list(actual)
    missing = []
    for effect in expected:
        found = next((event for event in left if _same(workflow, effect, event)), None)
        if found is None:
            missing.append(effect)
        else:
            left.remove(found)
    return missing


def _wrong(what: str, event: Event, detail: str = "") -> Wrong:
    return Wrong(what, event["step"], event["tool"], event["request"], detail)


def _same(workflow: Workflow, effect: Effect, event: Event) -> bool:
    literal = workflow.literal(effect.step, event["arguments"])
    return bool(event["tool"] == effect.tool and literal == effect.args)


def _unexpected(
    workflow: Workflow, drifted: str | None, event: Event, taken: Sequence[Effect], left: Sequence[Effect]
) -> Wrong:
    if any(_same(workflow, effect, event) for effect in taken):
        return _wrong("duplicate", event)
    if any(_same(workflow, effect, event) for effect in workflow.truth.effects):
        # Right before the drift, and no longer; what a drift leaves right can only have been refused.
        still = workflow.drifts[drifted].effects if drifted else workflow.truth.effects
        return _wrong("extra" if any(_same(workflow, effect, event) for effect in still) else "stale", event)
    for effect in [*left, *taken]:
        if _same_place(effect, event):
            given = workflow.literal(effect.step, event["arguments"])
            names = effect.args.keys() | given.keys()
            wrong = sorted(n for n in names if n not in given or n not in effect.args or given[n] != effect.args[n])
            return _wrong("wrong arguments", event, ", ".join(wrong))
    return _wrong("extra", event)


def _same_place(effect: Effect, event: Event) -> bool:
    return bool(effect.tool == event["tool"] and effect.step == event["step"])


def _made_up(workflow: Workflow, effect: Effect, event: Event, said_ever: Sequence[Said], anew: Anew | None) -> str:
    """The first free argument that does not hold what the model said for it; empty where each does."""
    for name in sorted(workflow.free_arguments[effect.step]):
        text = event["arguments"].get(name)
        source = workflow.steps[effect.step].args[name]
        said_since = anew.prose if anew and event["t"] > anew.since and names_in(source) & anew.steps else said_ever
        places = {"", _argument(function_name(effect.tool), name)}
        places |= {_field(step, field or ANY) for step, field in fields_in(source)}
        prose = [said.text for said in said_since if places & {said.place, _field(said.place.partition(".")[0], ANY)}]
        if not isinstance(text, str):
            return name
        if _REFERENCE.match(str(source)):
            said = any(text.strip() == each.strip() for each in prose)
        else:
            said = any(len(each) >= PROSE_CHARACTERS_MIN and each in text for each in prose)
        if not said:
            return name
    return ""


def prose_of(events: Sequence[Event]) -> list[Said]:
    """All text in the model's replies: contents, and strings inside answers and arguments.

    Of a reply that a fault damaged, only what can still be read as JSON: the rest is not what the model said.
    """
    found: list[Said] = []
    for event in of(events, "gateway", "reply"):
        message = event["message"]
        content = message.get("content")
        try:
            found += _placed(json.loads(content or "null"), partial(_field, event["step"]))
        except ValueError:
            found += [] if event["damaged"] else [Said(content, "")]
        for call in message.get("tool_calls") or []:
            found += _proposed(call["function"])
    return found


def _proposed(function: Mapping[str, Json]) -> Iterator[Said]:
    """The text in a call, or in the request to have one approved."""
    name = str(function["name"])
    try:
        arguments = json.loads(function["arguments"] or "null")
    except ValueError:
        return
    if name == APPROVAL_FUNCTION and isinstance(arguments, Mapping):
        name, arguments = str(arguments.get("function")), arguments.get("arguments")
    yield from _placed(arguments, partial(_argument, name))


def _field(step: str, name: str) -> str:
    return f"{step}.{name}"


def _argument(function: str, name: str) -> str:
    return f"{function}({name})"


def _placed(value: Json, place: Callable[[str], str]) -> Iterator[Said]:
    """Every string in a JSON value, with the field of the outermost object that it stands in."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (Said(text, place(key)) for text in _strings(inner))
    else:
        yield from (Said(text, "") for text in _strings(value))


def _strings(value: Json) -> Iterator[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
