"""The durable context: what a chain may ask of the runtime that carries it, and the data that crosses it.

A chain is an ordinary coroutine over a `DurableContext`. Every call carries a `name` that is unique within
the run and the same at every replay; a runtime that has recorded a result under that name returns it instead
of doing the call again. How it persists, waits, retries and dispatches is its own affair.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

__all__ = [
    "Decision",
    "DurableContext",
    "ModelRequest",
    "PolicyStop",
    "Question",
    "ToolCall",
    "ToolReply",
    "WorkflowFailed",
]

Json = Mapping[str, Any]
T = TypeVar("T")


class WorkflowFailed(Exception):
    """The run can't go on and says so; its text is the reason that is reported."""


class PolicyStop(Exception):
    """The run ends early as its policy says (an approval was rejected or expired); not a failure."""


@dataclass(frozen=True)
class ModelRequest:
    """One question for the model, as OpenAI chat messages.

    `schema` is the JSON schema that the answer must satisfy (the reply's content is then one JSON value),
    with `step` as its name; `tools` are function definitions that the model may call. Exactly one of the two
    is set.
    """

    step: str
    messages: list[Json]
    schema: Json | None = None
    tools: list[Json] | None = None


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool: its JSON arguments, the approval token for these, the version it relies on."""

    tool: str
    arguments: Json
    approval: str | None = None
    approval_expires_at: float | None = None
    """Unix seconds after which the token is void; None where there is no token or it does not expire."""
    if_match: str | None = None


@dataclass(frozen=True)
class ToolReply:
    """What became of a tool call: its result, or the refusal that the tool (or our own policy) gave."""

    ok: bool
    result: Any = None
    version: str | None = None
    status: int = 200
    error: str = ""
    by: str = "tool"
    """Who answered: ``tool``, ``policy`` (refused before it was sent) or ``human`` (after a halt)."""


@dataclass(frozen=True)
class Question:
    """Something only a person can decide.

    `kind` is ``approval`` (may `tool` be called with `arguments`?), or a halt: ``in_doubt`` (did it happen?),
    ``budget`` (retries or asks are spent), ``stale`` (what was relied on changed), ``verify`` (is it right?).
    """

    kind: str
    step: str
    item: int = 0
    summary: str = ""
    tool: str = ""
    arguments: Json = field(default_factory=dict)
    evidence: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A person's answer.

    To an approval: ``approve``, ``reject``, ``expire``, or ``amend`` (approved with `arguments` instead).
    To a halt: ``happened`` (with its `result`), ``not_happened``, ``continue`` or ``stop``.
    `decision_id` is stable over repeated deliveries. `token` is void after `expires_at` (Unix seconds).
    """

    decision_id: str
    decision: str
    token: str | None = None
    expires_at: float | None = None
    arguments: Json | None = None
    result: Any = None

    @classmethod
    def from_json(cls, value: object) -> Decision:
        """The decision in a JSON object; keys that are not of it are passed over.

        Raises ValueError where `decision_id` or `decision` is missing or no text.
        """
        given = value if isinstance(value, Mapping) else {}
        missing = [key for key in ("decision_id", "decision") if not isinstance(given.get(key), str)]
        if missing:
            raise ValueError(f"a decision is an object with {' and '.join(missing)}, texts; found {value!r}")
        known = {field.name for field in fields(cls)}
        return cls(**{key: part for key, part in given.items() if key in known})


class DurableContext(Protocol):
    """The durable primitives. After a crash each returns what it returned before, or goes on from there."""

    run_id: str

    async def model(self, name: str, request: ModelRequest) -> Json:
        """The model's reply, as an OpenAI assistant message.

        With a schema the reply is recorded only once it is valid, and comes with its parsed value under
        ``parsed``. Raises WorkflowFailed when a person stops the run after the budget of asks is spent.
        """
        ...

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        """The outcome of a tool call, done at most as often as the tool's own kind of idempotency allows.

        `step` and `item` only tell a person where in the plan this is. Raises WorkflowFailed when a person
        stops the run after a halt.
        """
        ...

    async def ask_human(self, name: str, question: Question) -> Decision:
        """A person's decision; the wait survives restarts, and the question is asked once."""
        ...

    async def sleep(self, name: str, seconds: float) -> None:
        """Return no sooner than `seconds` of workflow time after the first call of that name."""
        ...

    async def now(self, name: str) -> float:
        """The Unix time in seconds at the first call of that name."""
        ...

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """The results of several calls of this context, in their order: side by side, else one after another.

        None may rest on another. Where one raises, those that were begun come to their end before its error, the
        first in the order of the calls, is raised.
        """
        ...
