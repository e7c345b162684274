"""Judges halts: a stop for a person is right where nothing a program can do would tell, or a declared budget is spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import Halt

__all__ = ["judge_halts"]


def judge_halts(workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> Iterator[Halt]:
    """Every halt of a run, with whether the history justifies it and why. `events` are the run's."""
    for asked in of(events, "human", "asked"):
        if asked["kind"] == "approval":
            continue
        before = [event for event in events if event["t"] <= asked["t"]]
        if asked["kind"] == "in_doubt":
            justified, why = _in_doubt(workflow, asked, before)
        elif asked["kind"] == "budget":
            justified, why = _budget(workflow, asked, before)
        elif asked["kind"] == "stale":
            flagged = drifted is not None and workflow.drifts[drifted].outcome == "flag"
            justified, why = flagged, "the drift is to be flagged" if flagged else "nothing changed that is to be flagged"
        else:
            justified, why = False, f"the workflow asks for no {asked['kind']}"
        yield Halt(asked["kind"], asked["step"], justified, why)


def _in_doubt(workflow: Workflow, asked: Event, before: Sequence[Event]) -> tuple[bool, str]:
    """Justified where the tool is opaque, the request was issued, and no answer to it reached a living worker."""
    tool = workflow.tools.get(asked["tool"])
    if tool is None or tool.effect != "write":
        return False, "it concerns no write"
    if tool.idempotency != "none":
        return False, f"{tool.name} can be repeated safely (idempotency {tool.idempotency!r})"
    issued = [e for e in of(before, "world", "request") if (e["tool"], e["arguments"]) == (tool.name, asked["arguments"])]
    if not issued:
        return False, f"{tool.name} was never called"
    told = {event["request"] for event in of(before, "world", "delivered") if event["delivered"]}
    answered = {e["request"] for e in of(before, "world", "answer") if e["request"] in told and e["status"] < 500}
    if all(event["request"] in answered for event in issued):
        return False, f"every call of {tool.name} was answered"
    return True, f"{tool.name} is opaque, and a call of it was never answered"


def _budget(workflow: Workflow, asked: Event, before: Sequence[Event]) -> tuple[bool, str]:
    """Justified where as many tries as the policy allows went without a usable answer."""
    policy = workflow.policy
    if asked["tool"]:
        told = {event["request"] for event in of(before, "world", "delivered") if event["delivered"]}
        good = {e["request"] for e in of(before, "world", "answer") if e["status"] < 429 and e["request"] in told}
        tries = [e for e in of(before, "world", "request") if (e["tool"], e["arguments"]) == (asked["tool"], asked["arguments"])]
        failed = sum(event["request"] not in good for event in tries)
        return _enough(failed, policy.attempts, f"tries of {asked['tool']}")
    asks = of(before, "gateway", "ask")
    if len(asks) >= policy.model_calls_max:
        return True, f"{len(asks)} model calls, the budget of the run"
    bad = [e for e in of(before, "gateway", "reply") if not e["as_scripted"]]
    unanswered = len(asks) - len(of(before, "gateway", "reply"))
    return _enough(len(bad) + unanswered, min(policy.malformed_attempts, policy.attempts), "asks of the model")


def _enough(count: int, budget: int, what: str) -> tuple[bool, str]:
    if count >= budget:
        return True, f"{count} {what} came to nothing, the budget is {budget}"
    return False, f"only {count} {what} had come to nothing, the budget is {budget}"
