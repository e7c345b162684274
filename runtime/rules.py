"""The decisions that make recovery right, as pure functions over plain data, shared by every runtime.

An engine differs in how it persists, waits, retries and dispatches. What a reply must satisfy, which key a
call carries, when to look before repeating and when to stop for a person is the same for all of them, and
stands here.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from kintsugi.runtime.protocol import ModelRequest, ToolCall, ToolReply

__all__ = [
    "Budget",
    "Move",
    "Outcome",
    "Rejected",
    "accept_reply",
    "after_attempt",
    "approval_needed",
    "arguments_digest",
    "backoff_seconds",
    "canonical",
    "first_move",
    "idempotency_key",
    "refusal",
    "repair_messages",
    "schema_problem",
    "unexpected_result",
    "write_down",
]

Json = Mapping[str, Any]


class Rejected(ValueError):
    """A model's reply that must not enter state; its text tells the model what to mend."""


# --- digests and keys ---------------------------------------------------------------------------------------


def canonical(value: object) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def arguments_digest(arguments: Json) -> str:
    """SHA-256 (hex) of the canonical JSON of a call's arguments: what an approval is bound to."""
    return hashlib.sha256(canonical(arguments).encode()).hexdigest()


def idempotency_key(run_id: str, name: str) -> str:
    """The key (or client reference) of a durable call: the same at every repeat, and of no other call."""
    return hashlib.sha256(f"{run_id}\n{name}".encode()).hexdigest()[:32]


# --- what may be proposed and committed ---------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _validator(schema_text: str) -> Draft202012Validator:
    # By default a reference would be looked for in the network.
    return Draft202012Validator(json.loads(schema_text), registry=Registry())


def schema_problem(value: object, schema: Json) -> str:
    """The first violation of a JSON schema as one line naming the place; empty where there is none.

    Nothing satisfies a schema that refers to another one which is not in it.
    """
    try:
        errors = list(_validator(canonical(schema)).iter_errors(value))
    except Unresolvable:
        return "the value: its schema refers to another one, which is not in it"
    if not errors:
        return ""
    first = min(errors, key=lambda error: list(map(str, error.path)))
    place = ".".join(str(part) for part in first.absolute_path) or "the value"
    return f"{place}: {first.message}"


def accept_reply(request: ModelRequest, choice: Json) -> Json:
    """The assistant message of a chat completion's choice, fit to be recorded.

    With a schema, the content must be one complete JSON value that satisfies it; the value is added as
    ``parsed``. Without one only the form of a message is asked for. Raises Rejected.
    """
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise Rejected("The reply held no message.")
    _must_be_writable(message)
    if request.schema is None:
        return dict(message)
    if choice.get("finish_reason") != "stop":
        reason = choice.get("finish_reason")
        raise Rejected(f"The reply ended early (finish_reason {reason!r}); give it whole.")
    content = message.get("content")
    try:
        parsed = json.loads(content) if isinstance(content, str) else None
    except ValueError as error:
        advice = "Answer with one JSON value and nothing else."
        raise Rejected(f"The reply is not valid JSON ({error}). {advice}") from error
    _must_be_writable(parsed)
    if parsed is None:
        raise Rejected("The reply is empty. Answer with one JSON value and nothing else.")
    problem = schema_problem(parsed, request.schema)
    if problem:
        raise Rejected(f"The reply breaks the schema at {problem}.")
    return {"role": "assistant", "content": content, "parsed": parsed}


def write_down(value: object) -> bytes:
    """A value as JSON. Raises ValueError for what Python reads as such and nobody can write: half a character, NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _must_be_writable(value: object) -> None:
    try:
        write_down(value)
    except ValueError as error:
        raise Rejected(f"The reply holds what is no text or number ({error}). Give it again without that.") from error


def repair_messages(request: ModelRequest, problem: str) -> list[Json]:
    """The request's messages with a note on why the last reply was turned down."""
    return [*request.messages, {"role": "user", "content": f"Your last reply was rejected. {problem}"}]


def approval_needed(spec: Json, arguments: Json) -> bool:
    """Whether a tool's approval rule asks for a person's yes to exactly these arguments.

    The rule is ``never``, ``always``, or ``{"parameter", "above"}``: needed where that argument exceeds the
    limit.
    """
    rule = spec.get("approval", "never")
    if isinstance(rule, Mapping):
        value = arguments.get(rule["parameter"])
        return not isinstance(value, (int, float)) or value > rule["above"]
    return bool(rule == "always")


def refusal(spec: Json | None, call: ToolCall, now: float) -> str:
    """Why a proposed call must not be sent, in words its proposer can act on; empty where it may.

    Checked before any intent is recorded: the tool exists, its arguments satisfy its schema, and a needed
    approval is held and not expired at `now` (Unix seconds). That the token fits these arguments is up to who
    hands it out.
    """
    if spec is None:
        return f"There is no tool called {call.tool!r}."
    problem = schema_problem(call.arguments, spec["parameters"])
    if problem:
        return f"The arguments of {call.tool} break its schema at {problem}."
    if approval_needed(spec, call.arguments):
        if call.approval is None:
            return f"{call.tool} needs an approval for exactly these arguments; ask for it first."
        if call.approval_expires_at is not None and call.approval_expires_at <= now:
            return f"The approval for {call.tool} has expired; ask for a new one."
    return ""


def unexpected_result(spec: Json, result: object) -> str:
    """Why a tool's result must not be believed (it breaks its declared schema); empty where it may."""
    problem = schema_problem(result, spec["result"]) if "result" in spec else ""
    return f"The result breaks the tool's schema at {problem}." if problem else ""


# --- attempts, doubt and retries ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one attempt of a call is known to have led to.

    ``done``: an answer arrived, the effect happened. ``refused``: an answer arrived, or the request never
    left: no effect happened. ``unknown``: it left and no answer arrived (time-out, reset, 5xx): the effect
    may have happened.
    """

    kind: Literal["done", "refused", "unknown"]
    reply: ToolReply
    retryable: bool = False
    retry_after_seconds: float | None = None


Move = Literal["send", "look", "halt"]


def first_move(spec: Json, *, in_doubt: bool) -> Move:
    """How to begin, or go on with, a call whose earlier attempt may (`in_doubt`) or can't have had an effect.

    ``send`` it (with its key), ``look`` for its effect by its client reference before sending, or ``halt``
    and ask a person, because the tool is opaque: nothing a program can do tells whether it happened.
    """
    if not in_doubt or spec["effect"] == "read" or spec["idempotency"] == "key":
        return "send"
    return "look" if spec["idempotency"] == "lookup" else "halt"


@dataclass(frozen=True)
class Budget:
    """How often one durable call is tried, and the shape of the waits between (seconds)."""

    attempts: int = 4
    base_seconds: float = 0.05
    cap_seconds: float = 2.0


def backoff_seconds(budget: Budget, failures: int, retry_after_seconds: float | None, draw: float) -> float:
    """The wait before the next attempt: exponential with full jitter, and never less than Retry-After.

    `draw` is uniform in [0, 1). Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
    2015.
    """
    # The exponent is bounded, because a float overflows at 2 to the 1024.
    ceiling = min(budget.cap_seconds, budget.base_seconds * 2.0 ** min(max(failures - 1, 0), 60))
    return max(draw * ceiling, retry_after_seconds or 0.0)


def after_attempt(outcome: Outcome, budget: Budget, failures: int) -> Literal["return", "retry", "spent"]:
    """What follows an attempt: its reply is the result, it is tried again, or the budget is spent."""
    if outcome.kind == "done" or (outcome.kind == "refused" and not outcome.retryable):
        return "return"
    return "retry" if failures < budget.attempts else "spent"


def jitter() -> float:
    """A draw for `backoff_seconds` from the process's own randomness."""
    return random.random()
