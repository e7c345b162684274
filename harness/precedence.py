"""What has to come before an effect: the reads and answers that it rests on, the jobs waited for, the timers. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from kintsugi.golden_workflows.plan import Results, places, shows_end, step_named, step_names_used
from kintsugi.golden_workflows.spec import Effect, Workflow
from kintsugi.golden_workflows.walk import Visit, visits
from kintsugi.harness.history import Event, arrived, of
from kintsugi.harness.identity import first_alike
from kintsugi.harness.session import TIME_SCALE
from kintsugi.runtime.rules import canonical

__all__ = ["Precedence"]

JUST_BEFORE = 0.95
"""The part of a timer that has to have gone by: clocks differ."""


_CALL = ("tool", "arguments", "step", "item")
"""What tells a call from others."""
_HALTS = {"in_doubt", "budget"}
"""The halts whose answer says whether a call had happened."""


class Precedence:
    """What came before each effect of one run, against what had to.

    `drifted` names the drift by whose plan the run is judged, if there is one. In doubt a run has waited: each call
    counts from when it was first served, one read of a loop stands for all, and a read may come before a job is done.
    What never reached its worker was neither read nor said.
    """

    def __init__(self, workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> None:
        self._workflow = workflow
        self._visits = visits(workflow, drifted)
        self._place = places(workflow.plan)
        read, said = arrived(events, "world"), arrived(events, "gateway")
        self._reads = [event for event in of(events, "world", "read") if event["request"] in read]
        self._replies = [event for event in of(events, "gateway", "reply") if event["request"] in said]
        self._asks_the_model = bool(of(events, "gateway"))
        self._first: dict[str, float] = {}
        """When each call was first served, by what it is: a drift may have it be another step's, or another item's."""
        self._requests = requests = {event["request"]: event for event in of(events, "world", "request")}
        self._asked, self._decided = of(events, "human", "asked"), of(events, "human", "decided")
        for event in of(events, "world", "read", "effect"):
            made = event if event["what"] == "effect" else requests[event["request"]]
            self._first.setdefault(_what(workflow, event["step"], made["tool"], made["arguments"]), event["t"])
        self._calls = _calls(workflow, drifted)
        self._read: dict[str, list[float]] = defaultdict(list)
        """When each step's reads were served; steps that make the very same one can't be told apart."""
        alike, steps = first_alike(workflow, drifted), defaultdict[tuple[str, int], set[str]](set)
        for call, first in alike.items():
            steps[first].add(call[0])
        for event in self._reads:
            call = event["step"], event["item"]
            for step in steps[alike.get(call, call)] | {event["step"]}:
                self._read[step].append(event["t"])

    def missed(self, effect: Effect, made: Event) -> str:
        """What an effect, as it was `made`, did not wait for; empty where it waited for all."""
        if self._in_doubt(made):
            return "before a person had said whether it had happened"
        return next(self._missed(effect, made["t"]), "")

    def _in_doubt(self, made: Event) -> bool:
        """Whether its request came while a person was being asked whether that very call had happened.

        One that can be repeated safely need not wait for that.
        """
        tool = self._workflow.tools.get(made["tool"])
        request = self._requests.get(made["request"])
        if request is None or tool is None or tool.idempotency == "key":
            return False
        call = [request[key] for key in _CALL]
        asked = [
            event
            for event in self._asked
            if event["t"] < request["t"] and event["kind"] in _HALTS and [event[key] for key in _CALL] == call
        ]
        questions = {event["question"] for event in asked}
        said = [e["t"] for e in self._decided if e["question"] in questions and e["t"] < request["t"]]
        return any(event["kind"] == "in_doubt" and event["t"] > max(said, default=0.0) for event in asked)

    def _missed(self, effect: Effect, at: float) -> Iterator[str]:
        rests_on = _rests_on(self._workflow, effect.step)
        needed = {step for step in rests_on if self._workflow.steps[step].tool is not None}
        questions = rests_on - needed
        soonest = at
        """Of the effect and of every read that it rests on, each as late as it was before the effect: back to front."""
        for index in reversed(range(len(self._visits))):
            call = self._visits[index].call
            if self._place[call.step] >= self._place[effect.step]:
                continue
            if call.step in needed:
                before = [t for t in self._read[call.step] if t < at]
                if not before:
                    yield f"before {call.step} was read"
                    return
                soonest = min(soonest, before[-1])
            if call.step in questions and not self._judged(call.step, at):
                yield f"before {call.step} was answered"
                return
            if call.kind == "sleep" and soonest < self._over(index, at):
                yield f"{'before' if soonest == at else 'on what was read before'} {call.step} was over"
            if self._workflow.steps[call.step].until is not None and not self._settled(index, at):
                yield f"before {call.step} had come to what it waits for"

    def _judged(self, question: str, at: float) -> bool:
        """Whether the model had said by then what it makes of a question, so far as a reply tells what it is for.

        Who lets the model choose the calls asks no questions: a call that the plan has later shows that it was
        considered. In doubt it was: what the script has no place for, or a real model gave for another step, may be
        an answer to it, and so may what a fault left readable. An agent that never asks at all judges by itself.
        """
        return not self._asks_the_model or any(
            reply["t"] < at and self._may_answer(reply, question) for reply in self._replies
        )

    def _may_answer(self, reply: Event, question: str) -> bool:
        order = list(self._workflow.steps)
        step = reply["step"]
        if step not in order:
            return True
        if reply["wants"] == "answer":
            return bool(step == question and (not reply["damaged"] or _is_object(reply["message"].get("content"))))
        strayed = not reply["as_scripted"] and not reply["damaged"]
        return strayed or order.index(step) > order.index(question)

    def _over(self, timer: int, at: float) -> float:
        """When a timer can be over at the soonest: it began after the last write before it, or else after a read.

        A read that the plan has before a timer may well be made after it, and a write may not.
        """
        served: dict[bool, list[float]] = {True: [], False: []}
        for what, writes in self._calls[:timer]:
            first = self._first.get(what, at)
            served[writes] += [first] if first < at else []
        began = max(served[True]) if served[True] else min(served[False], default=0.0)
        seconds: float = self._visits[timer].call.arguments["seconds"]
        return began + seconds * TIME_SCALE * JUST_BEFORE

    def _settled(self, polled: int, at: float) -> bool:
        """Whether a poll before has shown what the step waits for. The results before it are the plan's own.

        A history that does not say what its polls have shown is believed.
        """
        step, known = self._visits[polled].call.step, _results(self._visits[:polled])
        polls = [event for event in self._reads if event["step"] == step and event["t"] < at]
        return any("result" not in p or shows_end(self._workflow.plan, step, known, p["result"]) for p in polls)


def _what(workflow: Workflow, step: str, tool: str, arguments: Mapping[str, Any]) -> str:
    return canonical([tool, workflow.literal(step, arguments)])


@cache
def _calls(workflow: Workflow, drifted: str | None) -> Sequence[tuple[str, bool]]:
    """What each call of a correct run is, and whether it writes."""
    calls, writes = [visit.call for visit in visits(workflow, drifted)], _writes(workflow)
    return [(_what(workflow, call.step, call.tool, call.arguments), call.step in writes) for call in calls]


@cache
def _rests_on(workflow: Workflow, step: str) -> frozenset[str]:
    """The reads and questions that a step's values, its condition or its freshness rest on, directly or not."""
    found: set[str] = set()
    left = {step}
    while left:
        name = left.pop()
        planned = step_named(workflow.plan, name)
        used = (step_names_used(planned) | set(planned.get("fresh", ()))) & workflow.steps.keys()
        left |= used - found
        found |= used
    return frozenset(
        name
        for name in found - _writes(workflow)
        if workflow.steps[name].tool is not None or workflow.steps[name].ask is not None
    )


def _is_object(text: object) -> bool:
    """Whether a reply's content can be read as a JSON object."""
    try:
        return isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False


def _writes(workflow: Workflow) -> set[str]:
    return {step.id for step in workflow.writes()}


def _results(before: Sequence[Visit]) -> Results:
    found: Results = {}
    for visit in before:
        found.setdefault(visit.call.step, {})[visit.call.item] = visit.value
    return found
