"""The nemesis: it knows the schedule of a trial, says when a strike is due, and has it done.

A strike's life is ``armed → injected → witnessed``; each change is an event of the history. A new fault class adds no
code here, as long as it is composed of the actions there are; a new action is a deed of its own (`harness.deeds`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kintsugi.faults.actions import Answer, Corrupt, Decide, Kill, Outage
from kintsugi.faults.points import Point
from kintsugi.harness.deeds import DEEDS
from kintsugi.harness.deeds.blow import Armed, Blow, Crossing, Directive
from kintsugi.harness.session import TIME_SCALE, Run, Session
from kintsugi.harness.waits import did_not_survive

__all__ = ["Nemesis"]

PARKED = 0.4
"""The part of a timer after which the SUT is taken to be parked on it."""


class Nemesis:
    """Carries out the schedule of one trial."""

    def __init__(self, session: Session, close_port: Callable[[str, float], Any]) -> None:
        self._session = session
        self._close_port = close_port
        self._armed = [Armed(session, index, strike) for index, strike in enumerate(session.trial.schedule)]
        self._outage_until: float | None = None
        self.striking = 0
        """How many strikes are being carried out: a trial is not over before the last one is witnessed."""

    def _due(self, armed: Armed) -> bool:
        """Whether a strike's turn has come: one that follows another waits until that was witnessed."""
        return not armed.strike.then or self._armed[armed.index - 1].witnessed

    def will_strike(self, point: Point) -> bool:
        """Whether something is to be done at a point that is about to be reached."""
        return any(self._due(armed) and armed.matches(point) for armed in self._armed)

    def will_kill(self, point: Point) -> bool:
        """Whether a worker is to be killed at a point that is about to be reached."""
        return any(self._due(a) and a.matches(point) and isinstance(a.actions[0], Kill) for a in self._armed)

    async def at(self, crossing: Crossing, phase: str) -> Directive | None:
        """Strike what is armed for a request in a phase; what becomes of the request then."""
        return await self.strike(crossing.point(phase), crossing.run, crossing)

    async def strike(self, point: Point, run: Run, crossing: Crossing | None = None) -> Directive | None:
        """Strike what is armed for a point, with or without a request that is at it."""
        directive = None
        # Told before the first is done: what is to follow it meets the next request.
        due = [armed for armed in self._armed if self._due(armed) and armed.matches(point) and armed.is_of(run)]
        for armed in due:
            if type(armed.actions[0]) not in DEEDS:
                continue
            armed.inject(request=crossing.request if crossing else None)
            self.striking += 1
            try:
                for action in armed.actions:
                    if (deed := DEEDS.get(type(action))) is not None:
                        blow = Blow(self._session, armed, action, run, crossing, self._close_port)
                        directive = await deed(blow) or directive
            finally:
                self.striking -= 1
        return directive

    def corruption(self, crossing: Crossing) -> tuple[Callable[[bool], None], str] | None:
        """How the model's reply to this request is to be damaged, and where to say whether its bytes now differ."""
        for armed in self._armed:
            for action in armed.actions if self._due(armed) else ():
                everywhere = isinstance(action, Corrupt) and action.how == "repeat_last_call"
                if isinstance(action, Corrupt) and armed.matches(crossing.point("during"), any_step=everywhere):
                    armed.begun = True
                    return self._corrupted(armed, crossing.request, action.how), action.how
        return None

    def _corrupted(self, armed: Armed, request: int, how: str) -> Callable[[bool], None]:
        def say(differs: bool) -> None:  # noqa: FBT001 - a callback of one fact
            if not differs:
                # There was nothing to damage, as there is no last call to repeat in a first reply.
                return
            armed.inject(request=request, how=how)
            if not armed.witnessed:
                armed.witness("the bytes sent differ from the script's", request=request)

        return say

    def outage(self, tool: str, crossing: Crossing) -> Answer | None:
        """The answer of a tool that is out of order now; its outage begins with its first request."""
        now = asyncio.get_running_loop().time()
        for armed in self._armed:
            action = armed.actions[0]
            if not isinstance(action, Outage) or not self._due(armed) or tool != self._tool_of(armed.strike.point):
                continue
            if self._outage_until is None:
                armed.inject(request=crossing.request, tool=tool, seconds=action.seconds)
                self._outage_until = now + action.seconds
            if now < self._outage_until:
                if action.status and not armed.witnessed:
                    armed.witness(f"{tool} refused a request with {action.status}", request=crossing.request)
                return Answer(action.status, action.retry_after_seconds)
        return None

    def unanswered(self, crossing: Crossing) -> None:
        """Note that a tool that is out of order has left a request without an answer, and its client has gone."""
        for armed in self._armed:
            silent = isinstance(armed.actions[0], Outage) and not armed.actions[0].status
            if silent and armed.done and not armed.witnessed and not self._session.closing:
                armed.witness("a request had no answer until its client gave up", request=crossing.request)

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
                            armed.inject()
                        armed.decided = True
                        return action, lambda evidence, armed=armed: armed.witness(evidence)
        return None

    def mend(self) -> None:
        """End what is still being done: a person has stepped in."""
        for armed in self._armed:
            if armed.done:
                armed.lapsed = True
        for link in self._session.links.values():
            link.mend()
        self._outage_until = 0.0 if self._outage_until is not None else None

    def close(self) -> None:
        """At the end of the trial: note of each decision that nobody fetched whether a SUT failed to wait for it."""
        for armed in self._armed:
            if not armed.decided or not armed.done or armed.witnessed:
                continue
            decide = next(action for action in armed.actions if isinstance(action, Decide))
            if evidence := did_not_survive(self._session.history.events, decide, armed.strike.point):
                armed.witness(evidence)
            else:
                armed.missed("the decision was never fetched")

    def timer_begins(self, crossing: Crossing) -> None:
        """Where a timer with an armed fault begins with this answer, strike it once the SUT is parked on it.

        A timer crosses no boundary; it is known to run from the answer of the boundary before it.
        """
        for armed in self._armed:
            point = armed.strike.point
            if point.kind != "timer" or armed.timed or not self._due(armed):
                continue
            before = self._session.before_timer.get(point.step, [])
            here = (crossing.kind, crossing.step, crossing.item)
            if here in before and all(crossing.run.delivered[boundary] for boundary in before):
                armed.timed = True
                self._session.spawn(self._strike_timer(point, crossing.run))

    async def _strike_timer(self, point: Point, run: Run) -> None:
        seconds = self._session.workflow.steps[point.step].sleep_seconds or 0.0
        await asyncio.sleep(seconds * TIME_SCALE * PARKED)
        await self.strike(point, run)
