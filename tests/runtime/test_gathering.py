"""Several calls at once: their results are in order, and nothing of them goes on once they are over."""

from __future__ import annotations

import asyncio

import pytest

from kintsugi.runtime.gathering import one_after_another, side_by_side


class Calls:
    """Calls that end when they are told to; `ended` are those that did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.may_end = {name: asyncio.Event() for name in "abc"}

    async def all_begun(self) -> None:
        while len(self.begun) < len(self.may_end):
            await asyncio.sleep(0)

    async def call(self, name: str, error: Exception | None = None) -> str:
        self.begun.append(name)
        await self.may_end[name].wait()
        self.ended.append(name)
        if error is not None:
            raise error
        return name


@pytest.fixture
async def calls() -> Calls:
    return Calls()


async def test_side_by_side_all_are_begun_before_one_ends_and_results_are_in_order(calls: Calls) -> None:
    together = asyncio.ensure_future(side_by_side([calls.call(name) for name in "abc"]))
    await calls.all_begun()
    assert (calls.begun, calls.ended) == (["a", "b", "c"], [])
    for name in "cab":
        calls.may_end[name].set()
        while name not in calls.ended:
            await asyncio.sleep(0)
    assert await together == ["a", "b", "c"]
    assert calls.ended == ["c", "a", "b"]


async def test_side_by_side_an_error_is_raised_once_all_have_ended(calls: Calls) -> None:
    first, second = ValueError("of a"), ValueError("of c")
    together = asyncio.ensure_future(side_by_side([calls.call("a", first), calls.call("b"), calls.call("c", second)]))
    for name in "ca":
        calls.may_end[name].set()
    while sorted(calls.ended) != ["a", "c"]:
        await asyncio.sleep(0)
    assert not together.done(), "b has not ended"
    calls.may_end["b"].set()
    with pytest.raises(ValueError, match="of a"):
        await together
    assert sorted(calls.ended) == ["a", "b", "c"]


async def test_side_by_side_all_are_cancelled_with_the_one_who_waits(calls: Calls) -> None:
    together = asyncio.ensure_future(side_by_side([calls.call(name) for name in "abc"]))
    await calls.all_begun()
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together
    assert (calls.begun, calls.ended) == (["a", "b", "c"], [])


async def test_one_after_another_each_is_begun_when_the_one_before_has_ended(calls: Calls) -> None:
    for event in calls.may_end.values():
        event.set()
    assert await one_after_another([calls.call(name) for name in "abc"]) == ["a", "b", "c"]
    assert calls.begun == calls.ended == ["a", "b", "c"]


@pytest.mark.filterwarnings("error")
async def test_one_after_another_none_is_begun_after_an_error(calls: Calls) -> None:
    for event in calls.may_end.values():
        event.set()
    with pytest.raises(ValueError, match="of b"):
        await one_after_another([calls.call("a"), calls.call("b", ValueError("of b")), calls.call("c")])
    assert calls.begun == ["a", "b"]
