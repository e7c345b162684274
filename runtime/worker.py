"""A worker: it claims runs, carries them side by side in one event loop, and takes over from dead workers."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from kintsugi.runtime.breaker import Breaker
from kintsugi.runtime.carried import Carried, Means
from kintsugi.runtime.context import MinimalContext
from kintsugi.runtime.journal import Claim, Fenced, Journal
from kintsugi.runtime.leases import HEARTBEAT_SECONDS, UNCARRIED, Lease, Watch, claim, declare_dead
from kintsugi.runtime.policy import Policy
from kintsugi.runtime.protocol import DurableContext, PolicyStop, WorkflowFailed
from kintsugi.runtime.services import Endpoints, Services
from kintsugi.runtime.store import JournalUnavailable

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Chain", "Worker", "work"]

Chain = Callable[[DurableContext, Mapping[str, Any]], Awaitable[str]]
"""What is durable: it returns a line that says how the run ended."""

POLL_SECONDS = 0.01
WATCH_SECONDS = 0.05
UNAVAILABLE_SECONDS = 0.25
CLAIMS_AT_ONCE = 3
"""So often a run is taken up without delay although it got no further the last times."""
CLAIM_DELAY_SECONDS = 0.1
CLAIM_DELAY_SECONDS_MAX = 5.0


async def work(environment: Mapping[str, str], chains: Mapping[str, Chain]) -> None:
    """Carry runs of `chains` until cancelled or killed.

    Reads KINTSUGI_TOOLS_URL, _MODEL_URL, _HUMAN_URL, _TOKEN, _STATE_DIR, _WORKER_ID and _TIME_SCALE (wall
    seconds per workflow second, 1 by default). The state directory is waited for if it can't be used yet.
    """
    worker = Worker(
        environment["KINTSUGI_STATE_DIR"],
        environment["KINTSUGI_WORKER_ID"],
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
        self._first_seen: dict[str, float] = {}

    async def run(self) -> None:
        """Work until cancelled. Declared dead by the others (it was paused for long), it starts over."""
        self._breaker = Breaker()
        try:
            while True:
                try:
                    await self._live_once()
                except JournalUnavailable as error:
                    print(f"worker {self._worker_id}: {error}", file=sys.stderr)
                    await asyncio.sleep(UNAVAILABLE_SECONDS)
        finally:
            for services in self._services.values():
                await services.close()

    async def _live_once(self) -> None:
        """One incarnation, from its registration until it is held to be dead."""
        self._lease = Lease(self._state_dir, self._worker_id)
        try:
            self._journal = Journal(self._state_dir, self._lease.beat, HEARTBEAT_SECONDS)
            try:
                await self._journal.write(self._lease.register)
                self._lease.evicted = False
                await self._serve()
                await self._drop_everything()
            finally:
                await self._drop_everything()
                await self._journal.close()
        finally:
            self._lease.close()
