"""Starts the workers of one trial, and starts again what died: a plain supervisor, the same for every SUT."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kintsugi.harness.processes import worker_environment
from kintsugi.harness.session import TIME_SCALE, Generation, Session

__all__ = ["Supervisor"]

SUPERVISOR_SECONDS = 0.1
"""After how long a supervisor starts a worker again; the same for every SUT."""
STARTS_MAX = 20
STARTS_MAX_PATIENT = 120
"""Where a worker can't live for a while: its server is away, or a run crashes it every time, beyond the hundred
recoveries after which an engine may set such a run aside."""
TAIL_BYTES = 2000
"""How much of what a dead worker printed is kept."""


class Supervisor:
    """Supervises one trial's workers; `patient` where they can't live for a while."""

    def __init__(self, session: Session, *, patient: bool) -> None:
        self._session = session
        self._starts_max = STARTS_MAX_PATIENT if patient else STARTS_MAX
        self.living = 0
        """How many workers there are, those included that are to be started again."""
        self.restarting = 0
        """How many starts of a dead one's successor are under way."""

    async def start(self, node: str) -> None:
        """Start a worker on a node, and let it run; what becomes of it is seen to beside the trial."""
        session = self._session
        generation = session.new_generation(node)
        session.scratch_folder(node).mkdir(exist_ok=True)
        log = session.folder / f"worker{generation.number}.log"
        environment, scratch = self._environment(generation), session.scratch_folder(node)
        cold = self._cold() and not session.adapter.execs
        process = await session.workers.spawn(environment, scratch, log, cold=cold)
        session.let_go(generation, process)
        session.history.add("runner", "started", generation=generation.number, node=node, pid=process.pid)
        self.living += 1
        session.spawn(self._supervise(generation, log))
        session.workers.go(process)

    def _environment(self, generation: Generation) -> dict[str, str]:
        session = self._session
        told = worker_environment(
            session.urls,
            generation.token,
            session.state_folder,
            session.scratch_folder(generation.node),
            generation.node,
            time_scale=TIME_SCALE,
            cold=self._cold(),
        )
        return {**session.environment, **session.node_environments.get(generation.node, {}), **told}

    def _cold(self) -> bool:
        """Whether workers are executed afresh: where times are measured, and where a fault needs it."""
        return self._session.trial.kind == "timing" or self._session.afresh

    async def _supervise(self, generation: Generation, log: Path) -> None:
        """Note how a worker ended, and start it again unless it had done its work or its node is lost."""
        session = self._session
        assert generation.process is not None
        ended = await asyncio.shield(generation.process.ended)
        generation.dead = True
        session.history.add(
            "runner",
            "exited",
            generation=generation.number,
            code=ended.code,
            signal=ended.signal,
            cpu_seconds=ended.cpu_seconds,
            output=_tail(log),
        )
        again = ended.code != 0 and generation.restart and len(session.generations) < self._starts_max
        if again and not session.closing:
            self.restarting += 1
            await asyncio.sleep(SUPERVISOR_SECONDS)
            await session.may_start.wait()
            if not session.closing:
                await self.start(generation.node)
            self.restarting -= 1
        self.living -= 1


def _tail(log: Path) -> str:
    """The end of what a worker printed; empty where it printed nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
