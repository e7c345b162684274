"""Backpressure: a circuit breaker and a bound on concurrency for each service, for all runs of a worker.

While a service is down its callers wait in line without using up their attempts, and one at a time finds out
whether it is back; a hundred workflows meet an outage with one request at a time, not with a storm.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["Breaker", "Circuit", "LeftLine", "Slot"]

FAILURES_TO_OPEN = 5
COOLDOWN_SECONDS = 0.1
COOLDOWN_SECONDS_MAX = 1.0


class Circuit:
    """One service's state: closed, open until a time, or half open with one probe out. Times are monotonic.

    Pure: whoever asks says what time it is.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._cooldown = COOLDOWN_SECONDS
        self._open_until: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether calls go through freely."""
        return self._open_until is None

    def wait_seconds(self, now: float) -> float | None:
        """How long a call must wait: 0 for none, None until the probe that is out comes back."""
        if self._open_until is None:
            return 0.0
        return None if self._probing else max(self._open_until - now, 0.0)

    def begin(self) -> bool:
        """A call goes out, as `wait_seconds` allows; whether it is the probe."""
        self._probing = self._probing or not self.closed
        return not self.closed

    def end(self, now: float, *, probe: bool, healthy: bool | None, retry_after_seconds: float | None = None) -> None:
        """A call has come back: the service was healthy, or not, or (None) nothing was learnt.

        Retry-After opens the circuit at once: the service itself said when to come again.
        """
        if probe:
            self._probing = False
        if healthy is None:
            return
        if healthy:
            # Calls that left before it opened say nothing about now.
            if probe or self.closed:
                self._failures, self._cooldown, self._open_until = 0, COOLDOWN_SECONDS, None
            return
        self._failures += 1
        if probe:
            self._cooldown = min(self._cooldown * 2, COOLDOWN_SECONDS_MAX)
        opens = probe or (self.closed and self._failures >= FAILURES_TO_OPEN)
        if opens or retry_after_seconds:
            hold = max(self._cooldown if opens else 0.0, retry_after_seconds or 0.0)
            self._open_until = max(self._open_until or 0.0, now + hold)


class LeftLine(Exception):
    """Whoever stood in line was told to wait no longer."""


class Slot:
    """Leave to make one call. Say what was learnt about the service before it is given back."""

    def __init__(self) -> None:
        self.healthy: bool | None = None
        self.retry_after_seconds: float | None = None

    def answered(self) -> None:
        """The service did its work, whatever it said."""
        self.healthy = True

    def failed(self, retry_after_seconds: float | None = None) -> None:
        """The service could not be reached, or was overloaded or broken."""
        self.healthy = False
        self.retry_after_seconds = retry_after_seconds


class Breaker:
    """A line before each service. `time_source` is monotonic; by default the event loop's own."""

    def __init__(self, time_source: Callable[[], float] | None = None) -> None:
        self._time_source = time_source or asyncio.get_running_loop().time
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def slot(self, service: str, limit: int, stop: asyncio.Future[None] | None = None) -> AsyncIterator[Slot]:
        """Wait in line until the service may be called, with at most `limit` of its calls under way.

        Raises LeftLine when `stop` is done before that.
        """
        line = self._lines.setdefault(service, _Line(self._time_source))
        probe = await line.enter(limit, stop)
        slot = Slot()
        try:
            yield slot
        finally:
            line.leave(probe=probe, slot=slot)

    def waiting(self, service: str) -> int:
        """How many calls stand in line."""
        line = self._lines.get(service)
        return len(line.queue) if line else 0


class _Line:
    """First come, first served; a probe that failed goes to the back, so that all share in the probing."""

    def __init__(self, time_source: Callable[[], float]) -> None:
        self.queue: deque[tuple[asyncio.Future[bool], int]] = deque()
        self._time_source = time_source
        self._circuit = Circuit()
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, limit: int, stop: asyncio.Future[None] | None) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.queue.append((turn, limit))
        self._serve()
        try:
            if stop is not None and not turn.done():
                futures: set[asyncio.Future[Any]] = {turn, stop}
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
                if not turn.done():
                    turn.cancel()
                    raise LeftLine
            return await turn
        except asyncio.CancelledError:
            # Cancelled in the moment of being let through, it has a slot to give back.
            if not turn.cancel() and not turn.cancelled():
                self.leave(probe=turn.result(), slot=Slot())
            raise

    def leave(self, *, probe: bool, slot: Slot) -> None:
        self._under_way -= 1
        self._circuit.end(
            self._time_source(),
            probe=probe,
            healthy=slot.healthy,
            retry_after_seconds=slot.retry_after_seconds,
        )
        self._serve()

    def _serve(self) -> None:
        """Let through whoever may go; if it is only time that is missing, come back when it has passed."""
        while self.queue:
            turn, limit = self.queue[0]
            if turn.done():
                self.queue.popleft()
                continue
            wait = self._circuit.wait_seconds(self._time_source())
            if self._under_way >= limit or wait is None:
                return
            if wait > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait, self._serve)
                return
            self.queue.popleft()
            self._under_way += 1
            turn.set_result(self._circuit.begin())
