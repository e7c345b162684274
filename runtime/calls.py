"""What is known of one durable call, folded from its journal events, and what is to be done next. Pure.

A live call and one that is replayed after a crash go through the same fold, event by event, so that they
can't come to different conclusions. The events of a call, by kind:

    ``intent``   a write is about to be sent: ``digest`` and the call itself
    ``failed``   an attempt came to nothing: ``act`` (send, look, ask), ``outcome`` (refused, unknown,
                 rejected), ``problem``, ``in_doubt`` (an effect may have happened), ``not_before``
    ``absent``   the effect was looked for by its client reference, and is not there
    ``asked``    a person was asked: ``request_id``, ``question``
    ``decided``  the person's decision on the last question
    ``result``   the end of a tool call: ``digest``, ``reply``
    ``reply``    the end of a model call: ``digest``, ``message``
    ``timer``, ``time``  the end of a timer (``until``) or of a look at the clock (``unix_seconds``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kintsugi.runtime.policy import Policy
from kintsugi.runtime.rules import first_move
from kintsugi.runtime.store import Event

__all__ = ["MODEL_CALLS", "Call", "advance", "asks_made", "next_for_model", "next_for_tool", "reopened"]

Json = Mapping[str, Any]

MODEL_CALLS = "model_calls_max"
"""The name, in a budget halt's evidence, of the budget of the whole run."""


@dataclass(frozen=True)
class Call:
    """One durable call as far as its events tell; times are Unix seconds of the run's clock."""

    digest: str = ""
    """Of the request, so that a replay that asks for something else is noticed; empty if nothing is known."""
    in_doubt: bool = False
    """Whether an attempt was begun that may have had its effect."""
    sends_failed: int = 0
    looks_failed: int = 0
    rejected: int = 0
    """Attempts within the present budget; a person's yes to going on begins a fresh one."""
    problem: str = ""
    """Why the last attempt failed, or the last answer could not be used."""
    rejection: str = ""
    """Why the last reply of the model was turned down: what it has to be told."""
    not_before: float = 0.0
    questions: int = 0
    """How often a person was asked."""
    question: Json | None = None
    """The question that is open: ``request_id`` and ``question``."""
    decision: Json | None = None
    """The last decision."""
    end: Json | None = None
    """The data of the event that ended the call."""
    began: bool = False
    attempts: tuple[Json, ...] = ()
    """Every attempt that failed, as evidence for a person."""


def advance(call: Call, event: Event) -> Call:
    """The call after one more of its events; kinds that are not a call's change nothing."""
    data = event.data
    call = replace(call, began=True, digest=data.get("digest", call.digest))
    match event.kind:
        case "intent":
            call = replace(call, in_doubt=True)
        case "failed":
            call = _after_failure(call, event)
        case "absent":
            call = replace(call, in_doubt=False, looks_failed=0)
        case "asked":
            call = replace(call, question=data, questions=call.questions + 1)
        case "decided":
            call = _after_decision(call, data)
        case "result" | "reply" | "timer" | "time":
            call = replace(call, end=data, question=None)
    return call


def _after_failure(call: Call, event: Event) -> Call:
    data = event.data
    rejected = data["outcome"] == "rejected"
    sent = data["act"] != "look" and not rejected
    kept = {key: data[key] for key in ("act", "outcome", "problem", "status") if key in data}
    return replace(
        call,
        in_doubt=data["in_doubt"],
        sends_failed=call.sends_failed + sent,
        looks_failed=call.looks_failed + (data["act"] == "look"),
        rejected=call.rejected + rejected,
        problem=data["problem"],
        rejection=data["problem"] if rejected else call.rejection,
        not_before=data["not_before"],
        attempts=(*call.attempts, {"at": event.at, **kept}),
    )


def _after_decision(call: Call, data: Json) -> Call:
    call = replace(call, question=None, decision=data, problem=data.get("problem") or call.problem)
    if data["decision"] not in {"not_happened", "continue"}:
        return call
    in_doubt = call.in_doubt and data["decision"] != "not_happened"
    return replace(call, in_doubt=in_doubt, sends_failed=0, looks_failed=0, rejected=0, not_before=0.0)


def reopened(call: Call) -> Call:
    """The call in a run that had failed and is tried again: a person's word to stop no longer holds."""
    if call.decision is None or call.decision["decision"] != "stop":
        return call
    return replace(call, decision=None, sends_failed=0, looks_failed=0, rejected=0, not_before=0.0)


def next_for_tool(
    call: Call, spec: Json, policy: Policy
) -> Literal["answer", "stop", "halt_in_doubt", "halt_budget", "look", "send"]:
    """What a tool call that has not ended needs next."""
    if call.question is not None:
        return "answer"
    if call.decision is not None and call.decision["decision"] == "stop":
        return "stop"
    move = first_move(spec, in_doubt=call.in_doubt)
    if move == "halt":
        return "halt_in_doubt"
    # A look is free of risk and may settle the matter, so it comes before giving up on sends that failed.
    if call.looks_failed >= policy.attempts or (move == "send" and call.sends_failed >= policy.attempts):
        return "halt_budget"
    return move


def next_for_model(
    call: Call, policy: Policy, asks: int
) -> Literal["answer", "stop", "halt_budget", "halt_model_calls", "ask"]:
    """What a model call that has not ended needs next; `asks` is how many the run has made of its budget."""
    if call.question is not None:
        return "answer"
    if call.decision is not None and call.decision["decision"] == "stop":
        return "stop"
    if call.sends_failed >= policy.attempts or call.rejected >= policy.malformed_attempts:
        return "halt_budget"
    return "halt_model_calls" if asks >= policy.model_calls_max else "ask"


def asks_made(asks: int, event: Event) -> int:
    """How many asks of the run's budget are used up after one more event of the run."""
    if event.kind == "reply" or (event.kind == "failed" and event.data["act"] == "ask"):
        return asks + 1
    granted = event.kind == "decided" and event.data["decision"] in {"not_happened", "continue"}
    return 0 if granted and event.data.get("budget") == MODEL_CALLS else asks
