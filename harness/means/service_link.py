"""The link from the workers to a door of ours: each response that meets a toxic is known, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from kintsugi.faults.actions import Toxic
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.deeds.blow import Armed, Blow, Directive
from kintsugi.harness.means.links import POLL_SECONDS, ProxiedLink, least_seconds
from kintsugi.harness.means.toxiproxy_control import Control, taken_bytes
from kintsugi.harness.session import Generation, Run, Session

__all__ = ["ServiceLink", "head_bytes"]

LOSES = frozenset({"timeout", "reset_peer", "limit_data"})
"""The toxics that keep an answer, or its end, from its client."""
HELD_MAX_SECONDS = 30.0
"""How long a client without a time-out is left without an answer."""
GRACE_SECONDS = 0.25
"""How long after a toxic is lifted the connections that it has hurt may take to end."""
HEAD_BYTES_LEAST = 100
"""Less than the head of any response of a door."""


def head_bytes(response: web.StreamResponse, size: int) -> int:
    """How long the head of a response will be, which is not yet prepared."""
    added = {"Content-Length": str(size), "Date": rfc822_formatted_time(), "Server": SERVER_SOFTWARE}
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in {**response.headers, **added}.items()]
    return sum(len(line) + len("\r\n") for line in [*lines, ""])


class ServiceLink(ProxiedLink):
    """The way from the workers to a door."""

    def __init__(self, session: Session, control: Control, name: str, port: int, upstream: int, far_side: str) -> None:
        super().__init__(session, control, name, port, upstream, far_side)
        self._action = Toxic("timeout")
        self._attributes: dict[str, int] = {}
        self._left = 0
        """How many more responses are to meet the toxic."""

    async def strike(self, blow: Blow) -> Directive | None:
        """Put the toxic on while a request is held at the door, so that its response meets it.

        `reset_peer` works only on connections that are opened after it, so the one that is open is reset by us.
        """
        action: Toxic = blow.action
        self.armed, self._action, self._attributes = blow.armed, action, dict(action.attributes)
        if action.kind == "down":
            await self._take_down(blow)
            return Directive("drop")
        self._left = action.responses
        if action.kind != "limit_data":
            await self._add(action.kind, self._attributes)
        return Directive("reset") if action.kind == "reset_peer" else None

    def mend(self) -> None:
        """Lift the toxic: a person has stepped in."""
        self._left = 0
        if self._on:
            self._session.spawn(self._lift())

    async def before(self, response: web.StreamResponse, size: int) -> None:
        """A response with a body of `size` bytes is about to be written."""
        # What is being lifted is met by nobody any more; it may yet end the connections that were opened under it.
        async with self._busy:
            pass
        if self._left > 0 and self._action.kind == "limit_data" and not self._on:
            self._attributes = {"bytes": head_bytes(response, size) + size // 2}
            await self._add("limit_data", self._attributes)

    async def came_through(self, incoming: Incoming, size: int) -> bool:
        """A response with a body of `size` bytes has been written; whether its client can have all of it."""
        kind, armed = self._on, self.armed
        if not kind or armed is None or (kind not in LOSES and self._left <= 0):
            return not incoming.gone.is_set()
        if kind in LOSES:
            return await self._kept_back(incoming, armed, kind)
        self._left -= 1
        self._met(armed, incoming, kind)
        if kind == "slow_close":
            return self._close_slowly(incoming, armed)
        return await self._delayed(incoming, armed, kind, size)

    def _met(self, armed: Armed, incoming: Incoming, kind: str) -> None:
        self._told = True
        self._session.history.add("nemesis", "met", strike=armed.index, toxic=kind, request=incoming.number)

    async def _kept_back(self, incoming: Incoming, armed: Armed, kind: str) -> bool:
        """Wait until the connection has ended whose answer the toxic keeps back."""
        loop = asyncio.get_running_loop()
        written = loop.time()
        gone = asyncio.ensure_future(incoming.gone.wait())
        lifted = asyncio.ensure_future(self._lifted.wait())
        try:
            await asyncio.wait([gone, lifted], timeout=HELD_MAX_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                # Lifted by somebody else, which ends what was kept back; or a client without a time-out.
                await self._lift()
                await asyncio.wait([gone], timeout=GRACE_SECONDS)
        finally:
            gone.cancel()
            lifted.cancel()
        if not incoming.gone.is_set() or self._session.closing:
            return not incoming.gone.is_set()
        waited = round(loop.time() - written, 3)
        self._left -= 1
        self._met(armed, incoming, kind)
        if self._left <= 0 or kind == "limit_data":
            await self._lift()
        if not armed.witnessed:
            self._session.see_through(self._witness_loss(incoming, armed, kind, waited))
        return False

    async def _witness_loss(self, incoming: Incoming, armed: Armed, kind: str, waited: float) -> None:
        lost = await self._lost()
        reset = isinstance(incoming.lost_by, ConnectionResetError)
        if lost <= 0 or armed.witnessed or (kind == "reset_peer" and not reset):
            return
        how = "was reset" if reset else "ended"
        evidence = (
            f"{kind}: {lost} bytes of answers went into the proxy and not out, the connection {how} after {waited:g} s"
        )
        armed.witness(evidence, request=incoming.number, lost_bytes=lost, seconds=waited)

    async def _delayed(self, incoming: Incoming, armed: Armed, kind: str, size: int) -> bool:
        """Wait for as long as the answer is under way for certain; a client that leaves before has not had it."""
        loop = asyncio.get_running_loop()
        written, least = loop.time(), least_seconds(kind, self._attributes, HEAD_BYTES_LEAST + size)

        def witness(what: str) -> None:
            if not armed.witnessed:
                took = round(loop.time() - written, 3)
                evidence = f"{kind}: an answer that takes {least:.3f} s or more, {what} after {took:g} s"
                armed.witness(evidence, request=incoming.number, least_seconds=round(least, 3), seconds=took)

        self._unheard = lambda: witness("and nothing more was heard of the run")
        _once_heard(self._session, lambda: loop.time() - written >= least, lambda: witness("the run's next request"))
        try:
            await asyncio.wait_for(incoming.gone.wait(), least)
        except TimeoutError:
            pass
        else:
            if not self._session.closing:
                witness("its client gave up")
        if self._left <= 0:
            # What is still under way is let through at once.
            self._session.spawn(self._lift())
        return not incoming.gone.is_set()

    def _close_slowly(self, incoming: Incoming, armed: Armed) -> bool:
        """Close the connection at our end; at the client's end it stays open, for a request that nobody will read."""
        incoming.close()
        self._session.history.add("nemesis", "half_open", strike=armed.index, request=incoming.number)
        self._session.see_through(self._witness_swallowed(incoming, armed))
        return True

    async def _witness_swallowed(self, incoming: Incoming, armed: Armed) -> None:
        loop = asyncio.get_running_loop()
        delay = self._attributes["delay"] / 1000
        until = loop.time() + delay + 2 * GRACE_SECONDS
        # Lifted earlier, it would forget to close at all.
        await asyncio.sleep(delay + GRACE_SECONDS)
        swallowed, earlier = 0, 0
        # What both ends have not counted yet at one look they have at the next.
        while not (swallowed > 0 and swallowed == earlier) and loop.time() < until:
            earlier = swallowed
            swallowed = taken_bytes(await self._metrics(), self.name) - self._session.received[self._upstream]
            await asyncio.sleep(POLL_SECONDS)
        await self._lift()
        if swallowed <= 0:
            self._missed("the client did not use the connection that the service had closed")
            return
        evidence = f"slow_close: {swallowed} bytes of a request went into a connection closed at the service's end"
        armed.witness(evidence, request=incoming.number, swallowed_bytes=swallowed)


def _once_heard(session: Session, is_it: Callable[[], bool], then: Callable[[], None]) -> None:
    """Call `then` at the first request of a run for which `is_it`."""

    def heard(_run: Run, _by: Generation) -> None:
        if is_it():
            session.listeners.remove(heard)
            then()

    session.listeners.append(heard)
