"""Judges halts: a stop for a person is right where nothing a program can do would tell, or a budget is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kintsugi.golden_workflows.plan import places
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, arrived, of
from kintsugi.harness.records import Halt

__all__ = ["judge_halts"]

SERVER_ERROR = 500
"""From this status on an answer does not tell whether a write happened."""
MODEL = "/v1/chat/completions"
"""The path of every request to the model."""
UNREAD_SECONDS = 0.1
"""An answer that came no longer before its worker was killed may not have been recorded."""
TOO_MANY_REQUESTS = 429
"""From this status on an answer is worth another try."""


def judge_halts(workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> Iterator[Halt]:
    """Every halt of a run, with whether the history justifies it and why. `events` are the run's."""
    excused: dict[int, Event] = {}
    for asked in of(events, "human", "asked"):
        if asked["kind"] == "approval":
            continue
        before = [event for event in events if event["t"] <= asked["t"]]
        if asked["kind"] == "in_doubt":
            justified, why = _in_doubt(workflow, asked, before)
            strike = None if justified else _swallowed(workflow, asked, events, excused)
            if strike is not None:
                excused.setdefault(strike, asked)
                why = "is opaque, and a request had gone into a connection that its service had closed"
                justified, why = True, f"{asked['tool']} {why}"
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
    since = _since_it_was_settled(asked, before)
    issued = _tries(asked, since)
    if left := _left_unserved(asked, before, since):
        return True, f"{tool.name} is opaque, and {left}"
    if not issued and _ends_beside(workflow, asked["step"], since):
        return True, f"{tool.name} is opaque, and its worker was brought down in the midst of its parallel group"
    if not issued:
        never = "was never called" if since == before else "was not called since a person had said what came of it"
        return False, f"{tool.name} {never}"
    unbelievable = _unbelievable(before)
    told = _told(workflow, before) - unbelievable
    statuses = {event["request"]: event["status"] for event in of(before, "world", "answer")}
    if all(event["request"] in told and statuses[event["request"]] < SERVER_ERROR for event in issued):
        return False, f"every call of {tool.name} was answered"
    if any(event["request"] in unbelievable for event in issued):
        return True, f"{tool.name} is opaque, and an answer of it broke what it declares"
    return True, f"{tool.name} is opaque, and a call of it was never answered"


def _budget(workflow: Workflow, asked: Event, before: Sequence[Event]) -> tuple[bool, str]:
    """Justified where as many tries as the policy allows went without a usable answer.

    A try that came sooner than Retry-After had said is none: it could only be turned away.
    """
    policy = workflow.policy
    hasty = {event["request"] for event in of(before, "nemesis", "too_soon")}
    if asked["tool"]:
        told = _told(workflow, before) - _unbelievable(before)
        good = {e["request"] for e in of(before, "world", "answer") if e["status"] < TOO_MANY_REQUESTS}
        failed = sum(event["request"] not in (good & told) | hasty for event in _tries(asked, before))
        failed += _cut_off(before, asked["tool"], asked["arguments"])
        if failed < policy.attempts and _unseen(asked, before):
            return True, "its worker's node was off its network, where nobody counts its tries"
        return _enough(failed, policy.attempts, f"tries of {asked['tool']}")
    asks = of(before, "gateway", "ask")
    if len(asks) >= policy.model_calls_max:
        return True, f"{len(asks)} model calls, the budget of the run"
    told = arrived(before, "gateway")
    replies = {e["request"]: e for e in of(before, "gateway", "reply") if e["request"] in told}
    malformed = unanswered = 0
    for ask in reversed(asks):
        reply = replies.get(ask["request"])
        other = (ask["step"], ask["item"]) != (asks[-1]["step"], asks[-1]["item"])
        if other or (reply is not None and reply["as_scripted"]):
            break
        malformed += reply is not None
        unanswered += reply is None and ask["request"] not in hasty
    heard = [ask["t"] for ask in asks if ask["request"] in replies and replies[ask["request"]]["as_scripted"]]
    unanswered += _cut_off([event for event in before if event["t"] > max(heard, default=0.0)], MODEL)
    if max(malformed, unanswered) < policy.attempts and _unseen(asked, before):
        return True, "its worker's node was off its network, where nobody counts its tries"
    if unanswered >= policy.attempts:
        return _enough(unanswered, policy.attempts, "asks of the model")
    return _enough(malformed, policy.malformed_attempts, "replies of the model")


def _since_the_last_repair(asked: Event, before: Sequence[Event]) -> Sequence[Event]:
    """The events after a person last answered a spent budget of the same step, from when on it counts anew."""
    repairs = [e for e in of(before, "human", "decided") if (e["kind"], e["step"]) == ("budget", asked["step"])]
    return [event for event in before if not repairs or event["t"] > repairs[-1]["t"]]


def _since_it_was_settled(asked: Event, before: Sequence[Event]) -> Sequence[Event]:
    """The events after the SUT was last told by a person whether this very call had happened; all where it never was.

    What it was told while its disk was full could not be kept; nor what came the moment before its worker was killed
    for what another run did.
    """
    called = (asked["tool"], asked["arguments"])
    settled = {
        event["question"]
        for event in of(before, "human", "asked")
        if event["kind"] in {"in_doubt", "budget"} and (event["tool"], event["arguments"]) == called
    }
    several = any(event["runs"] > 1 for event in of(before, "runner", "submitted"))
    kills = [event["t"] for event in of(before, "nemesis", "witnessed") if "pid" in event] if several else []
    since, full = 0, False
    decided: dict[str, int] = {}
    known: set[str] = set()
    for index, event in enumerate(before):
        what = (event["who"], event["what"])
        if what in {("nemesis", "filled"), ("nemesis", "freed")}:
            full = event["what"] == "filled"
        elif what == ("human", "decided"):
            decided.setdefault(event["question"], index)
        told = what == ("human", "delivered") and event["question"] in settled - known and not full
        if told and not any(0 <= kill - event["t"] < UNREAD_SECONDS for kill in kills):
            # A SUT may act on it as soon as it is durable, which is before that is acknowledged.
            since = decided[event["question"]] + 1
            known.add(event["question"])
    return before[since:]


def _tries(asked: Event, before: Sequence[Event]) -> list[Event]:
    """The requests that made the call which is asked about."""
    called = (asked["tool"], asked["arguments"])
    return [event for event in of(before, "world", "request") if (event["tool"], event["arguments"]) == called]


def _left_unserved(asked: Event, before: Sequence[Event], since: Sequence[Event]) -> str:
    """How the call that is asked about may have left its worker without being served; empty where it can't have.

    `since` are those of the events that came after it was settled.
    """
    called = (asked["tool"], asked["arguments"])
    if any((event["tool"], event["arguments"]) == called for event in of(since, "doors", "request_of_the_dead")):
        return "a call of it had left when its worker was killed"
    if _cut_off(since, *called) or _unseen(asked, before):
        return "its worker's node was cut off"
    return ""


def _cut_off(events: Sequence[Event], tool: str, arguments: object = None) -> int:
    """How many such requests (to the model: any) were kept from their service, since their node was cut off."""
    kept = [event for event in of(events, "doors", "cut_off") if event["tool"] == tool]
    return sum(tool == MODEL or event["arguments"] == arguments for event in kept)


def _swallowed(workflow: Workflow, asked: Event, events: Sequence[Event], excused: Mapping[int, Event]) -> int | None:
    """The strike by which a call may have been sent into a connection closed at the other end, where nobody counts it.

    None where the call is no opaque write, or did arrive. Such a connection swallows one request, and so excuses one
    halt, asked for as often as it may be until it is answered (`excused`: those before); and a run that has gone on
    since has lost another one.
    """
    tool = workflow.tools.get(asked["tool"])
    before = [event for event in events if event["t"] <= asked["t"]]
    if tool is None or tool.effect != "write" or tool.idempotency != "none":
        return None
    if _tries(asked, _since_it_was_settled(asked, before)):
        return None
    seen = {event["strike"] for event in of(events, "nemesis", "witnessed") if event.get("swallowed_bytes")}
    decided = {event["question"] for event in of(before, "human", "decided")}
    alike = [event for event in of(before, "human", "asked") if _call(event) == _call(asked)]
    for closed in of(before, "nemesis", "half_open"):
        earlier = excused.get(closed["strike"], asked)
        still = earlier in alike and not any(e["question"] in decided for e in alike if e["t"] >= earlier["t"])
        if closed["strike"] in seen and still and not _went_on(workflow, closed, asked, before):
            return int(closed["strike"])
    return None


def _call(asked: Event) -> tuple[str, object]:
    return asked["tool"], asked["arguments"]


def _went_on(workflow: Workflow, closed: Event, asked: Event, before: Sequence[Event]) -> bool:
    """Whether the run has come further in its plan since a connection was closed, other than beside what is asked."""
    place = places(workflow.plan)
    answered = {event["request"] for event in of(before, "world", "answer") if event["status"] < TOO_MANY_REQUESTS}
    planned = [event for event in of(before, "world", "request") if event["step"] in place]
    furthest = max((place[event["step"]] for event in planned if event["t"] <= closed["t"]), default=-1)
    since = [event for event in planned if event["t"] > closed["t"] and event["request"] in answered]
    beside = place.get(asked["step"])
    return any(place[event["step"]] not in {beside, *range(furthest + 1)} for event in since)


def _unseen(asked: Event, before: Sequence[Event]) -> bool:
    """Whether the node of who asks was cut off so that what it tried meanwhile never left it."""
    cuts = of(before, "nemesis", "cut_off")
    return any(event["unseen"] and event["generation"] == asked["generation"] for event in cuts)


def _told(workflow: Workflow, before: Sequence[Event]) -> set[int]:
    """The requests of the world whose answer reached a worker that lived to do something with it.

    An answer right after which its worker was killed may never have been read, and one that came while the disk was
    full could not be kept.
    """
    told: set[int] = set()
    full = False
    for event in before:
        if event["who"] == "nemesis" and event["what"] in {"filled", "freed"}:
            full = event["what"] == "filled"
        elif (event["who"], event["what"]) == ("world", "delivered") and event["delivered"] and not full:
            told.add(event["request"])
    unread = {event.get("request") for event in of(before, "nemesis", "injected") if event["is_"].endswith("@after")}
    unread |= _lost_beside_another(before) | _lost_in_a_group(workflow, before)
    return told - unread


def _lost_beside_another(before: Sequence[Event]) -> set[int]:
    """The requests that were answered as, or just before, their worker was killed for what another of its runs did."""
    asked = {event["request"]: event for event in of(before, "world", "request")}
    mine = {event["request"] for event in before if "run" in event and "request" in event}
    answered = [e for e in of(before, "world", "delivered") if e["delivered"] and e["request"] in asked]
    return {
        e["request"]
        for struck, end in _ends(before)
        if end["what"] == "witnessed" and struck.get("request") not in {None, *mine}
        for e in answered
        # However long it takes until it is seen to be dead.
        if asked[e["request"]]["generation"] == end["generation"] and struck["t"] - UNREAD_SECONDS < e["t"] <= end["t"]
    }


def _ends(events: Sequence[Event]) -> Iterator[tuple[Event, Event]]:
    """Each death or halt of a worker that a strike has brought about, after the injection that it is of.

    A strike may meet a second worker before the first is seen to be dead: so an end is of the request that it names.
    """
    begun: list[Event] = []
    for event in of(events, "nemesis", "injected", "witnessed", "stopped"):
        if event["what"] == "injected":
            begun.append(event)
        elif "pid" in event:
            mine = [one for one in begun if one["strike"] == event["strike"]]
            named = [one for one in mine if one.get("request") == event.get("request")]
            if mine:
                yield (named or mine)[-1], event


def _lost_in_a_group(workflow: Workflow, before: Sequence[Event]) -> set[int]:
    """The requests that were answered as their worker was brought down for another step of their parallel group."""
    asked = {event["request"]: event for event in of(before, "world", "request")}
    answered = [(e["t"], asked[e["request"]]) for e in of(before, "world", "delivered") if e["delivered"]]
    return {
        request["request"]
        for t, request in answered
        for struck, generation in _ends_beside(workflow, request["step"], before)
        if request["generation"] == generation and t > struck - UNREAD_SECONDS
    }


def _ends_beside(workflow: Workflow, step: str, events: Sequence[Event]) -> list[tuple[float, int]]:
    """When which worker generation was killed or stopped for another step of the parallel group that a step is in."""
    group = workflow.steps[step].parallel if step in workflow.steps else None
    if group is None:
        return []
    others = {other.id for other in workflow.steps.values() if other.parallel == group} - {step}
    asked = {event["request"]: event["step"] for event in of(events, "world", "request")}
    return [(s["t"], end["generation"]) for s, end in _ends(events) if asked.get(s.get("request")) in others]


def _unbelievable(before: Sequence[Event]) -> set[int]:
    """The requests whose answer broke what the tool declares: nothing may be built on such a one."""
    return {event["request"] for event in of(before, "world", "tampered") if event["breaks"]}


def _enough(count: int, budget: int, what: str) -> tuple[bool, str]:
    if count >= budget:
        return True, f"{count} {what} came to nothing, the budget is {budget}"
    return False, f"only {count} {what} had come to nothing, the budget is {budget}"
