"""Runs one trial: opens its world, has its workers started, submits, waits, leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from kintsugi.faults import FAULTS
from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.crew import Crew
from kintsugi.harness.crossing import Doors, Incoming
from kintsugi.harness.gateway import serve_model
from kintsugi.harness.history import Event, History, Unwritable
from kintsugi.harness.human import Human
from kintsugi.harness.means import MEANS, needed_by
from kintsugi.harness.models.answers import Model, NoAnswer
from kintsugi.harness.poison import poisoned_runs, spoilt
from kintsugi.harness.processes import LauncherGone, VerbFailed
from kintsugi.harness.pulse import Pulse
from kintsugi.harness.session import SECONDS_PER_HOUR, TIME_SCALE, Session
from kintsugi.harness.supervisor import Supervisor
from kintsugi.harness.world import serve_tools
from kintsugi.scenarios.trial import Trial

__all__ = ["run_trial"]

SUBMIT_RETRY_SECONDS = 0.1
SUBMIT_AT_ONCE = 16
"""How many runs are handed over at the same time."""
SETTLE_SECONDS = 1.0
"""How long an interrupted trial waits for what its clients have under way."""
QUIET_SECONDS = 0.25
"""How long after the end report late duplicates are waited for."""
POLL_SECONDS = 0.02
RESTARTED_SECONDS = 2.0
"""How long a worker that was started again has for its first request, before the trial is over without it."""


async def run_trial(
    trial: Trial,
    workflow: Workflow,
    crew: Crew,
    folder: Path,
    history_path: Path,
    deadline_seconds: float,
    pulse: Pulse | None = None,
    model: Model | None = None,
) -> Sequence[Event]:
    """The history of a trial that was run to its end or its deadline. Its folder is gone afterwards.

    `pulse`, which has to beat meanwhile, says whether the harness itself stood still; that is then in the history.
    `model` answers at the gateway; the scripted one, where none is given.
    """
    began = asyncio.get_running_loop().time()
    history = History(history_path)
    session = Session(trial, workflow, crew.adapter, crew.workers, crew.clients, history, folder, crew.environment)
    session.model = model or session.model
    session.server = crew.server
    crew.runs += trial.copies
    try:
        await _Stage(session).play(deadline_seconds)
        session.model.vouch(trial)
    except (Unwritable, LauncherGone):
        raise
    except NoAnswer as error:
        history.add("runner", "broken", error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever breaks a trial is the harness's error, and is recorded as one
        history.add("runner", "broken", error="".join(traceback.format_exception(error))[-4000:])
    finally:
        if pulse is not None and (stalled := pulse.stalled_since(began)):
            history.add("runner", "stalled", seconds=round(stalled, 3))
        history.close()
        await _to_its_end(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
    return history.events


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do work that must not be left half done: being cancelled meanwhile takes effect when it has ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class _Stage:
    """One trial's parts, put together."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.doors = Doors(session, {"tools": serve_tools, "model": serve_model, "human": self._human})
        self.human = Human(session, self.doors.nemesis)
        self.nodes = 1
        self.deadline = 0.0
        """When the trial is over at the latest (event loop seconds)."""
        self.means = AsyncExitStack()
        """What the machine gives this trial, until its workers are dead."""
        self.poisoned = poisoned_runs(session.trial)
        away = any(FAULTS[strike.fault].scope == "server" for strike in session.trial.schedule)
        self.supervisor = Supervisor(session, patient=away or bool(self.poisoned))
        self.others_ended_at = 0.0
        """When the last of those that are not poisoned had ended (event loop seconds); 0 before."""
        self.given_up = False
        """Whether the whole suite is being ended, and its servers with it."""

    async def _human(self, incoming: Incoming) -> None:
        await self.human.serve(incoming)

    async def play(self, deadline_seconds: float) -> None:
        session = self.session
        session.history.add("runner", "trial", trial=session.trial.to_json())
        session.state_folder.mkdir(parents=True)
        try:
            await self.doors.open()
            for name in needed_by(session.trial):
                await self.means.enter_async_context(MEANS[name].prepare(session))
            # Its time begins once it has what it needs, which may have been in use.
            self.deadline = asyncio.get_running_loop().time() + deadline_seconds
            await session.clients.call("provision", str(session.state_folder))
            for then in session.provisioned:
                await asyncio.to_thread(then)
            await self._begin()
            await self._until_over(deadline_seconds)
        except asyncio.CancelledError:
            self.given_up = True
            raise
        finally:
            await _to_its_end(self._clear_up())

    async def _begin(self) -> None:
        """Hand the runs over, and strike right after that."""
        submitted = Point("submit", "start", phase="after")
        # As after any answer: what is asked for between the acknowledgement and the death is held.
        with self.session.holding(wanted=self.doors.nemesis.will_kill(submitted)):
            await self._hand_over()
            run = self.session.runs["r0"]
            run.holder = run.holder or next(iter(self.session.generations.values()))
            await self.doors.nemesis.strike(submitted, run)

    async def _hand_over(self) -> None:
        """Start the workers and submit the runs, in the order that suits the SUT."""
        session = self.session
        nodes = session.nodes()
        self.nodes = len(nodes)
        if session.adapter.submit_first:
            await self._submit()
        for node in nodes:
            await self.supervisor.start(node)
        if not session.adapter.submit_first:
            await self._submit()

    async def _submit(self) -> None:
        """Submit every run, a few at a time: in a storm they are to meet the outage together."""
        session = self.session
        payload = session.payload()
        waiting = iter(list(session.runs))

        async def one_after_another() -> None:
            for run_id in waiting:
                await self._until_acknowledged(run_id, payload)

        await asyncio.gather(*(one_after_another() for _ in range(min(SUBMIT_AT_ONCE, len(session.runs)))))
        session.history.add("runner", "submitted", runs=len(session.runs))

    async def _until_acknowledged(self, run_id: str, payload: Mapping[str, Any]) -> None:
        """Submit a run, again where that was not acknowledged, as a client does: a SUT that stalls breaks no harness.

        One that acknowledges nothing until the deadline is left to it.
        """
        session = self.session
        while True:
            try:
                await session.clients.call("submit", str(session.state_folder), run_id, payload)
            except VerbFailed as error:
                session.history.add("runner", "not_submitted", run=run_id, error=str(error))
            else:
                return
            gone = not session.adapter.submit_first and not self.supervisor.living
            if gone or asyncio.get_running_loop().time() > self.deadline:
                return
            await asyncio.sleep(SUBMIT_RETRY_SECONDS)

    async def _until_over(self, deadline_seconds: float) -> None:
        """Wait for every end report, or until nothing is alive that could still bring one, or for the deadline."""
        session = self.session
        loop = asyncio.get_running_loop()
        while True:
            if session.broken.done():
                session.broken.result()
            ended = all(run.ended.is_set() for run in session.runs.values())
            quiet = loop.time() - session.last_activity > self._quiet_seconds()
            if ended and quiet and not session.in_flight and self._settled(loop.time()):
                break
            if self._spoilt(loop.time()):
                break
            if not ended and not self.supervisor.living and not self._striking():
                session.history.add("runner", "extinct")
                break
            if loop.time() > self.deadline:
                session.history.add("runner", "deadline", seconds=deadline_seconds)
                break
            await asyncio.sleep(POLL_SECONDS)
        for run_id in session.runs:
            status = await self._status(run_id)
            session.history.add("runner", "status", run=run_id, **status)

    def _spoilt(self, now: float) -> bool:
        """Whether only runs that never end are left, and enough was seen of them."""
        others = [run for run in self.session.runs.values() if run.id not in self.poisoned]
        if not self.poisoned or not all(run.ended.is_set() for run in others):
            return False
        self.others_ended_at = self.others_ended_at or now
        return spoilt(self.session, self.others_ended_at, now)

    async def _status(self, run_id: str) -> dict[str, str]:
        """``state`` as the SUT has it; ``unknown``, with the ``error``, where it does not say."""
        try:
            status: Any = await self.session.clients.call("status", str(self.session.state_folder), run_id)
        except VerbFailed as error:
            return {"state": "unknown", "error": str(error)}
        return {"state": str(status.get("state", "unknown"))}

    def _quiet_seconds(self) -> float:
        """How long nothing must happen before a trial is over.

        A worker that was started, or woken, after the end report may do the run again, and wait in it for a timer or
        a person.
        """
        starts = [generation.started_at for generation in self.session.generations.values()]
        starts.append(self.session.disturbed_at)
        if not self.session.first_end or max(starts) < self.session.first_end:
            return QUIET_SECONDS
        waits = [step.sleep_seconds or step.every_seconds or 0.0 for step in self.session.workflow.steps.values()]
        return QUIET_SECONDS + max(max(waits) * TIME_SCALE, SECONDS_PER_HOUR) + RESTARTED_SECONDS

    def _settled(self, now: float) -> bool:
        """Whether every worker that was killed or stopped goes on, and has had its chance to do something twice.

        Otherwise it would depend on the load of the machine whether a late duplicate is seen.
        """
        living = [generation for generation in self.session.generations.values() if not generation.dead]
        again = [generation for generation in living if generation.number > self.nodes or generation.woken]
        if self.session.adapter.submit_first and self.supervisor.living:
            # A script's process ends when its work does.
            return False
        if self.supervisor.restarting or self._striking() or any(generation.stopped for generation in living):
            return False
        return all(g.heard or now - g.started_at > RESTARTED_SECONDS for g in again)

    def _striking(self) -> bool:
        """Whether a strike is being carried out, or what one has begun has not come to its end."""
        return bool(self.doors.nemesis.striking or self.session.under_way)

    async def _clear_up(self) -> None:
        """Leave no process, task or socket behind, whatever state the trial is in."""
        session = self.session
        session.closing = True
        async with AsyncExitStack() as then:
            then.push_async_callback(self.doors.close)
            then.push_async_callback(self.means.aclose)
            then.push_async_callback(session.end_tasks)
            alive = [g.process for g in session.generations.values() if g.process is not None and g.process.alive]
            await asyncio.gather(*(session.workers.kill(process) for process in alive), return_exceptions=True)
            if self.given_up:
                # What a client still does would find the trial's folder gone, or make it again.
                await session.clients.settle(SETTLE_SECONDS)
            await asyncio.sleep(0)
            await self._retire()
        self.doors.nemesis.close()
        for generation in session.generations.values():
            process = generation.process
            if process is not None and process.ended.done() and not process.ended.exception():
                session.history.add(
                    "runner", "used", generation=generation.number, cpu_seconds=process.ended.result().cpu_seconds
                )
        session.history.add("runner", "closed")

    async def _retire(self) -> None:
        """Remove the trial's traces from a shared server; what stays there disturbs no one, so a failure is noted."""
        session = self.session
        if not session.adapter.retires or self.given_up:
            return
        try:
            await session.clients.call("retire", str(session.state_folder))
        except RuntimeError as error:
            session.history.add("runner", "not_retired", error=str(error))
