"""Reads the measures of one trial off its history: usage, repeats, people, times. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.faults.actions import Drift, Kill
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, by_run, of
from kintsugi.harness.records import Halt, Human, Repeats, Times, Usage
from kintsugi.harness.session import SECONDS_PER_HOUR
from kintsugi.scenarios.trial import Trial

__all__ = [
    "Delivered",
    "delivered",
    "human",
    "repeats",
    "resumed_exactly",
    "times",
    "usage",
    "without_polls",
]

Delivered = Mapping[tuple[str, str, int], int]
"""For each (kind, step, item) the number of answers that reached the SUT."""
Allowed = Mapping[tuple[str, str, int], float]
"""For each (kind, step, item) how often it may be done before it is a repeat."""


# --- what was used, and used again --------------------------------------------------------------------------


def usage(workflow: Workflow, events: Sequence[Event]) -> Usage:
    """Model calls and tokens as generated, tool calls as served, CPU as the kernel accounts it at the reaping."""
    generated = of(events, "gateway", "generated")
    served = of(events, "world", "read", "effect")
    by_request = {event["request"]: event["tool"] for event in of(events, "world", "request")}
    price = {name: tool.price_usd for name, tool in workflow.tools.items()}
    return Usage(
        model_calls=len(of(events, "gateway", "ask")),
        prompt_tokens=sum(event["prompt_tokens"] for event in generated),
        cached_prompt_tokens=sum(event["cached_prompt_tokens"] for event in generated),
        completion_tokens=sum(event["completion_tokens"] for event in generated),
        estimated_calls=sum(event.get("estimated", True) for event in generated),
        tool_calls=len(by_request),
        tool_usd=sum(price[by_request[event["request"]]] for event in served),
        cpu_seconds=sum(event["cpu_seconds"] for event in of(events, "runner", "used")),
    )


def delivered(events: Sequence[Event]) -> Delivered:
    """How many answers of each boundary reached the SUT; damaged replies and refusals are no answers."""
    told = {(e["who"], e["request"]) for e in events if e["what"] == "delivered" and e.get("delivered")}
    good = {e["request"] for e in of(events, "world", "answer") if e["status"] == 200}
    counts: Counter[tuple[str, str, int]] = Counter()
    for event in of(events, "world", "request"):
        if ("world", event["request"]) in told and event["request"] in good:
            counts["tool", event["step"], event["item"]] += 1
    for event in of(events, "gateway", "reply"):
        if ("gateway", event["request"]) in told and event["as_scripted"]:
            counts["model", event["step"], event["item"]] += 1
    for event in of(events, "human", "asked"):
        if event["kind"] == "approval":
            counts["human", event["step"], event["item"]] += 1
    return counts


def without_polls(workflow: Workflow, clean: Delivered) -> Allowed:
    """What may be done before it counts as done again: as in the clean run, and polls without bound.

    How often a job is looked at depends on when it is done, and not on what a fault made the SUT do once more.
    """
    polled = [step.id for step in workflow.steps.values() if step.until]
    return {**clean, **{(kind, step, 0): math.inf for step in polled for kind in ("tool", "model")}}


def repeats(events: Sequence[Event], clean: Allowed) -> Repeats:
    """What was done again: calls served and replies generated beyond those of the clean run, answered or not."""
    seen: Counter[tuple[str, tuple[str, str, int]]] = Counter()
    requests = {event["request"]: event for event in of(events, "world", "request")}
    model = tools = prompt = completion = 0
    for event in events:
        what = (event["who"], event["what"])
        replayed = what == ("world", "answer") and event["replayed"]
        if what in {("world", "read"), ("world", "effect")} or replayed:
            origin = event if "step" in event else requests[event["request"]]
            key = ("tool", origin["step"], origin["item"])
            seen[event["run"], key] += 1
            tools += seen[event["run"], key] > clean.get(key, 0)
        elif what == ("gateway", "generated"):
            key = ("model", event["step"], event["item"])
            seen[event["run"], key] += 1
            if seen[event["run"], key] > clean.get(key, 0):
                model += 1
                prompt += event["prompt_tokens"]
                completion += event["completion_tokens"]
    return Repeats(model, tools, prompt + completion, completion)


def resumed_exactly(trial: Trial, events: Sequence[Event], clean: Allowed) -> bool | None:
    """Whether, after its worker died, the run did nothing again that had been answered; None where none died."""
    if not any(isinstance(a, Kill) for a in trial.actions) or any(isinstance(a, Drift) for a in trial.actions):
        return None
    each = by_run(events, (f"r{n}" for n in range(trial.copies)))
    return not any(n > clean.get(key, 0) for mine in each.values() for key, n in delivered(mine).items())


# --- people and times ---------------------------------------------------------------------------------------


def human(events: Sequence[Event], halts: tuple[Halt, ...]) -> Human:
    """What people were asked and decided. Hours are those of the workflow."""
    asked = {event["question"]: event for event in of(events, "human", "asked") if event["kind"] == "approval"}
    decided = [event for event in of(events, "human", "decided") if event["question"] in asked]
    hours = tuple(round((e["t"] - asked[e["question"]]["t"]) / SECONDS_PER_HOUR, 3) for e in decided)
    return Human(
        checkpoints=len(asked),
        re_asked=sum(bool(event["re_asked"]) for event in asked.values()),
        decisions=len(decided),
        overrides=sum(event["decision"] in {"reject", "amend"} for event in decided),
        approval_hours=hours,
        halts=halts,
    )


def times(events: Sequence[Event]) -> Times:
    """Wall seconds of the run, and from the (first) fault to detection, to progress and to the end."""
    submitted = of(events, "runner", "submitted")
    reports = of(events, "human", "end_report")
    started = submitted[0]["t"] if submitted else 0.0
    wall = (reports[-1]["t"] if reports else events[-1]["t"]) - started if events else 0.0
    # What was stopped is witnessed only when it has been continued.
    struck = of(events, "nemesis", "stopped", "witnessed")
    if not struck:
        return Times(wall=round(wall, 4))
    fault = struck[0]["t"]
    crossings = [e for e in events if e["what"] in {"request", "ask", "asked", "end_report"} and "generation" in e]
    known = {_identity(event) for event in crossings if event["t"] <= fault}
    later = [event for event in crossings if event["t"] > fault]
    new = [event["t"] for event in later if _identity(event) not in known]
    return Times(
        wall=round(wall, 4),
        detect=round(later[0]["t"] - fault, 4) if later else None,
        progress=round(new[0] - fault, 4) if new else None,
        end=round(reports[-1]["t"] - fault, 4) if reports and reports[-1]["t"] > fault else None,
    )


def _identity(event: Event) -> tuple[Any, ...]:
    return (event["run"], event["who"], event["what"], event["step"], event["item"])
