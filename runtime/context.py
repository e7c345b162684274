"""The minimal runtime's durable context: deterministic replay, by name, over the run's journal."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from kintsugi.runtime.calls import Call
from kintsugi.runtime.carried import Carried
from kintsugi.runtime.gathering import side_by_side
from kintsugi.runtime.model_call import durable_model
from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import arguments_digest, idempotency_key
from kintsugi.runtime.tool_call import durable_tool

__all__ = ["MinimalContext"]

T = TypeVar("T")


class MinimalContext:
    """What a chain is given. Every method returns at once what the journal has under its name.

    Beside what the protocol says, each raises NonDeterminism where the name was recorded with another
    request (but for a question to the model, whose words may change), WorkflowFailed once an operator has
    cancelled the run, and Fenced once another worker has it.
    """

    def __init__(self, run: Carried) -> None:
        self.run_id = run.run_id
        self._run = run

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        """The model's reply; see the protocol."""
        async with self._run.under_way():
            return await durable_model(self._run, name, request)

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        """The outcome of a tool call; see the protocol."""
        async with self._run.under_way():
            return await durable_tool(self._run, name, call, step, item)

    async def ask_human(self, name: str, question: Question) -> Decision:
        """A person's decision; see the protocol. The request's id is ``idempotency_key(run_id, name)``."""
        run = self._run
        async with run.under_way():
            digest = arguments_digest(asdict(question))
            known = run.call(name, digest)
            if known.decision is None:
                request_id = idempotency_key(self.run_id, name)
                if known.question is None:
                    await run.ask(name, request_id, question, digest)
                decision = await run.decided(request_id)
                await run.record(run.event("decided", name, **asdict(decision)))
            return Decision.from_json(run.calls[name].decision)

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait; see the protocol. A workflow second lasts as long as the worker's time scale says."""
        run = self._run
        async with run.under_way():
            digest = arguments_digest({"seconds": seconds})
            if run.call(name, digest).end is None:
                until = run.clock.now() + seconds * run.means.time_scale
                await run.record(run.event("timer", name, digest=digest, until=until))
            await run.wait(lambda: False, run.calls.get(name, Call()).end["until"])  # type: ignore[index]

    async def now(self, name: str) -> float:
        """The time; see the protocol."""
        run = self._run
        async with run.under_way():
            if run.call(name, "time").end is None:
                await run.record(run.event("time", name, digest="time", unix_seconds=run.clock.now()))
            end = run.calls[name].end or {}
            return float(end["unix_seconds"])

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Side by side; see the protocol. The journal knows each call by its name, in whichever order they end."""
        return await side_by_side(calls)
