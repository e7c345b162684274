"""Judges halts: a stop for a person is right where nothing a program can do would tell, or a budget is spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import Halt

__all__ = ["judge_halts"]

SERVER_ERROR = 500
"""From this status on an answer does not tell whether a write happened."""
TOO_MANY_REQUESTS = 429
"""From this status on an answer is worth another try."""


def judge_halts(workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> Iterator[Halt]:
    """Every halt of a run, with whether the history justifies it and why. `events` are the run's."""
    for asked in of(events, "human", "asked"):
        if asked["kind"] == "approval":
            continue
        before = [event for event in events if event["t"] <= asked["t"]]
        if asked["kind"] == "in_doubt":
            justified, why = _in_doubt(workflow, asked, before)
        elif asked["kind"] == "budget":
            justified, why = _budget(workflow, asked, _since_the_last_repair(asked, before))
        elif asked["kind"] == "stale":
            moved = drifted is not None and bool(of(before, "world", "drift"))
            justified = moved and workflow.drifts[str(drifted)].outcome == "flag"
            why = "the drift is to be flagged" if justified else "nothing changed that is to be flagged"
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
    issued = _tries(asked, before)
    called = (tool.name, asked["arguments"])
    if any((event["tool"], event["arguments"]) == called for event in of(before, "doors", "request_of_the_dead")):
        return True, f"{tool.name} is opaque, and a call of it had left when its worker was killed"
    if not issued:
        return False, f"{tool.name} was never called"
    told = _told(before)
    statuses = {event["request"]: event["status"] for event in of(before, "world", "answer")}
    if all(event["request"] in told and statuses[event["request"]] < SERVER_ERROR for event in issued):
        return False, f"every call of {tool.name} was answered"
    return True, f"{tool.name} is opaque, and a call of it was never answered"


def _budget(workflow: Workflow, asked: Event, before: Sequence[Event]) -> tuple[bool, str]:
    """Justified where as many tries as the policy allows went without a usable answer."""
    policy = workflow.policy
    if asked["tool"]:
        told = _told(before)
        good = {e["request"] for e in of(before, "world", "answer") if e["status"] < TOO_MANY_REQUESTS}
        failed = sum(event["request"] not in good & told for event in _tries(asked, before))
        return _enough(failed, policy.attempts, f"tries of {asked['tool']}")
    asks = of(before, "gateway", "ask")
    if len(asks) >= policy.model_calls_max:
        return True, f"{len(asks)} model calls, the budget of the run"
    told = {event["request"] for event in of(before, "gateway", "delivered") if event["delivered"]}
    replies = {e["request"]: e for e in of(before, "gateway", "reply") if e["request"] in told}
    malformed = unanswered = 0
    for ask in reversed(asks):
        reply = replies.get(ask["request"])
        other = (ask["step"], ask["item"]) != (asks[-1]["step"], asks[-1]["item"])
        if other or (reply is not None and reply["as_scripted"]):
            break
        malformed += reply is not None
        unanswered += reply is None
    if unanswered >= policy.attempts:
        return _enough(unanswered, policy.attempts, "asks of the model")
    return _enough(malformed, policy.malformed_attempts, "replies of the model")


def _since_the_last_repair(asked: Event, before: Sequence[Event]) -> Sequence[Event]:
    """The events after a person last answered a spent budget of the same step, from when on it counts anew."""
    repairs = [e for e in of(before, "human", "decided") if (e["kind"], e["step"]) == ("budget", asked["step"])]
    return [event for event in before if not repairs or event["t"] > repairs[-1]["t"]]


def _tries(asked: Event, before: Sequence[Event]) -> list[Event]:
    """The requests that made the call which is asked about."""
    called = (asked["tool"], asked["arguments"])
    return [event for event in of(before, "world", "request") if (event["tool"], event["arguments"]) == called]


def _told(before: Sequence[Event]) -> set[int]:
    """The requests of the world whose answer reached a worker that lived to do something with it.

    An answer right after which its worker was killed may never have been read.
    """
    unread = {event.get("request") for event in of(before, "nemesis", "injected") if event["is_"].endswith("@after")}
    return {event["request"] for event in of(before, "world", "delivered") if event["delivered"]} - unread


def _enough(count: int, budget: int, what: str) -> tuple[bool, str]:
    if count >= budget:
        return True, f"{count} {what} came to nothing, the budget is {budget}"
    return False, f"only {count} {what} had come to nothing, the budget is {budget}"
