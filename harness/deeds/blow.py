"""One blow: an action that is due, at a request or beside one, and the ways in which a deed says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aiohttp import web

from kintsugi.faults.points import Point
from kintsugi.harness.session import Generation, Run, Session
from kintsugi.scenarios.trial import Strike

if TYPE_CHECKING:
    from kintsugi.harness.crossing import Incoming

__all__ = ["Armed", "Blow", "Crossing", "Deed", "Directive", "Link", "Manner", "Tampering"]


Manner = Callable[["Incoming", web.StreamResponse, bytes], Awaitable[bool]]
"""Writes a response with this body to an incoming request; whether all of it was delivered."""


@dataclass(frozen=True)
class Tampering:
    """A change of a result, and where to say whether what it made of one has been delivered."""

    how: str
    change: Callable[[Any], Any]
    done: Callable[[bool], None]


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
    manner: Manner | None = None
    """How the answer's body is to be written; None for at once and whole."""
    tampering: Tampering | None = None
    """What is to be done to its result on the way out."""

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
    retry_after: str = ""
    done: Callable[[bool], None] | None = None
    """Told afterwards whether it could be done, which is its witness."""


class Armed:
    """One strike of the schedule and how far it has come: armed, injected, witnessed, each an event of the history."""

    def __init__(self, session: Session, index: int, strike: Strike) -> None:
        self._session = session
        self.index = index
        self.strike = strike
        self.actions = strike.form_struck.actions
        self.times = max((getattr(action, "times", 1) for action in self.actions), default=1)
        self.done = 0
        self.begun = False
        """Whether its point was reached; what is done at any step from there on may find nothing to do at first."""
        self.witnessed = False
        self.lapsed = False
        self.until: float | None = None
        """Until when it lasts (event loop seconds), where it is done for a while; None before it has begun."""
        self.decided = False
        """Whether the person has begun to answer as the strike says."""
        self.timed = False
        """Whether the timer that is to be struck has begun."""
        session.history.add("nemesis", "armed", strike=index, is_=str(strike))

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

    def is_of(self, run: Run) -> bool:
        """Whether it is meant for this run, where several run at once."""
        return all(getattr(action, "run", run.id) == run.id for action in self.actions)

    def inject(self, **data: Any) -> None:
        """Note that the strike is being done."""
        self.done += 1
        self._session.history.add("nemesis", "injected", strike=self.index, is_=str(self.strike), **data)

    def witness(self, evidence: str, **data: Any) -> None:
        """Note what was seen of it from outside the SUT."""
        self.witnessed = True
        self._session.history.add("nemesis", "witnessed", strike=self.index, evidence=evidence, **data)

    def missed(self, why: str) -> None:
        """Note that it came to nothing, and why; the trial was then not exposed to it."""
        self._session.history.add("nemesis", "missed", strike=self.index, why=why)

    def tell(self, what: str, victim: Generation, evidence: str, **data: Any) -> None:
        """Note a part of it that was seen, as that its victim was ``stopped``."""
        assert victim.process is not None
        said = {"generation": victim.number, "pid": victim.process.pid, "evidence": evidence, **data}
        self._session.history.add("nemesis", what, strike=self.index, **said)


@dataclass(frozen=True)
class Blow:
    """An action that is due now. `crossing` is the request that is at the point, None where none is."""

    session: Session
    armed: Armed
    action: Any
    run: Run
    crossing: Crossing | None
    close_port: Callable[[str, float], Awaitable[float]]
    """Closes the port of a kind of service for some seconds; the awaitable gives the time it was really down."""

    @property
    def request(self) -> int | None:
        """The number of the request that is at the point, None where none is."""
        return self.crossing.request if self.crossing else None

    async def victim(self) -> Generation | None:
        """The worker that is struck: whose request it is, or else who has the run, who may only just be starting."""
        return self.crossing.generation if self.crossing else await self.session.somebody(self.run)

    def reaped(self, victim: Generation, evidence: str, **data: Any) -> None:
        """Witness the end of a worker.

        It names its request: on another node the run may be taken up, and struck, before this end is seen.
        """
        assert victim.process is not None
        said = {"request": self.request, "generation": victim.number, "pid": victim.process.pid, **data}
        self.armed.witness(evidence, **said)

    def ended_by_us(self, evidence: str) -> Callable[[bool], None]:
        """To be told whether a request was ended as it was to be, or its client had gone before."""

        def say(done: bool) -> None:  # noqa: FBT001 - a callback of one fact
            if done:
                self.armed.witness(evidence, request=self.request)
            elif not self.armed.witnessed:
                self.armed.missed("the client had gone before")

        return say


class Link(Protocol):
    """The way between the workers and a service, or their store, where something of the machine lies on it."""

    async def strike(self, blow: Blow) -> Directive | None:
        """Do to it what the blow's action says."""
        ...

    async def sever(self) -> str:
        """End every connection, and refuse new ones until `restore`; what was seen of that, empty where it was not."""
        ...

    async def restore(self) -> bool:
        """Let connections through again; whether they were refused until now."""
        ...

    def mend(self) -> None:
        """End what is being done to it: a person has stepped in."""
        ...

    async def before(self, response: web.StreamResponse, size: int) -> None:
        """A response with a body of `size` bytes is about to be written to it."""
        ...

    async def came_through(self, incoming: Incoming, size: int) -> bool:
        """A response with a body of `size` bytes has been written to it; whether its client can have all of it."""
        ...


Deed = Callable[[Blow], Awaitable[Directive | None]]
"""Does an action; what becomes of the request that was struck, or None where it takes its ordinary course."""
