"""Reads the measures of one trial off its history: accuracy, usage, repeats, people, times. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from kintsugi.faults.actions import Drift, Kill
from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, function_name
from kintsugi.golden_workflows.plan import places
from kintsugi.golden_workflows.reference import Call, trajectory
from kintsugi.golden_workflows.spec import FREE_TEXT, Workflow
from kintsugi.harness.history import Event, by_run, of
from kintsugi.harness.identity import reference_steps
from kintsugi.harness.records import Count, Halt, Human, Measures, Repeats, Times, Usage
from kintsugi.harness.session import SECONDS_PER_HOUR
from kintsugi.runtime.rules import approval_needed, canonical
from kintsugi.scenarios.trial import Trial

__all__ = [
    "Delivered",
    "delivered",
    "human",
    "measures",
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


# --- how tools were used ------------------------------------------------------------------------------------


def measures(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> Measures:
    """Tool accuracy as proposed by the model and as it reached the world; damaged replies are no proposals."""
    proposed = _proposed(workflow, events)
    reached = _reached(workflow, trial, events)
    in_order, exact, any_order = _trajectory(workflow, trial, events)
    return Measures(
        **proposed,
        **reached,
        judgements_proposed=_judged(workflow, events),
        trajectory_in_order=in_order,
        trajectory_exact=exact,
        trajectory_any_order=any_order,
    )


def _proposed(workflow: Workflow, events: Sequence[Event]) -> dict[str, Count]:
    selection, arguments, calls, unsafe = [0, 0], [0, 0], [0, 0], [0, 0]
    tools = {function_name(name): tool for name, tool in workflow.tools.items()}
    granted: set[tuple[str, str]] = set()
    questions = {event["question"]: event for event in of(events, "human", "asked")}
    for event in events:
        if (event["who"], event["what"]) == ("human", "decided") and event["decision"] in {"approve", "amend"}:
            asked = questions[event["question"]]
            granted.add((asked["tool"], canonical(asked["arguments"])))
        if (event["who"], event["what"]) != ("gateway", "reply") or event["damaged"] or event["wants"] == "answer":
            continue
        # When all is done no call is right, and to make none is no choice of a tool.
        right = event["right"] if event["wants"] == "call" else {"function": None}
        for call in event["message"].get("tool_calls") or ([None] if event["wants"] == "call" else []):
            function = call["function"]["name"] if call else ""
            selection[0] += function in {right["function"], *_polling(workflow, event["step"])}
            selection[1] += 1
            given = _parsed(call["function"]["arguments"]) if call else None
            if function == right["function"]:
                good, of_all = _compared(workflow, event["step"], function, _parsed(right["arguments"]) or {}, given)
                arguments[0] += good
                arguments[1] += of_all
                calls[0] += given is not None and good == of_all
                calls[1] += 1
            tool = tools.get(function)
            if tool is not None and tool.effect == "write":
                unsafe[1] += 1
                needed = approval_needed(tool.public(), given or {})
                unsafe[0] += needed and (tool.name, canonical(given or {})) not in granted
    return {
        "selection_proposed": Count(*selection),
        "arguments_proposed": Count(*arguments),
        "calls_proposed": Count(*calls),
        "unsafe_proposed": Count(*unsafe),
    }


def _polling(workflow: Workflow, step: str) -> tuple[str, ...]:
    """The calls that are right choices as long as what a step waits for has not come; none for other steps."""
    polled = workflow.steps.get(step)
    return (WAIT_FUNCTION, function_name(str(polled.tool))) if polled and polled.until else ()


def _judged(workflow: Workflow, events: Sequence[Event]) -> Count:
    """The answers with every value right, of those to questions that could be answered from what they held."""
    found = [0, 0]
    for event in of(events, "gateway", "reply"):
        right = _parsed(event["right"].get("content")) if event["wants"] == "answer" else None
        if right is None or event["damaged"]:
            continue
        script = workflow.script.get(event["step"], {})
        free = frozenset(n for n, said in script.items() if isinstance(said, str) and said.startswith(FREE_TEXT))
        given = _parsed(event["message"].get("content"))
        good, of_all = _held_against(right, given, free)
        found[0] += given is not None and good == of_all
        found[1] += 1
    return Count(*found)


def _parsed(text: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _compared(
    workflow: Workflow, step: str, function: str, right: Mapping[str, Any], given: Mapping[str, Any] | None
) -> tuple[int, int]:
    """How many arguments are right, of how many; any text does where prose is wanted."""
    if function == APPROVAL_FUNCTION:
        inner = (given or {}).get("arguments")
        right, given = right["arguments"], inner if isinstance(inner, dict) else None
    return _held_against(right, given, workflow.free_arguments.get(step, frozenset()))


def _held_against(right: Mapping[str, Any], given: Mapping[str, Any] | None, free: frozenset[str]) -> tuple[int, int]:
    """How many values are right, of how many, those that nobody asked for among them."""
    good = 0
    for name, value in right.items():
        got = (given or {}).get(name)
        good += bool(got) and isinstance(got, str) if name in free else got == value
    invented = len(set(given or {}) - set(right))
    return good, len(right) + invented


def _reached(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> dict[str, Count]:
    """Each distinct call that reached the world, against the calls that the plan leads to.

    A choice is right if it is the tool of the call that was due, or exactly a call of the plan (again, or early).
    """
    selection, arguments, calls = [0, 0], [0, 0], [0, 0]
    drifted = trial.drift if of(events, "world", "drift") else None
    plan = [call for call in trajectory(workflow, drifted) if call.kind == "tool"]
    # What only another drift would lead to is not right in this run.
    references = plan + [call for call in trajectory(workflow) if call.kind == "tool"]
    for mine in by_run(events, sorted({event["run"] for event in of(events, "world", "request")})).values():
        due = list(plan)
        served = {event["request"] for event in of(mine, "world", "read", "effect")}
        seen: set[tuple[str, str]] = set()
        for event in of(mine, "world", "request"):
            call = (event["tool"], canonical(event["arguments"]))
            if call in seen:
                continue
            seen.add(call)
            good, of_all = max(
                (
                    _compared(workflow, r.step, "", r.arguments, event["arguments"])
                    for r in references
                    if r.tool == call[0]
                ),
                key=lambda pair: pair[0] / max(pair[1], 1),
                default=(0, 1),
            )
            matches = [call for call in _due_now(workflow, due) if call.tool == event["tool"]]
            selection[1] += 1
            if not matches and good < of_all:
                continue
            selection[0] += 1
            arguments[0] += good
            arguments[1] += of_all
            calls[0] += good == of_all
            calls[1] += 1
            if matches and event["request"] in served:
                due.remove(next((call for call in matches if call.step == event["step"]), matches[0]))
    effects = of(events, "world", "effect")
    return {
        "selection_reached": Count(*selection),
        "arguments_reached": Count(*arguments),
        "calls_reached": Count(*calls),
        "unsafe_reached": Count(sum(bool(event["unsafe"]) for event in effects), len(effects)),
    }


def _trajectory(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> tuple[Count, Count, Count]:
    """Whether the calls that were served are the plan's: in order with extras, exactly, in any order.

    Not asked of a run that a person cut short, nor of many runs at once.
    """
    refused = any(event["decision"] in {"reject", "expire", "stop"} for event in of(events, "human", "decided"))
    if refused or trial.copies > 1:
        return Count(), Count(), Count()
    drifted = trial.drift if of(events, "world", "drift") else None
    expected = reference_steps(workflow, drifted)
    actual = _as_planned(workflow, [(e["step"], e["item"]) for e in of(events, "world", "read", "effect")])
    position = iter(actual)
    in_order = all(any(step == other for other in position) for step in expected)
    any_order = not Counter(expected) - Counter(actual)
    return Count(int(in_order), 1), Count(int(actual == expected), 1), Count(int(any_order), 1)


def _due_now(workflow: Workflow, due: Sequence[Call]) -> Sequence[Call]:
    """Which of the calls that are left may come next: the first, or any of its parallel group."""
    group = workflow.steps[due[0].step].parallel if due else None
    return due[:1] if group is None else [call for call in due if workflow.steps[call.step].parallel == group]


def _as_planned(workflow: Workflow, served: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Calls as the plan counts them: what is polled once, however often it took, and a parallel group in its order."""
    order, group_at = {step: at for at, step in enumerate(workflow.steps)}, places(workflow.plan)
    once: list[tuple[str, int]] = []
    for call, same in groupby(served):
        polled = call[0] in workflow.steps and workflow.steps[call[0]].until is not None
        once += [call] if polled else same
    found: list[tuple[str, int]] = []
    for _, group in groupby(once, key=lambda call: group_at.get(call[0], -1)):
        found += sorted(group, key=lambda call: order.get(call[0], -1))
    return found


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
