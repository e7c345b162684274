"""How a context does several calls of a chain that do not wait for one another: both ways, for all contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

__all__ = ["one_after_another", "side_by_side"]

T = TypeVar("T")


async def side_by_side(calls: Sequence[Awaitable[T]]) -> list[T]:
    """The results of calls that are made at the same time, in the order of the calls.

    Raises the first error in that order, once all of them have ended: nothing goes on after it.
    """
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


async def one_after_another(calls: Sequence[Awaitable[T]]) -> list[T]:
    """The results of calls that are made in their order; after one that raises none is begun."""
    left = list(calls)
    results: list[T] = []
    try:
        while left:
            results.append(await left.pop(0))
    finally:
        for call in left:
            if asyncio.iscoroutine(call):
                call.close()
    return results
