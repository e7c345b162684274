"""Chains with one bug each: the optimized chain with exactly one thing broken, to prove that the benchmark sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kintsugi.golden_workflows.chains.optimized import _Chain
from kintsugi.golden_workflows.plan import Instance
from kintsugi.runtime.protocol import DurableContext, PolicyStop

__all__ = ["ACTS_ON_STALE_READS", "SWALLOWS_REJECTION"]

Chains = Mapping[str, Callable[[DurableContext, Mapping[str, Any]], Awaitable[str]]]


def _table(broken: type[_Chain]) -> Chains:
    async def run(ctx: DurableContext, plan: Mapping[str, Any]) -> str:
        return await broken(ctx, plan).run()

    return {"optimized": run}


class _Stale(_Chain):
    """What was read before a wait is not read again after it."""

    async def refresh(self, step: Mapping[str, Any], *, force: bool = False) -> bool:
        return False


ACTS_ON_STALE_READS = _table(_Stale)


class _Deaf(_Chain):
    """A write that a person refused is passed over, and all that comes after it is done."""

    async def write(self, due: Instance) -> None:
        try:
            await super().write(due)
        except PolicyStop:
            self.results.setdefault(due.step, {})[due.item] = {}


SWALLOWS_REJECTION = _table(_Deaf)
