"""The part of ``kintsugi bench`` that times engines: durable steps a second, and from a restart to the next step.

Every engine is driven as a trial drives it: a worker process, the SUT's own side, the same chain. What is timed is
seen from outside, by the requests that the worker makes.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from kintsugi.harness.adapters import Adapter, Unavailable
from kintsugi.harness.crew import Crew
from kintsugi.harness.processes import worker_environment
from kintsugi.runtime.engines.steps import PLAN

__all__ = ["Figures", "measure_engines"]

CHAINS = "kintsugi.runtime.engines.steps:CHAINS"
RUN_SECONDS_MAX = 120.0
SINGLE_STEPS = 100
MANY_STEPS = 20


@dataclass(frozen=True)
class Figures:
    """What was measured of one engine, each the median of its rounds."""

    single: float
    """Durable steps a second in one workflow."""
    many: float
    """Durable steps a second in `workflows` at once."""
    next_step: float
    """Seconds from starting a worker, cold, in place of a killed one to its next new step."""


class _Outside:
    """The services that a worker talks to; notes when each of their calls came first."""

    def __init__(self) -> None:
        self.first: dict[str, list[float]] = {}
        self.heard = asyncio.Condition()
        self.open = asyncio.Event()
        """While it is not set, ``bench.begin`` is not answered."""
        self.open.set()
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Note the last part of the path, and answer what fits."""
        name = request.path.rpartition("/")[2]
        async with self.heard:
            self.first.setdefault(name, []).append(time.perf_counter())
            self.heard.notify_all()
        if name == "bench.begin":
            await self.open.wait()
        return web.json_response({"result": {}} if name.startswith("bench.") else {"status": "noted"})

    async def until(self, name: str, count: int) -> list[float]:
        """When the first `count` calls of a name came; waits for them. Raises TimeoutError."""
        async with asyncio.timeout(RUN_SECONDS_MAX), self.heard:
            await self.heard.wait_for(lambda: len(self.first.get(name, [])) >= count)
        return self.first[name][:count]


@asynccontextmanager
async def _outside() -> AsyncIterator[_Outside]:
    outside = _Outside()
    runner = web.ServerRunner(web.Server(outside.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    outside.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield outside
    finally:
        await runner.cleanup()


class _Bench:
    """One engine's crew, and what is done with it."""

    def __init__(self, crew: Crew, folder: Path) -> None:
        self._crew = crew
        self._folder = folder
        self._numbers = itertools.count(1)
        self._single: list[float] = []
        self._many: list[float] = []
        self._next_step: list[float] = []

    async def round(self, workflows: int) -> None:
        """Take each figure once."""
        self._single.append(await self.steps_a_second(1, SINGLE_STEPS))
        self._many.append(await self.steps_a_second(workflows, MANY_STEPS))
        self._next_step.append(await self.seconds_to_the_next_step())

    def figures(self) -> Figures:
        """The medians."""
        return Figures(*map(statistics.median, (self._single, self._many, self._next_step)))

    async def steps_a_second(self, workflows: int, steps: int) -> float:
        """From the first workflow's first call to the last one's last, with all of them submitted at once."""
        async with (
            _outside() as outside,
            self._trial(outside) as (state, environment),
            self._worker(environment, cold=False),
        ):
            await asyncio.gather(*(self._submit(state, f"r{n}", steps) for n in range(workflows)))
            began = (await outside.until("bench.begin", 1))[0]
            ended = (await outside.until("bench.next", workflows))[-1]
            await outside.until("end", workflows)
        return workflows * steps / (ended - began)

    async def seconds_to_the_next_step(self) -> float:
        """Kill the worker in its first call, start another in its place, and time it until it gets to the next."""
        async with _outside() as outside, self._trial(outside) as (state, environment):
            outside.open.clear()
            async with self._worker(environment, cold=False):
                await self._submit(state, "r0", 0)
                await outside.until("bench.begin", 1)
            outside.open.set()
            started = time.perf_counter()
            async with self._worker(environment, cold=True):
                (reached,) = await outside.until("bench.next", 1)
        return reached - started

    @asynccontextmanager
    async def _trial(self, outside: _Outside) -> AsyncIterator[tuple[Path, dict[str, str]]]:
        folder = self._folder / f"b{next(self._numbers)}"
        state = folder / "state"
        await asyncio.to_thread(state.mkdir, parents=True)
        await self._crew.clients.call("provision", str(state))
        urls = dict.fromkeys(("tools", "model", "human"), outside.url)
        told = worker_environment(urls, "bench", state, folder, "node1", time_scale=1.0, cold=True)
        try:
            yield state, {**self._crew.environment, **told}
        finally:
            if self._crew.adapter.retires:
                await self._crew.clients.call("retire", str(state))

    @asynccontextmanager
    async def _worker(self, environment: Mapping[str, str], *, cold: bool) -> AsyncIterator[None]:
        """A worker while the block runs; killed at its end."""
        folder = Path(environment["KINTSUGI_SCRATCH_DIR"])
        worker = await self._crew.workers.spawn(environment, folder, folder / "worker.log", cold=cold)
        self._crew.workers.go(worker)
        try:
            yield
        finally:
            await self._crew.workers.kill(worker)

    async def _submit(self, state: Path, run_id: str, steps: int) -> None:
        payload: dict[str, Any] = {"chain": "steps", "plan": {**PLAN, "steps_to_do": steps}}
        await self._crew.clients.call("submit", str(state), run_id, payload)


async def measure_engines(
    adapters: Sequence[Adapter], folder: Path, workflows: int, rounds: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Figures | str]:
    """The figures of each engine by its name, or why it has none; they take turns, so that each meets the same disk.

    `tell` hears what begins next.
    """
    async with AsyncExitStack() as crews:
        benches: dict[str, _Bench | str] = {}
        for adapter in adapters:
            place = folder / adapter.name
            crew = Crew(replace(adapter, chains=CHAINS), place / "server")
            crews.push_async_callback(crew.close)
            try:
                await crew.start()
            except Unavailable as problem:
                benches[adapter.name] = str(problem)
            else:
                benches[adapter.name] = _Bench(crew, place)
        for number in range(1, rounds + 1):
            for name, bench in benches.items():
                if isinstance(bench, _Bench):
                    tell(f"durable steps, round {number} of {rounds}: {name}")
                    try:
                        await bench.round(workflows)
                    except (TimeoutError, RuntimeError) as error:
                        benches[name] = f"{name}: {str(error) or 'it did not come to its end'}"
        return {name: bench.figures() if isinstance(bench, _Bench) else bench for name, bench in benches.items()}
