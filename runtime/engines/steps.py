"""A chain that does nothing but durable steps, between two calls that are seen outside: what a benchmark times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.runtime.protocol import DurableContext, ToolCall

__all__ = ["CHAINS", "PLAN"]

_READ = {"effect": "read", "parameters": {"type": "object"}, "result": {"type": "object"}}
PLAN: Mapping[str, Any] = {"model": "none", "policy": {}, "tools": {"bench.begin": _READ, "bench.next": _READ}}
"""The plan; with ``steps_to_do``."""


async def run(ctx: DurableContext, plan: Mapping[str, Any]) -> str:
    """Call ``bench.begin``, do ``steps_to_do`` durable steps, call ``bench.next``."""
    await ctx.tool("begin", ToolCall("bench.begin", {}), step="begin")
    for number in range(plan["steps_to_do"]):
        await ctx.now(f"step {number}")
    await ctx.tool("next", ToolCall("bench.next", {}), step="next")
    return "done"


CHAINS = {"steps": run}
