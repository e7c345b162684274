"""What has to come before an effect: the reads that it rests on, the jobs that are waited for, the timers. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from kintsugi.golden_workflows.plan import Results, places, shows_end, step_named, step_names_used
from kintsugi.golden_workflows.spec import Effect, Workflow
from kintsugi.golden_workflows.walk import Visit, visits
from kintsugi.harness.history import Event, of
from kintsugi.harness.identity import first_alike
from kintsugi.harness.session import TIME_SCALE
from kintsugi.runtime.rules import canonical

__all__ = ["Precedence"]

JUST_BEFORE = 0.95
"""The part of a timer that has to have gone by: clocks differ."""


class Precedence:
    """What came before each effect of one run, against what had to.

    `drifted` names the drift by whose plan the run is judged, if there is one. In doubt a run has waited: each call
    counts from when it was first served, one read of a loop stands for all, and a read may come before a job is done.
    """

    def __init__(self, workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> None:
        self._workflow = workflow
        self._visits = visits(workflow, drifted)
        self._place = places(workflow.plan)
        self._reads = of(events, "world", "read")
        self._first: dict[str, float] = {}
        """When each call was first served, by what it is: a drift may have it be another step's, or another item's."""
        requests = {event["request"]: event for event in of(events, "world", "request")}
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

    def missed(self, effect: Effect, at: float) -> str:
        """What an effect at a time of the history did not wait for; empty where it waited for all."""
        return next(self._missed(effect, at), "")

    def _missed(self, effect: Effect, at: float) -> Iterator[str]:
        needed = _rests_on(self._workflow, effect.step)
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
            if call.kind == "sleep" and soonest < self._over(index, at):
                yield f"{'before' if soonest == at else 'on what was read before'} {call.step} was over"
            if self._workflow.steps[call.step].until is not None and not self._settled(index, at):
                yield f"before {call.step} had come to what it waits for"

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
    """The steps that read what a step's values, its condition or its freshness rest on, directly or not."""
    found: set[str] = set()
    left = {step}
    while left:
        name = left.pop()
        planned = step_named(workflow.plan, name)
        used = (step_names_used(planned) | set(planned.get("fresh", ()))) & workflow.steps.keys()
        left |= used - found
        found |= used
    return frozenset(name for name in found - _writes(workflow) if workflow.steps[name].tool is not None)


def _writes(workflow: Workflow) -> set[str]:
    return {step.id for step in workflow.writes()}


def _results(before: Sequence[Visit]) -> Results:
    found: Results = {}
    for visit in before:
        found.setdefault(visit.call.step, {})[visit.call.item] = visit.value
    return found
