"""Every way to do one write of a correct run wrongly is seen: removed, doubled, altered, not approved, at a wrong time.

A history is made from the walk over a workflow's plan, for the seed and for each declared drift, as the checker sees
it; then each mutant of it is judged. Random mutants are drawn in ``tests/harness/test_effects.py``; here is each one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.plan import dependents
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.walk import Visit, walk
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.harness.checker import check
from kintsugi.harness.history import Event
from kintsugi.harness.identity import UNPLANNED, Identifier
from kintsugi.harness.rules import EFFECTS
from kintsugi.harness.session import TIME_SCALE
from kintsugi.runtime.rules import approval_needed
from kintsugi.scenarios.trial import Strike, Trial

WORKFLOWS = load_workflows()
PROSE = " Best wishes. (B1)"
"""What the model adds to the free text of its script."""
MOMENT_SECONDS = 0.001


# --- histories ----------------------------------------------------------------------------------------------


class Told:
    """The events of one run, told in their order; each comes a moment after the one before, or after a timer."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.events: list[Event] = []
        self.slept_seconds = 0.0
        self.identifier, self.done = Identifier(workflow), Counter[tuple[str, int]]()
        self.starts(1)
        self.add("runner", "submitted", runs=1)

    def add(self, who: str, what: str, **data: Any) -> None:
        moment = MOMENT_SECONDS * (len(self.events) + 1) + self.slept_seconds
        self.events.append({"t": round(moment, 4), "who": who, "what": what, **data})

    def starts(self, generation: int) -> None:
        self.generation = generation
        self.add("runner", "started", generation=generation, node="node1", pid=40 + generation)

    def named(self, step: str, item: int = 0) -> dict[str, Any]:
        """A request's identity."""
        where = {"step": step, "item": item, "occurrence": 1}
        return {"request": len(self.events), "run": "r0", "generation": self.generation, **where}

    def asks_person(self, kind: str, visit: Visit) -> str:
        """A question about a call; its id."""
        call, question = visit.call, f"q{len(self.events)}"
        about = {"question": question, "kind": kind, "tool": call.tool, "arguments": call.arguments}
        self.add("human", "asked", **self.named(call.step, call.item), **about, summary="", evidence={}, re_asked=False)
        return question

    def decides(self, question: str, decision: str) -> None:
        asked = next(event for event in self.events if event.get("question") == question)
        same = {"run": "r0", "question": question, "kind": asked["kind"], "step": asked["step"]}
        self.add("human", "decided", **same, decision=decision)
        self.add("human", "delivered", **same)

    def does(self, visit: Visit) -> None:
        """A call with its whole outcome: a judgement is given, a read served, a write approved and in the ledger.

        It is named as the world names it, which under a drift may be after another step; `planned` is the plan's.
        """
        call = visit.call
        if call.kind == "model":
            message = {"role": "assistant", "content": json.dumps(visit.value)}
            named, right = self.named(call.step), {"damaged": False, "as_scripted": True}
            self.add("gateway", "reply", **named, wants="answer", message=message, **right)
            self.add("gateway", "delivered", request=named["request"], run="r0", delivered=True)
        elif call.kind == "sleep":
            self.slept_seconds += call.arguments["seconds"] * TIME_SCALE
        elif call.kind == "tool":
            if call.needs_approval:
                self.decides(self.asks_person("approval", visit), "approve")
            effect = self.workflow.tools[call.tool].effect
            where = self.identifier.tool(call.tool, call.arguments, self.done) or (UNPLANNED, 0)
            self.done[where] += 1
            named = self.named(*where)
            made = {"tool": call.tool, "arguments": dict(call.arguments)}
            self.add("world", "request", **named, **made, effect=effect)
            if effect == "read":
                shown = {"result": visit.value} if self.workflow.steps[call.step].until else {}
                self.add("world", "read", **named, record=visit.record, version='"1"', **shown)
            else:
                self.add("world", "effect", **named, **made, record=visit.record, unsafe="", planned=call.step)
            self.add("world", "answer", request=named["request"], run="r0", status=200, replayed=False)
            self.add("world", "delivered", request=named["request"], run="r0", delivered=True)

    def waits_while(self, drift: str, visit: Visit) -> None:
        """The wait of a step, during which a record drifts."""
        happening = self.workflow.drifts[drift]
        question = self.asks_person("approval", visit) if visit.call.kind == "tool" else ""
        self.add("nemesis", "injected", strike=0, is_="stale_data.while_waiting", request=None)
        self.add("world", "drift", run="r0", record=happening.record, set=happening.set, version=2)
        self.add("nemesis", "witnessed", strike=0, evidence="version 2")
        if question:
            self.decides(question, "approve")

    def ended(self) -> list[Event]:
        """The events of the run, once it has reported its end and the trial is over."""
        self.add("human", "end_report", **self.named("end"), status="completed", detail="")
        self.add("runner", "closed")
        return self.events


def is_write(workflow: Workflow, visit: Visit) -> bool:
    return visit.call.kind == "tool" and workflow.tools[visit.call.tool].effect == "write"


def on_seed(workflow: Workflow, *, backwards: bool = False) -> list[Event]:
    """A clean run; `backwards`: the steps of each parallel group come in the opposite order."""
    told = Told(workflow)
    for visit in walk(workflow, prose=PROSE, backwards=backwards):
        told.does(visit)
    return told.ended()


def waiting(workflow: Workflow, drift: str) -> tuple[Told, list[Visit]]:
    """A run up to the wait in which a record drifts, and what is left of the walk on the seed, that step first."""
    told, visits = Told(workflow), list(walk(workflow, prose=PROSE))
    wait = [visit.call.step for visit in visits].index(workflow.drifts[drift].step)
    for visit in visits[:wait]:
        told.does(visit)
    told.waits_while(drift, visits[wait])
    return told, visits[wait:]


def on_drift(workflow: Workflow, drift: str, *, anew: bool = False) -> list[Event]:
    """A run that reads and decides again after a drift; `anew`: because another worker begins the run anew."""
    told, left = waiting(workflow, drift)
    if anew:
        told.add("runner", "exited", generation=1, code=-9, signal=9, cpu_seconds=0.1, output="")
        told.starts(2)
    seed = sum(is_write(workflow, visit) for visit in walk(workflow))
    done = seed - sum(is_write(workflow, visit) for visit in left)
    for visit in walk(workflow, drift, PROSE):
        if is_write(workflow, visit) and done:
            done -= 1
        else:
            told.does(visit)
    return told.ended()


def on_flagged_drift(workflow: Workflow, drift: str) -> list[Event]:
    """A run that stops for a person where a write rests on what has changed."""
    told, left = waiting(workflow, drift)
    writes = len(workflow.drifts[drift].effects) - sum(event["what"] == "effect" for event in told.events)
    for visit in left:
        if is_write(workflow, visit):
            if not writes:
                told.decides(told.asks_person("stale", visit), "stop")
                break
            writes -= 1
        told.does(visit)
    return told.ended()


def refusable(workflow: Workflow) -> list[str]:
    """The steps that need an approval on the records of the seed."""
    return list(dict.fromkeys(visit.call.step for visit in walk(workflow) if visit.call.needs_approval))


def on_refusal(workflow: Workflow, step: str) -> list[Event]:
    """A run that ends where a person says no."""
    told = Told(workflow)
    for visit in walk(workflow, prose=PROSE):
        if visit.call.step == step and visit.call.needs_approval:
            told.decides(told.asks_person("approval", visit), "reject")
            break
        told.does(visit)
    return told.ended()


def histories(workflow: Workflow) -> Iterator[tuple[str, str, str, list[Event]]]:
    """Every right way through a workflow: its name, its drift, what it is judged to be, its events."""
    yield "seed", "", "correct", on_seed(workflow)
    if any(step.parallel for step in workflow.steps.values()):
        yield "seed, backwards", "", "correct", on_seed(workflow, backwards=True)
    for step in refusable(workflow):
        yield f"{step} refused", "", "correct", on_refusal(workflow, step)
    for name, drift in workflow.drifts.items():
        if drift.outcome == "flag":
            yield f"{name}, flagged", name, "correct_halt", on_flagged_drift(workflow, name)
            yield f"{name}, begun anew", name, "correct", on_drift(workflow, name, anew=True)
        else:
            yield name, name, "correct", on_drift(workflow, name)


def trial_of(workflow: Workflow, drift: str) -> Trial:
    """A clean trial, or one in which a record drifts while the run waits."""
    if not drift:
        return Trial("baseline", "minimal", "optimized", workflow.name)
    step = workflow.steps[workflow.drifts[drift].step]
    point = Point.parse(f"{'timer' if step.sleep_seconds else 'human'}:{step.id}[0]#1@waiting")
    strike = Strike("stale_data", "while_waiting", point)
    return Trial("fault", "minimal", "optimized", workflow.name, (strike,), drift=drift)


# --- mutants ------------------------------------------------------------------------------------------------


def mutants(workflow: Workflow, events: Sequence[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Every history in which one write of a run is wrong, with what is wrong with it."""
    writes = [at for at, event in enumerate(events) if event["what"] == "effect"]
    for at in writes:
        event = events[at]
        what = f"{event['step']}[{event['item']}]"
        yield f"{what} removed", [*events[:at], *events[at + 1 :]]
        yield f"{what} doubled at once", [*events[: at + 1], {**event, "request": 900}, *events[at + 1 :]]
        yield f"{what} doubled at the end", [*events, {**event, "request": 900, "t": events[-1]["t"] + 0.01}]
        for name in sorted(set(event["arguments"]) - workflow.free_arguments[event["step"]]):
            arguments = {**event["arguments"], name: altered(event["arguments"][name])}
            yield f"{what} with another {name}", replaced(events, at, {**event, "arguments": arguments})
        if approval_needed(workflow.tools[event["tool"]].public(), event["arguments"]):
            yield f"{what} without its approval", replaced(events, at, {**event, "unsafe": "no approval"})
        for name, (source, text) in product(sorted(workflow.free_arguments[event["step"]]), said(events)):
            if name in event["arguments"] and source not in str(workflow.steps[event["step"]].args[name]):
                arguments = {**event["arguments"], name: text}
                yield f"{what} with other words in {name}", replaced(events, at, {**event, "arguments": arguments})
        if at == writes[-1]:
            late = {**event, "t": events[-1]["t"] + 0.01}
            yield f"{what} after the end", [*events[:at], *events[at + 1 :], late]
    for first, second in pairwise(writes):
        if is_ordered(workflow, events[first]["planned"], events[second]["planned"]):
            what = f"{events[first]['step']}[{events[first]['item']}] after {events[second]['step']}"
            yield what, swapped(events, first, second)
    yield from too_early(workflow, events, writes)


def too_early(workflow: Workflow, events: Sequence[Event], writes: Sequence[int]) -> Iterator[tuple[str, list[Event]]]:
    """Every history in which a write does not wait: for a timer, a job, or what it rests on to be read or answered."""
    if any(after_timer(events, at) for at in writes):
        yield "no timer waited out", without_timers(events)
    reads = [event for event in events if event["what"] == "read"]
    for read in reads:
        polled = "result" in read
        later = [step.id for step in list(workflow.steps.values())[list(workflow.steps).index(read["step"]) + 1 :]]
        if polled and any(events[at]["step"] in later for at in writes):
            other = {name: altered(value) for name, value in read["result"].items()}
            shown = [{**e, "result": other} if e.get("result") == read["result"] else e for e in events]
            yield f"{read['step']} not waited for", shown
        first = next(
            at for at, event in enumerate(events) if event["what"] == "read" and same_read(event, read, events)
        )
        for at in writes:
            if events[at]["step"] in dependents(workflow.plan, read["step"]) and first < at:
                early = {**events[at], "t": events[first]["t"] - MOMENT_SECONDS / 2}
                rest = [*events[first:at], *events[at + 1 :]]
                yield f"{events[at]['step']} before {read['step']} is read", [*events[:first], early, *rest]
    for question in dict.fromkeys(event["step"] for event in events if event["what"] == "reply"):
        resting = dependents(workflow.plan, question)
        if first_write := next((at for at in writes if events[at]["planned"] in resting), None):
            yield (
                f"{events[first_write]['planned']} before {question} is answered",
                unanswered(events, question, first_write),
            )


def unanswered(events: Sequence[Event], question: str, until: int) -> list[Event]:
    """The same events, but no answer to a question reaches its worker until one of them."""
    lost = {event["request"] for event in events[:until] if (event["what"], event.get("step")) == ("reply", question)}
    told = [{**e, "delivered": False} if "delivered" in e and e["request"] in lost else e for e in events[:until]]
    return [*told, *events[until:]]


def same_read(one: Event, other: Event, events: Sequence[Event]) -> bool:
    """Whether two reads are of the same step, or make the very same call."""
    asked = {event["request"]: (event["tool"], event["arguments"]) for event in events if event["what"] == "request"}
    return bool(one["step"] == other["step"] or asked[one["request"]] == asked[other["request"]])


def after_timer(events: Sequence[Event], at: int) -> bool:
    """Whether there is a timer before an event."""
    return any(second["t"] - first["t"] > 2 * MOMENT_SECONDS for first, second in pairwise(events[: at + 1]))


def without_timers(events: Sequence[Event]) -> list[Event]:
    """The same events, each a moment after the one before."""
    return [{**event, "t": round(MOMENT_SECONDS * (at + 1), 4)} for at, event in enumerate(events)]


def said(events: Sequence[Event]) -> list[tuple[str, str]]:
    """The model's prose, each with what an expression calls it, ``step.field``."""
    replies = [event for event in events if event["what"] == "reply"]
    answers = [(event["step"], json.loads(event["message"]["content"])) for event in replies]
    return [
        (f"{step}.{field}", text)
        for step, answer in answers
        for field, text in answer.items()
        if isinstance(text, str) and PROSE in text
    ]


def altered(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[:-1] or ["X-1"]
    assert isinstance(value, str), f"no mutant is known of {value!r}"
    return f"{value}x"


def is_ordered(workflow: Workflow, first: str, second: str) -> bool:
    """Whether the order of two steps' writes is part of the truth.

    It is free among the items of one loop, which rest on nothing of each other, and within a group of parallel steps.
    """
    groups = {workflow.steps[first].parallel, workflow.steps[second].parallel}
    return first != second and (None in groups or len(groups) == 2)


def replaced(events: Sequence[Event], at: int, event: Event) -> list[Event]:
    return [*events[:at], event, *events[at + 1 :]]


def swapped(events: Sequence[Event], first: int, second: int) -> list[Event]:
    """Two writes change places; the times stay those of the places."""
    early = {**events[second], "t": events[first]["t"]}
    late = {**events[first], "t": events[second]["t"]}
    return replaced(replaced(events, first, early), second, late)


# --- what the checker says ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_right_way_through_a_workflow_is_judged_so(name: str) -> None:
    workflow = WORKFLOWS[name]
    for way, drift, judged, events in histories(workflow):
        found = check(workflow, trial_of(workflow, drift), events)
        assert (found.verdict, found.injection) == (judged, "witnessed" if drift else "none"), f"{way}: {found.reason}"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_mutant_of_a_write_is_caught(name: str) -> None:
    workflow = WORKFLOWS[name]
    survivors = []
    count = 0
    for way, drift, _, events in histories(workflow):
        for what, mutant in mutants(workflow, events):
            count += 1
            assert mutant != events, what
            found = check(workflow, trial_of(workflow, drift), mutant)
            if found.verdict != "corrupted" or not any(f"{rule} effect of" in found.reason for rule in EFFECTS):
                survivors.append(f"{way}: {what}: {found.reason}")
    assert survivors == []
    # Each write is at least removed, doubled twice, and altered in one argument.
    assert count >= 4 * len(workflow.truth.effects) > 0


@pytest.mark.parametrize(
    ("name", "step"), [(name, step) for name, workflow in WORKFLOWS.items() for step in refusable(workflow)]
)
def test_what_is_done_although_a_person_refused_it_is_caught(name: str, step: str) -> None:
    workflow = WORKFLOWS[name]
    events = on_refusal(workflow, step)
    effects = [event for event in on_seed(workflow) if event["what"] == "effect"]
    refused = next(event for event in effects if event["step"] == step)
    for effect in effects[effects.index(refused) :]:
        late = {**effect, "request": 900, "t": events[-1]["t"] + 0.01}
        assert check(workflow, trial_of(workflow, ""), [*events, late]).verdict == "corrupted", effect["step"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("marketing/press_release", "distribution"),
        ("research/competitor_brief", "offers"),
        ("support/duplicate_cases", "rota"),
    ],
)
def test_a_read_may_be_made_after_a_timer_that_the_plan_has_after_it(name: str, read: str) -> None:
    workflow, events = WORKFLOWS[name], on_seed(WORKFLOWS[name])
    number = next(event["request"] for event in events if event["what"] == "read" and event["step"] == read)
    moved = [event for event in events if event.get("request") == number and event["who"] == "world"]
    rest = [event for event in events if event not in moved]
    over = next(at for at in range(len(rest)) if after_timer(rest, at))
    late = [{**event, "t": rest[over]["t"] - MOMENT_SECONDS / 2} for event in moved]
    found = check(workflow, trial_of(workflow, ""), [*rest[:over], *late, *rest[over:]])
    assert (len(moved), found.verdict) == (4, "correct"), found.reason
