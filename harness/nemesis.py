"""The nemesis: an interpreter of actions. It strikes armed points, and records what it saw as the witness.

A strike's life is ``armed → injected → witnessed``; each change is an event of the history. A new fault class adds no
code here, as long as it is composed of the actions there are.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Action, Answer, Corrupt, Cut, Decide, Drift, Hold, Kill, Outage, Pause, Refuse
from kintsugi.faults.points import Point
from kintsugi.harness.session import TIME_SCALE, Generation, Run, Session
from kintsugi.scenarios.trial import Strike

__all__ = ["Crossing", "Directive", "Nemesis"]

PARKED = 0.4
"""The part of a timer after which the SUT is taken to be parked on it."""


@dataclass
class Crossing:
    """One request that crosses a boundary, with the identity that the workflow gives it."""

    request: int
    run: Run
    generation: Generation
    kind: str
    step: str
    item: int
    occurrence: int
    gone: asyncio.Event
    """Set when the client closed the connection."""

    def point(self, phase: str) -> Point:
        """The point that this request is at in a phase."""
        return Point(self.kind, self.step, self.item, self.occurrence, phase)

    def named(self) -> dict[str, Any]:
        """Identity, for an event of the history."""
        return {
            "request": self.request,
            "run": self.run.id,
            "generation": self.generation.number,
            "step": self.step,
            "item": self.item,
            "occurrence": self.occurrence,
        }


@dataclass(frozen=True)
class Directive:
    """What becomes of the request that was struck, in place of its ordinary course."""

    what: Literal["drop", "reset", "empty", "answer"]
    status: int = 0
    retry_after_seconds: float | None = None
    done: Callable[[bool], None] | None = None
    """Told afterwards whether it could be done, which is its witness."""


class _Armed:
    """One strike of the schedule and how far it has come."""

    def __init__(self, index: int, strike: Strike) -> None:
        self.index = index
        self.strike = strike
        self.actions = FAULTS[strike.fault].form(strike.form).actions
        self.times = max((getattr(action, "times", 1) for action in self.actions), default=1)
        self.done = 0
        self.begun = False
        """Whether its point was reached; what is done at any step from there on may find nothing to do at first."""
        self.witnessed = False
        self.lapsed = False
        self.decided = False
        """Whether the person has begun to answer as the strike says."""
        self.timed = False
        """Whether the timer that is to be struck has begun."""

    def matches(self, point: Point, *, any_step: bool = False) -> bool:
        """Whether a point is the one to strike, or a repeat of it while strikes are left."""
        wanted = self.strike.point
        if self.lapsed or self.done >= self.times or (point.kind, point.phase) != (wanted.kind, wanted.phase):
            return False
        if self.begun and any_step:
            return True
        if (point.step, point.item) != (wanted.step, wanted.item):
            return False
        return point.occurrence >= wanted.occurrence if self.done else point.occurrence == wanted.occurrence


@dataclass
class _Stopped:
    """A worker that stands still, and the run it held."""

    victim: Generation
    run: Run
    successor: asyncio.Future[Generation]
    """The first other worker that sent a request for the run since."""


class Nemesis:
    """Carries out the schedule of one trial."""

    def __init__(self, session: Session, refuse: Callable[[str, float], Any]) -> None:
        self._session = session
        self._refuse = refuse
        self._armed = [_Armed(index, strike) for index, strike in enumerate(session.trial.schedule)]
        self._outage_until: float | None = None
        self._stopped: list[_Stopped] = []
        self.striking = 0
        """How many strikes are being carried out: a trial is not over before the last one is witnessed."""
        for armed in self._armed:
            session.history.add("nemesis", "armed", strike=armed.index, is_=str(armed.strike))

    def _inject(self, armed: _Armed, **data: Any) -> None:
        armed.done += 1
        self._session.history.add("nemesis", "injected", strike=armed.index, is_=str(armed.strike), **data)

    def _witness(self, armed: _Armed, evidence: str, **data: Any) -> None:
        armed.witnessed = True
        self._session.history.add("nemesis", "witnessed", strike=armed.index, evidence=evidence, **data)

    def will_kill_after(self, crossing: Crossing) -> bool:
        """Whether the worker is to be killed once this request's response is delivered."""
        return any(armed.matches(crossing.point("after")) for armed in self._armed)

    async def at(self, crossing: Crossing, phase: str) -> Directive | None:
        """Strike what is armed for a request in a phase; what becomes of the request then."""
        return await self.strike(crossing.point(phase), crossing.run, crossing)

    async def strike(self, point: Point, run: Run, crossing: Crossing | None = None) -> Directive | None:
        """Strike what is armed for a point, with or without a request that is at it."""
        directive = None
        for armed in self._armed:
            if not armed.matches(point) or any(isinstance(a, (Decide, Outage, Corrupt)) for a in armed.actions[:1]):
                continue
            self._inject(armed, request=crossing.request if crossing else None)
            self.striking += 1
            try:
                for action in armed.actions:
                    directive = await self._do(armed, action, run, crossing) or directive
            finally:
                self.striking -= 1
        return directive

    async def _do(self, armed: _Armed, action: Action, run: Run, crossing: Crossing | None) -> Directive | None:
        if isinstance(action, Kill):
            return await self._kill(armed, action, crossing.generation if crossing else run.holder)
        if isinstance(action, Pause):
            await self._pause(armed, action, run, crossing.generation if crossing else run.holder)
            return None
        if isinstance(action, Drift):
            self._drift(armed, run)
        elif crossing is not None and isinstance(action, Hold):
            return await self._hold(armed, action, crossing)
        elif crossing is not None and isinstance(action, Cut):
            return Directive(action.how, done=self._ended_by_us(armed, crossing))
        elif crossing is not None and isinstance(action, Answer):
            evidence = f"answered {action.status} in place of the result"
            return Directive(
                "answer", action.status, action.retry_after_seconds, self._ended_by_us(armed, crossing, evidence)
            )
        elif crossing is not None and isinstance(action, Refuse):
            down = self._refuse(crossing.kind, action.seconds)
            self._session.spawn(self._witness_refusal(armed, down))
            return Directive("reset")
        return None

    def _ended_by_us(
        self, armed: _Armed, crossing: Crossing, evidence: str = "connection ended by us, no byte of a response"
    ) -> Callable[[bool], None]:
        """To be told whether it was done, or the client had gone before."""

        def say(done: bool) -> None:  # noqa: FBT001 - a callback of one fact
            if done:
                self._witness(armed, evidence, request=crossing.request)
            elif not armed.witnessed:
                self._session.history.add("nemesis", "missed", strike=armed.index, why="the client had gone before")

        return say

    async def _kill(self, armed: _Armed, action: Kill, victim: Generation | None) -> Directive:
        if victim is None or victim.process is None:
            self._session.history.add("nemesis", "missed", strike=armed.index, why="no worker had taken the run up")
            return Directive("drop")
        if action.delay_ms:
            await asyncio.sleep(action.delay_ms / 1000)
        if victim.dead:
            # Its end is that of an earlier strike, or its own: not to be counted again.
            self._session.history.add("nemesis", "missed", strike=armed.index, why="the worker was dead already")
            return Directive("drop")
        victim.restart = action.restart == "same_node"
        ended = await self._session.workers.kill(victim.process)
        victim.dead = True
        if ended.signal != 9:
            why = f"the worker had ended by itself with {ended.code}"
            self._session.history.add("nemesis", "missed", strike=armed.index, why=why)
            return Directive("drop")
        evidence = "reaped with signal 9"
        if action.lose_scratch:
            scratch = self._session.scratch_folder(victim.node)
            await asyncio.to_thread(shutil.rmtree, scratch)
            evidence += f", scratch folder gone: {not scratch.exists()}"
        self._witness(armed, evidence, generation=victim.number, pid=victim.process.pid)
        return Directive("drop")

    async def _pause(self, armed: _Armed, action: Pause, run: Run, victim: Generation | None) -> None:
        """Stop a worker; it is woken beside the trial, once another one has taken its run over."""
        if victim is None or victim.process is None or not await self._session.workers.stop(victim.process):
            self._session.history.add("nemesis", "missed", strike=armed.index, why="no worker that could be stopped")
            return
        victim.stopped = True
        stopped = _Stopped(victim, run, asyncio.get_running_loop().create_future())
        self._stopped.append(stopped)
        self._tell_of(armed, victim, "stopped", "SIGSTOP, and all its threads stand still")
        self._session.spawn(self._wake(armed, action, stopped))

    async def _wake(self, armed: _Armed, action: Pause, stopped: _Stopped) -> None:
        loop, victim = asyncio.get_running_loop(), stopped.victim
        began = loop.time()
        await asyncio.wait([stopped.successor], timeout=action.seconds_max)
        self._stopped.remove(stopped)
        assert victim.process is not None
        victim.heard = False
        goes_on = await self._session.workers.resume(victim.process)
        seconds = round(loop.time() - began, 3)
        victim.stopped, victim.woken, victim.started_at = False, True, loop.time()
        if not goes_on:
            why = "the worker did not live on after it was stopped"
            self._session.history.add("nemesis", "missed", strike=armed.index, why=why)
            return
        self._tell_of(armed, victim, "continued", f"SIGCONT after {seconds:g} s")
        if not stopped.successor.done():
            why = f"nobody had taken the run over after {seconds:g} s"
            self._session.history.add("nemesis", "missed", strike=armed.index, why=why)
            return
        successor = stopped.successor.result().number
        evidence = f"stopped for {seconds:g} s, worker {successor} took the run over, then it was continued"
        self._witness(armed, evidence, generation=victim.number, successor=successor, stopped_seconds=seconds)

    def _tell_of(self, armed: _Armed, victim: Generation, what: str, evidence: str) -> None:
        assert victim.process is not None
        said = {"generation": victim.number, "pid": victim.process.pid, "evidence": evidence}
        self._session.history.add("nemesis", what, strike=armed.index, **said)

    def taken_up(self, run: Run, by: Generation) -> None:
        """A worker has sent a request for a run; where the run's own stands still, that is who took it over."""
        for stopped in self._stopped:
            if stopped.run is run and stopped.victim is not by and not stopped.successor.done():
                stopped.successor.set_result(by)

    def _drift(self, armed: _Armed, run: Run) -> None:
        drift = self._session.workflow.drifts[self._session.trial.drift]
        before = run.records.version(drift.record)
        after = run.records.change(drift.record, drift.set)
        self._session.history.add("world", "drift", run=run.id, record=drift.record, set=drift.set, version=after)
        self._witness(armed, f"{drift.record} moved from version {before} to {after}", record=drift.record)

    async def _hold(self, armed: _Armed, action: Hold, crossing: Crossing) -> Directive:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await asyncio.wait_for(crossing.gone.wait(), action.seconds_max)
        except TimeoutError:
            # A client without a time-out: the silence was served all the same, and then the connection is closed.
            evidence = f"silent for {action.seconds_max:g} s, then the connection was closed by us"
            self._witness(armed, evidence, request=crossing.request)
            return Directive("empty")
        if self._session.closing:
            self._session.history.add("nemesis", "missed", strike=armed.index, why="the trial ended first")
            return Directive("drop")
        held = round(loop.time() - started, 3)
        self._witness(armed, f"the client gave up after {held:g} s", request=crossing.request, held_seconds=held)
        return Directive("drop")

    async def _witness_refusal(self, armed: _Armed, down: Any) -> None:
        seconds = await down
        self._witness(armed, f"connection reset by us, then the port refused for {seconds:.2f} s")

    def corruption(self, crossing: Crossing) -> tuple[Callable[[bool], None], str] | None:
        """How the model's reply to this request is to be damaged, and where to say whether its bytes now differ."""
        for armed in self._armed:
            for action in armed.actions:
                everywhere = isinstance(action, Corrupt) and action.how == "repeat_last_call"
                if isinstance(action, Corrupt) and armed.matches(crossing.point("during"), any_step=everywhere):
                    armed.begun = True
                    return self._corrupted(armed, crossing.request, action.how), action.how
        return None

    def _corrupted(self, armed: _Armed, request: int, how: str) -> Callable[[bool], None]:
        def say(differs: bool) -> None:  # noqa: FBT001 - a callback of one fact
            if not differs:
                # There was nothing to damage, as there is no last call to repeat in a first reply.
                return
            self._inject(armed, request=request, how=how)
            if not armed.witnessed:
                self._witness(armed, "the bytes sent differ from the script's", request=request)

        return say

    def outage(self, tool: str, crossing: Crossing) -> Answer | None:
        """The answer of a tool that is out of order now; its outage begins with its first request."""
        now = asyncio.get_running_loop().time()
        for armed in self._armed:
            action = armed.actions[0]
            if not isinstance(action, Outage) or tool != self._tool_of(armed.strike.point):
                continue
            if self._outage_until is None:
                self._inject(armed, request=crossing.request, tool=tool, seconds=action.seconds)
                self._outage_until = now + action.seconds
            if now < self._outage_until:
                if not armed.witnessed:
                    self._witness(armed, f"{tool} refused a request with {action.status}", request=crossing.request)
                return Answer(action.status, action.retry_after_seconds)
        return None

    def _tool_of(self, point: Point) -> str | None:
        return self._session.workflow.steps[point.step].tool

    def decision(self, step: str, item: int) -> tuple[Decide, Callable[[str], None]] | None:
        """How the person answers the approval of this step, where the schedule says, and where to witness it.

        Asked again, the person says the same again.
        """
        for armed in self._armed:
            if armed.strike.point.kind == "human" and (armed.strike.point.step, armed.strike.point.item) == (
                step,
                item,
            ):
                for action in armed.actions:
                    if isinstance(action, Decide):
                        if armed.actions[0] is action and not armed.decided:
                            self._inject(armed)
                        armed.decided = True
                        return action, lambda evidence, armed=armed: self._witness(armed, evidence)
        return None

    def mend(self) -> None:
        """End what is still being done: a person has stepped in."""
        for armed in self._armed:
            if armed.done:
                armed.lapsed = True
        self._outage_until = 0.0 if self._outage_until is not None else None

    def close(self) -> None:
        """At the end of the trial: note what was begun and could not come about, because the SUT had ended."""
        for armed in self._armed:
            if armed.decided and armed.done and not armed.witnessed:
                self._session.history.add("nemesis", "missed", strike=armed.index, why="the decision was never fetched")

    def timer_begins(self, crossing: Crossing) -> None:
        """Where a timer with an armed fault begins with this answer, strike it once the SUT is parked on it.

        A timer crosses no boundary; it is known to run from the answer of the boundary before it.
        """
        for armed in self._armed:
            point = armed.strike.point
            if point.kind != "timer" or armed.timed:
                continue
            if (crossing.kind, crossing.step, crossing.item) == self._session.before_timer.get(point.step):
                armed.timed = True
                self._session.spawn(self._strike_timer(point, crossing.run))

    async def _strike_timer(self, point: Point, run: Run) -> None:
        seconds = self._session.workflow.steps[point.step].sleep_seconds or 0.0
        await asyncio.sleep(seconds * TIME_SCALE * PARKED)
        await self.strike(point, run)
