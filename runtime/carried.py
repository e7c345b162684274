"""A run while a worker carries it: what is known of it, what it waits for, and its right to act.

Its memory is a fold over its journal: `record` makes an event durable and only then folds it in, and a run
that is taken up again starts from the fold of what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from kintsugi.runtime.boundary import Boundary
from kintsugi.runtime.breaker import Breaker, LeftLine, Slot
from kintsugi.runtime.calls import Call, advance, asks_made, reopened
from kintsugi.runtime.clock import RunClock
from kintsugi.runtime.journal import Claim, Fenced
from kintsugi.runtime.leases import LEASE_SECONDS
from kintsugi.runtime.policy import Policy
from kintsugi.runtime.protocol import Decision, Question, ToolCall, ToolReply, WorkflowFailed
from kintsugi.runtime.rules import Budget, backoff_seconds, jitter
from kintsugi.runtime.services import Services, Unanswered
from kintsugi.runtime.store import Event, JournalUnavailable, Run, Signal

__all__ = ["Carried", "Means", "NonDeterminism"]

LOG = logging.getLogger(__name__)
PATIENCE = Budget(attempts=1, base_seconds=0.05, cap_seconds=1.0)
"""The waits of what is tried until it works: the journal, the person's inbox, the report of the end."""
GLANCE_SECONDS = 10.0
"""The longest wait without a look at the clock, which goes on while the machine is suspended."""


class NonDeterminism(Exception):
    """A replay asked for something else under a name that is in the journal already."""


class Appends(Protocol):
    """Where events go; `Journal` is one."""

    async def append(self, claim: Claim, events: list[Event], *, end: bool = False) -> None:
        """Make events durable, all or none. Raises Fenced, JournalUnavailable."""
        ...


@dataclass(frozen=True)
class Means:
    """What a run is carried with; `services` and `breaker` are shared with the worker's other runs."""

    journal: Appends
    services: Services
    breaker: Breaker
    time_scale: float = 1.0
    """Wall seconds per workflow second."""
    draw: Callable[[], float] = jitter


class Carried:
    """One run in one worker's hands. Raises ValueError where the plan's policy can't be used."""

    def __init__(self, run: Run, claim: Claim, means: Means, events: list[Event], signals: list[Signal]) -> None:
        self.run_id = run.run_id
        self.plan: Mapping[str, Any] = run.payload["plan"]
        self.policy = Policy.from_plan(self.plan)
        self.means = means
        self.boundary = Boundary(self.plan)
        self.calls: dict[str, Call] = {}
        self.asks = 0
        """How many asks of the run's budget are used up."""
        self.ending: Mapping[str, Any] | None = None
        """``status`` and ``detail``, once the end is decided on."""
        self.clock = RunClock(run.born, floor=events[-1].at if events else 0.0)
        self._claim = claim
        self._confirmed_at = -LEASE_SECONDS
        self._intents: dict[str, ToolCall] = {}
        self._decisions: dict[str, Mapping[str, Any]] = {}
        self._last_signal = 0
        self._paused = False
        self._nudges = 0
        self._cancelled = False
        self._closed = ""
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way = 0
        self._bell = asyncio.Event()
        for event in events:
            self._fold(event)
        for signal in signals:
            self.deliver(signal)

    # --- memory -------------------------------------------------------------------------------------------

    def event(self, kind: str, name: str, **data: object) -> Event:
        """A new line of the run's journal, at this time."""
        return Event(kind, name, data, self.clock.now())

    async def record(self, *events: Event, end: bool = False) -> None:
        """Make events durable, all or none, however long the journal can't be written. Raises Fenced."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self.means.journal.append(self._claim, list(events), end=end)
            except JournalUnavailable as error:
                failures += 1
                LOG.warning("run %s: %s", self.run_id, error)
                await asyncio.sleep(backoff_seconds(PATIENCE, failures, None, self.means.draw()))
                continue
            except Fenced:
                # Nothing else of this run may go on here either.
                LOG.warning("run %s was taken over by another worker", self.run_id)
                self._close("another worker has taken the run over")
                raise
            self._confirmed_at = started
            for event in events:
                self._fold(event)
            return

    async def confirm(self) -> None:
        """Make sure that no other worker can have taken the run over. Raises Fenced.

        Each commit is a heartbeat, and nobody takes over within a lease of one. So a write that can't be told
        from a second one is sent only right after a commit, also by a process that was paused in between.
        """
        while time.monotonic() - self._confirmed_at > LEASE_SECONDS / 2:
            await self.record()

    def call(self, name: str, digest: str) -> Call:
        """What is known of a durable call. Raises NonDeterminism where it was another request."""
        known = self.calls.get(name, Call())
        if known.digest not in {"", digest}:
            raise NonDeterminism(
                f"{name!r} is in the journal of run {self.run_id} with another request: the chain has changed"
                " since, or does not depend on recorded values alone"
            )
        return known

    def _fold(self, event: Event) -> None:
        if event.kind == "ending":
            self.ending = event.data
        elif event.kind == "reopened":
            self.ending = None
            self.calls = {name: reopened(call) for name, call in self.calls.items()}
        elif event.name:
            self.calls[event.name] = advance(self.calls.get(event.name, Call()), event)
            self.asks = asks_made(self.asks, event)
            self._fold_into_boundary(event)

    def _fold_into_boundary(self, event: Event) -> None:
        if event.kind == "intent":
            self._intents[event.name] = ToolCall(event.data["tool"], event.data["arguments"])
            self.boundary.begun(self._intents[event.name])
        elif event.kind == "result" and event.name in self._intents:
            reply = ToolReply(**event.data["reply"])
            if reply.by == "policy":
                self.boundary.withdrawn(self._intents[event.name])
            else:
                self.boundary.committed(self._intents[event.name], reply)

    # --- waiting ------------------------------------------------------------------------------------------

    def deliver(self, signal: Signal) -> None:
        """Take in a signal; one that was delivered before changes nothing."""
        if signal.signal_id <= self._last_signal:
            return
        self._last_signal = signal.signal_id
        match signal.kind:
            case "decision":
                # The first decision on a request stands.
                self._decisions.setdefault(signal.request_id, signal.data)
            case "pause" | "resume":
                self._paused = signal.kind == "pause"
            case "retry":
                self._nudges += 1
                self._cancelled = False
            case "cancel":
                self._cancelled = True
        self._ring()

    def _close(self, reason: str) -> None:
        self._closed = self._closed or reason
        self._ring()

    def _ring(self) -> None:
        """Have everything that waits look again."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
        stopped = bool(self._closed) or self._cancelled
        if stopped and not self._stop.done():
            self._stop.set_result(None)
        elif not stopped and self._stop.done():
            self._stop = asyncio.get_running_loop().create_future()

    async def wait(self, ready: Callable[[], bool], until: float | None = None) -> None:
        """Return when `ready`, or at `until` (Unix seconds). Raises WorkflowFailed if the run is stopped."""
        while not ready():
            self._raise_if_stopped()
            left = GLANCE_SECONDS if until is None else min(until - self.clock.now(), GLANCE_SECONDS)
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._bell.wait()
            except TimeoutError:
                pass

    def _raise_if_stopped(self) -> None:
        if self._closed:
            raise WorkflowFailed(self._closed)
        if self._cancelled:
            raise WorkflowFailed("cancelled by an operator")

    async def back_off(self, until: float) -> None:
        """Wait until then, or until an operator says to try again now."""
        nudges = self._nudges
        await self.wait(lambda: self._nudges != nudges, until)

    @asynccontextmanager
    async def turn(self, service: str) -> AsyncIterator[Slot]:
        """Leave to call a service once: the run is not paused or stopped, and the service can take it."""
        while True:
            self._raise_if_stopped()
            await self.wait(lambda: not self._paused)
            slots = self.means.breaker.slot(service, self.policy.tool_concurrency, self._stop)
            with suppress(LeftLine):
                async with slots as slot:
                    # The line may have been long.
                    self._raise_if_stopped()
                    if not self._paused:
                        yield slot
                        return

    async def until_it_works(self, attempt: Callable[[], Awaitable[None]], *, stoppable: bool) -> None:
        """Make an attempt again and again until it is answered."""
        failures = 0
        while True:
            if stoppable:
                await self.wait(lambda: not self._paused)
            try:
                return await attempt()
            except Unanswered as error:
                failures += 1
                wait = backoff_seconds(PATIENCE, failures, error.retry_after_seconds, self.means.draw())
            if stoppable:
                await self.back_off(self.clock.now() + wait)
            else:
                await asyncio.sleep(wait)

    # --- a person -----------------------------------------------------------------------------------------

    async def ask(self, name: str, request_id: str, question: Question, digest: str = "") -> None:
        """Put a question to the person, once, and record that it is asked."""
        if request_id not in self._decisions:
            await self.until_it_works(
                lambda: self.means.services.ask(self.run_id, request_id, question), stoppable=True
            )
        data = {"request_id": request_id, "question": asdict(question)}
        await self.record(self.event("asked", name, **data, **({"digest": digest} if digest else {})))

    async def decided(self, request_id: str) -> Decision:
        """The person's decision on a request, however long that takes; one that came early was kept."""
        await self.wait(lambda: request_id in self._decisions)
        return Decision.from_json(self._decisions[request_id])

    # --- the end ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Around every durable call, so that the end can wait for it."""
        self._raise_if_stopped()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ring()

    async def quiesce(self, reason: str) -> None:
        """Let no further call begin, and wait until those that are under way have come to rest."""
        self._close(reason)
        while self._under_way:
            await self._bell.wait()
