"""Circuits and lines, without waiting."""

import asyncio

import pytest

from kintsugi.runtime import breaker as breaker_module
from kintsugi.runtime.breaker import (
    COOLDOWN_SECONDS,
    COOLDOWN_SECONDS_MAX,
    FAILURES_TO_OPEN,
    Breaker,
    Circuit,
    LeftLine,
)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES_TO_OPEN):
        assert circuit.wait_seconds(now) == 0.0
        circuit.end(now, probe=circuit.begin(), healthy=False)
    return circuit


def test_it_opens_after_failures_in_a_row_only() -> None:
    circuit = Circuit()
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            circuit.end(0.0, probe=circuit.begin(), healthy=False)
        circuit.end(0.0, probe=circuit.begin(), healthy=True)
    assert circuit.closed
    assert not opened().closed


def test_one_probe_at_a_time_when_half_open() -> None:
    circuit = opened()
    assert circuit.wait_seconds(0.0) == COOLDOWN_SECONDS
    assert circuit.wait_seconds(COOLDOWN_SECONDS) == 0.0
    assert circuit.begin()
    assert circuit.wait_seconds(1000.0) is None
    circuit.end(1.0, probe=True, healthy=True)
    assert circuit.closed
    assert circuit.wait_seconds(1.0) == 0.0


def test_a_failed_probe_doubles_the_cooldown_to_its_maximum() -> None:
    circuit, now = opened(), 0.0
    waits = []
    for _ in range(6):
        wait = circuit.wait_seconds(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        circuit.end(now, probe=circuit.begin(), healthy=False)
    assert [round(wait, 9) for wait in waits[:3]] == [0.1, 0.2, 0.4]
    assert waits[-1] == COOLDOWN_SECONDS_MAX


def test_retry_after_opens_it_at_once_and_is_honoured() -> None:
    circuit = Circuit()
    circuit.end(10.0, probe=circuit.begin(), healthy=False, retry_after_seconds=7.0)
    assert circuit.wait_seconds(10.0) == 7.0
    assert circuit.wait_seconds(16.9) > 0.0  # type: ignore[operator]
    assert circuit.wait_seconds(17.0) == 0.0
    assert circuit.begin()
    circuit.end(17.0, probe=True, healthy=False, retry_after_seconds=0.01)
    assert circuit.wait_seconds(17.0) == pytest.approx(2 * COOLDOWN_SECONDS)


def test_late_answers_of_calls_from_before_do_not_close_it() -> None:
    circuit = opened()
    circuit.end(0.0, probe=False, healthy=True)
    assert not circuit.closed
    circuit.end(0.0, probe=False, healthy=False, retry_after_seconds=50.0)
    assert circuit.wait_seconds(0.0) == 50.0


def test_a_probe_that_was_given_up_leaves_room_for_the_next() -> None:
    circuit = opened()
    circuit.end(1.0, probe=circuit.begin(), healthy=None)
    assert not circuit.closed
    assert circuit.wait_seconds(1.0) == 0.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_no_more_than_the_limit_at_once_first_come_first_served() -> None:
    breaker = Breaker(Clock())
    leave = asyncio.Event()
    entered: list[int] = []

    async def call(number: int) -> None:
        async with breaker.slot("tool", 3) as slot:
            entered.append(number)
            await leave.wait()
            slot.answered()

    calls = [asyncio.create_task(call(number)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert entered == [0, 1, 2]
    assert breaker.waiting("tool") == 7
    async with breaker.slot("another", 3):
        pass
    leave.set()
    await asyncio.gather(*calls)
    assert entered == list(range(10))


@pytest.mark.parametrize("stoppable", [True, False])
async def test_a_caller_that_is_cancelled_in_line_or_inside_is_not_missed(*, stoppable: bool) -> None:
    breaker = Breaker(Clock())
    stop = asyncio.get_running_loop().create_future() if stoppable else None
    inside, first = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with breaker.slot("tool", 1, stop):
            inside.set()
            await first.wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    in_line = asyncio.create_task(hold())
    await asyncio.sleep(0)
    in_line.cancel()
    holder.cancel()
    await asyncio.gather(holder, in_line, return_exceptions=True)
    async with asyncio.timeout(20), breaker.slot("tool", 1) as slot:
        slot.answered()
    assert breaker.waiting("tool") == 0


async def test_who_is_told_to_stop_leaves_the_line() -> None:
    breaker, stop = Breaker(Clock()), asyncio.get_running_loop().create_future()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with breaker.slot("tool", 1, stop):
            inside.set()
            await leave.wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    in_line = asyncio.create_task(hold())
    await asyncio.sleep(0)
    stop.set_result(None)
    with pytest.raises(LeftLine):
        await in_line
    # Who is inside finishes.
    leave.set()
    await holder
    async with asyncio.timeout(20), breaker.slot("tool", 1):
        pass


async def test_an_outage_meets_one_caller_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred callers, and a service that comes back after 13 requests: none of them was wasted on it."""
    monkeypatch.setattr(breaker_module, "COOLDOWN_SECONDS", 0.001)
    monkeypatch.setattr(breaker_module, "COOLDOWN_SECONDS_MAX", 0.002)
    breaker = Breaker()
    requests = 0
    under_way = at_once = 0

    async def call() -> None:
        nonlocal requests, under_way, at_once
        while True:
            async with breaker.slot("tool", 8) as slot:
                requests += 1
                under_way += 1
                at_once = max(at_once, under_way)
                await asyncio.sleep(0)
                under_way -= 1
                if requests > 13:
                    slot.answered()
                    return
                slot.failed()

    async with asyncio.timeout(20):
        await asyncio.gather(*(call() for _ in range(100)))
    assert at_once == 8
    assert requests == 113
