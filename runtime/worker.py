"""A worker: it claims runs, carries them side by side in one event loop, and takes over from dead workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from kintsugi.runtime.breaker import Breaker
from kintsugi.runtime.carried import Carried, Means
from kintsugi.runtime.clock import Moment, RunClock
from kintsugi.runtime.context import MinimalContext
from kintsugi.runtime.journal import Claim, Fenced, Journal
from kintsugi.runtime.leases import (
    HEARTBEAT_SECONDS,
    UNCARRIED,
    Lease,
    Watch,
    claim,
    declare_dead,
    lock_path,
    release,
)
from kintsugi.runtime.policy import Policy
from kintsugi.runtime.protocol import DurableContext, PolicyStop, WorkflowFailed
from kintsugi.runtime.services import Endpoints, Services
from kintsugi.runtime.store import JournalUnavailable, Run, provision
from kintsugi.runtime.suspects import Free, Suspects, fruitless_claims

__all__ = ["Chain", "Worker", "work"]

Chain = Callable[[DurableContext, Mapping[str, Any]], Awaitable[str]]
"""What is durable: it returns a line that says how the run ended."""

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.01
WATCH_SECONDS = 0.05
UNAVAILABLE_SECONDS = 0.25


async def work(environment: Mapping[str, str], chains: Mapping[str, Chain]) -> None:
    """Carry runs of `chains` until cancelled or killed.

    Reads KINTSUGI_TOOLS_URL, _MODEL_URL, _HUMAN_URL, _TOKEN, _STATE_DIR, _WORKER_ID and _TIME_SCALE (wall
    seconds per workflow second, 1 by default). The state directory is waited for if it can't be used yet.
    """
    worker = Worker(
        environment["KINTSUGI_STATE_DIR"],
        environment.get("KINTSUGI_WORKER_ID", "worker"),
        Endpoints.from_environment(environment),
        chains,
        time_scale=float(environment.get("KINTSUGI_TIME_SCALE", "1")),
    )
    await worker.run()


class Worker:
    """One worker process's work."""

    def __init__(
        self,
        state_dir: str,
        worker_id: str,
        endpoints: Endpoints,
        chains: Mapping[str, Chain],
        *,
        time_scale: float = 1.0,
    ) -> None:
        self._state_dir = state_dir
        self._worker_id = worker_id
        self._endpoints = endpoints
        self._chains = chains
        self._time_scale = time_scale
        self._services: dict[tuple[float, float], Services] = {}
        self._carried: dict[str, Carried] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._released: list[str] = []
        self._suspects = Suspects()
        self._left_alone = False

    async def run(self) -> None:
        """Work until cancelled. Declared dead by the others (it was paused for long), it starts over."""
        self._breaker = Breaker()
        try:
            while True:
                try:
                    await self._live_once()
                except JournalUnavailable as error:
                    self._complain(error)
                    await asyncio.sleep(UNAVAILABLE_SECONDS)
        finally:
            for services in self._services.values():
                await services.close()

    def _complain(self, error: Exception) -> None:
        LOG.warning("worker %s: %s", self._worker_id, error)

    # --- presence -----------------------------------------------------------------------------------------

    async def _live_once(self) -> None:
        """One incarnation, from its registration until it is held to be dead."""
        provision(self._state_dir)
        self._lease = Lease(self._state_dir, self._worker_id)
        try:
            self._journal = Journal(self._state_dir, self._lease.beat, HEARTBEAT_SECONDS)
            try:
                await self._journal.write(self._lease.register)
                await self._serve()
            finally:
                await self._drop_everything()
                await self._journal.close()
        finally:
            self._lease.close()

    async def _drop_everything(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._carried.clear()
        self._tasks.clear()
        with suppress(JournalUnavailable):
            # Whoever else lives need not wait for the lock of this incarnation to be found open.
            await self._journal.write(self._lease.resign)

    async def _serve(self) -> None:
        watch = Watch(self._state_dir)
        watch_at = 0.0
        last_signal = 0
        while not self._lease.evicted:
            try:
                if self._journal.changed():
                    for signal in self._journal.signals(after=last_signal):
                        last_signal = signal.signal_id
                        if signal.run_id in self._carried:
                            self._carried[signal.run_id].deliver(signal)
                    await self._claim()
                elif self._left_alone:
                    await self._claim()
                while self._released:
                    await self._journal.write(partial(release, run_id=self._released[0], owner=self._lease.incarnation))
                    self._released.pop(0)
                if time.monotonic() >= watch_at:
                    watch_at = time.monotonic() + WATCH_SECONDS
                    await self._bury(watch)
                await asyncio.sleep(POLL_SECONDS)
            except JournalUnavailable as error:
                # Runs wait for the journal by themselves; to drop them would lose what they have learnt.
                self._complain(error)
                await asyncio.sleep(UNAVAILABLE_SECONDS)
            except Fenced:
                return

    async def _bury(self, watch: Watch) -> None:
        """Take the place of workers that are gone or silent."""
        rows = self._journal.query("SELECT incarnation, beat FROM workers")
        others = [(incarnation, beat) for incarnation, beat in rows if incarnation != self._lease.incarnation]
        for incarnation, beat in watch.dead(others):
            if await self._journal.write(partial(declare_dead, incarnation=incarnation, beat=beat)):
                lock_path(self._state_dir, incarnation).unlink(missing_ok=True)
                await self._claim()

    # --- runs ---------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Take up the runs that no living worker carries."""
        free = [self._free(run_id, Moment(*born)) for run_id, _, *born in self._journal.query(UNCARRIED)]
        due = self._suspects.due(free, time.monotonic())
        self._left_alone = len(due) < len(free)
        if not due:
            return
        for taken in await self._journal.write(partial(claim, run_ids=due, owner=self._lease.incarnation)):
            task = asyncio.create_task(self._carry(taken), name=taken.run_id)
            self._tasks[taken.run_id] = task
            task.add_done_callback(partial(self._put_down, taken.run_id))

    def _free(self, run_id: str, born: Moment) -> Free:
        last = self._journal.query("SELECT kind, at FROM events WHERE run_id = ? ORDER BY seq DESC LIMIT 16", (run_id,))
        idle_seconds = RunClock(born).now() - last[0][1] if last else 0.0
        return Free(run_id, fruitless_claims(kind for kind, _ in last), idle_seconds)

    def _put_down(self, run_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(run_id) is task:
            del self._tasks[run_id]
            self._carried.pop(run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("run %s was put down, to be taken up again", run_id, exc_info=error)
            self._released.append(run_id)

    async def _carry(self, taken: Claim) -> None:
        """Bring a run to its end, as far as it was not brought before."""
        run = self._journal.run(taken.run_id)
        if run is None:
            return
        events = self._journal.events(run.run_id)
        signals = self._journal.signals(run_id=run.run_id)
        try:
            means = self._means(Policy.from_plan(run.payload["plan"]))
            carried = Carried(run, taken, means, events, signals)
            unfit = ""
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            unfit = f"the plan can't be used: {type(error).__name__}: {error}"
            empty = replace(run, payload={"plan": {"tools": {}}})
            carried = Carried(empty, taken, self._means(Policy()), [], [])
        self._carried[run.run_id] = carried
        with suppress(Fenced):
            if carried.ending is None:
                status, detail = ("failed", unfit) if unfit else await self._outcome(run, carried)
                await carried.quiesce("the run is ending")
                await carried.record(carried.event("ending", "", status=status, detail=detail))
            ending = carried.ending or {}
            await carried.until_it_works(
                lambda: carried.means.services.report_end(run.run_id, ending["status"], ending["detail"]),
                stoppable=False,
            )
            await carried.record(carried.event("ended", ""), end=True)

    async def _outcome(self, run: Run, carried: Carried) -> tuple[str, str]:
        """Status and detail of a run's end, as its chain comes to it."""
        name = str(run.payload.get("chain"))
        chain = self._chains.get(name)
        if chain is None:
            return "failed", f"there is no chain {name!r}; this worker has {', '.join(sorted(self._chains))}"
        try:
            return "completed", str(await chain(MinimalContext(carried), carried.plan))
        except PolicyStop as stop:
            return "completed", str(stop)
        except WorkflowFailed as failure:
            return "failed", str(failure)
        except Fenced:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The chain cancelled something of its own, and let that end it.
            return "failed", "CancelledError in the chain"
        except Exception as error:
            # Whatever a chain raises is the end of its run, not of the worker.
            LOG.exception("run %s: its chain raised", run.run_id)
            return "failed", f"{type(error).__name__}: {error}"

    def _means(self, policy: Policy) -> Means:
        timeouts = (policy.tool_timeout_seconds, policy.model_timeout_seconds)
        if timeouts not in self._services:
            self._services[timeouts] = Services(
                self._endpoints, tool_timeout_seconds=timeouts[0], model_timeout_seconds=timeouts[1]
            )
        return Means(self._journal, self._services[timeouts], self._breaker, self._time_scale)
