"""Newer releases of the chains, as they come to runs that an older one has begun; each has one harmless change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.plan import next_instance
from kintsugi.runtime.protocol import Decision, DurableContext, ModelRequest, Question, ToolCall, ToolReply

__all__ = ["REWORDED", "STEP_ADDED", "WORDS"]

Plan = Mapping[str, Any]
T = TypeVar("T")
Chains = Mapping[str, Callable[[DurableContext, Plan], Awaitable[str]]]

WORDS = "This is release 2: take care."
"""What it tells the model in addition."""


def _with_a_first_step(chain: Callable[[DurableContext, Plan], Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    async def run(ctx: DurableContext, plan: Plan) -> str:
        """Look once more at what the plan reads first, before anything else."""
        first = next_instance(plan, {})
        if first is not None and first.kind == "tool" and plan["tools"][first.tool]["effect"] == "read":
            call = ToolCall(tool=first.tool, arguments=first.values)
            await ctx.tool("release 2: a first look", call, step=first.step)
        await ctx.now("release 2: begun")
        return await chain(ctx, plan)

    return run


STEP_ADDED: Chains = {name: _with_a_first_step(chain) for name, chain in CHAINS.items()}
"""A durable step comes before all others."""


class _Reworded:
    """A context that puts every question to the model in other words."""

    def __init__(self, ctx: DurableContext) -> None:
        self._ctx = ctx
        self.run_id = ctx.run_id

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        first, *others = request.messages
        told = {**first, "content": f"{first['content']}\n{WORDS}"}
        return await self._ctx.model(name, replace(request, messages=[told, *others]))

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        return await self._ctx.tool(name, call, step=step, item=item)

    async def ask_human(self, name: str, question: Question) -> Decision:
        return await self._ctx.ask_human(name, question)

    async def sleep(self, name: str, seconds: float) -> None:
        await self._ctx.sleep(name, seconds)

    async def now(self, name: str) -> float:
        return await self._ctx.now(name)

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        return await self._ctx.gather(*calls)


def _in_other_words(chain: Callable[[DurableContext, Plan], Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    async def run(ctx: DurableContext, plan: Plan) -> str:
        return await chain(_Reworded(ctx), plan)

    return run


REWORDED: Chains = {name: _in_other_words(chain) for name, chain in CHAINS.items()}
"""Every question to the model is put in other words."""
