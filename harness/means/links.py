"""The links of a trial that go through Toxiproxy: what a proxy can do, and what the kernel and its counts say of it.

Of a store's link only these can tell; a service's link ends at a door of ours (`service_link`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from kintsugi.faults.actions import Toxic
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.deeds.blow import Armed, Blow
from kintsugi.harness.means.toxiproxy_control import Control, lost_bytes
from kintsugi.harness.session import Generation, Run, Session

__all__ = ["COUNTED_SECONDS", "POLL_SECONDS", "ProxiedLink", "StoreLink", "established", "least_seconds", "refuses"]

COUNTED_SECONDS = 2.0
"""How long Toxiproxy may take to count what went over a connection that has ended."""
POLL_SECONDS = 0.05
ESTABLISHED = "01"


def least_seconds(kind: str, attributes: Mapping[str, int], size: int) -> float:
    """How long the toxic `kind` keeps the end of an answer of `size` bytes back at least."""
    if kind == "latency":
        return max(0, attributes["latency"] - attributes.get("jitter", 0)) / 1000
    if kind == "bandwidth":
        return size / (attributes["rate"] * 1000)
    if kind == "slicer":
        slices = -(-size // (attributes["average_size"] + attributes.get("size_variation", 0)))
        return (slices - 1) * attributes["delay"] / 1_000_000
    return 0.0


def established(port: int) -> int:
    """How many connections to a loopback port the kernel holds to be open, at the side that listens."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


def refuses(port: int) -> bool:
    """Whether a connection to a loopback port is refused."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class ProxiedLink:
    """A proxy of its own, with at most one toxic on it."""

    def __init__(self, session: Session, control: Control, name: str, port: int, upstream: int, far_side: str) -> None:
        self._session, self._control = session, control
        self.name, self.port, self._upstream, self._far_side = name, port, upstream, far_side
        self._proxy: Any = None
        self._on = ""
        """The toxic that lies on it now."""
        self._lifted = asyncio.Event()
        self._busy = asyncio.Lock()
        self._lost_before = 0
        self.armed: Armed | None = None
        """The strike that is being done to it, or was last."""
        self._told = False
        """Whether something met it, or it has been said why that came to nothing."""
        self._unheard: Callable[[], None] | None = None
        """Witnesses a delay after which nothing more was heard of the run."""

    async def open(self) -> None:
        """Have Toxiproxy listen on its port."""
        self._proxy = await asyncio.to_thread(self._control.create, self.name, self.port, self._upstream)

    async def close(self) -> None:
        """Have Toxiproxy forget it. A strike that was begun and never seen has come to nothing."""
        if self._proxy is not None:
            await asyncio.to_thread(self._control.destroy, self._proxy)
        if self._unheard is not None and self.armed is not None and not self.armed.witnessed:
            self._unheard()
        if self.armed is not None and not self.armed.witnessed and not self._told:
            self.armed.missed("nothing met the toxic, that could be seen")

    def _missed(self, why: str) -> None:
        assert self.armed is not None
        self._told = True
        self.armed.missed(why)

    def mend(self) -> None:
        """What lies on it for a while is lifted in any case."""

    async def before(self, response: web.StreamResponse, size: int) -> None:
        """No response of ours is written to it."""

    async def came_through(self, incoming: Incoming, size: int) -> bool:
        """No response of ours is written to it."""
        return not incoming.gone.is_set()

    async def sever(self) -> str:
        """End every connection, and refuse new ones until `restore`; what was seen of that, empty where it was not."""
        before = established(self.port)
        await asyncio.to_thread(self._control.switch, self._proxy, on=False)
        after, refused = established(self.port), refuses(self.port)
        said = f"{before} connections to the {self._far_side} were ended by the proxy, new ones are refused"
        return said if before and refused and not after else ""

    async def restore(self) -> bool:
        """Let connections through again; whether they were refused until now."""
        refused = refuses(self.port)
        await asyncio.to_thread(self._control.switch, self._proxy, on=True)
        return refused

    async def _metrics(self) -> str:
        return await asyncio.to_thread(self._control.metrics)

    async def _add(self, kind: str, attributes: Mapping[str, int]) -> None:
        async with self._busy:
            self._lost_before = lost_bytes(await self._metrics(), self.name)
            self._lifted.clear()
            await asyncio.to_thread(self._control.add, self._proxy, kind, attributes)
            self._on = kind

    async def _lift(self) -> None:
        async with self._busy:
            if self._on:
                await asyncio.to_thread(self._control.remove, self._proxy, self._on)
            # Until it is gone, an answer may still meet it.
            self._on = ""
            self._lifted.set()

    async def _lost(self) -> int:
        """How many bytes of the far side have been lost since the toxic was put on; connections have just ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + COUNTED_SECONDS
        while True:
            lost = lost_bytes(await self._metrics(), self.name) - self._lost_before
            if lost > 0 or loop.time() > until:
                return lost
            await asyncio.sleep(POLL_SECONDS)

    async def _take_down(self, blow: Blow) -> None:
        """End every connection, and refuse new ones for a while."""
        armed, seconds, crossing = blow.armed, blow.action.seconds, blow.crossing
        loop = asyncio.get_running_loop()
        open_before = established(self.port)
        await asyncio.to_thread(self._control.switch, self._proxy, on=False)
        began, refused, open_still = loop.time(), refuses(self.port), established(self.port)
        self._session.see_through(self._up_again(armed, began, seconds, (open_before, open_still), refused=refused))
        if crossing is not None and blow.action.link == "service":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(crossing.gone.wait(), COUNTED_SECONDS)

    async def _up_again(
        self, armed: Armed, began: float, seconds: float, connections: tuple[int, int], *, refused: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(began + seconds - loop.time())
        refused, down = refused and refuses(self.port), loop.time() - began
        await asyncio.to_thread(self._control.switch, self._proxy, on=True)
        before, after = connections
        if not refused or not before or after:
            self._missed(f"{before} connections to the {self._far_side} were open, then {after}; refused: {refused}")
            return
        evidence = (
            f"{before} connections to the {self._far_side} were ended by the proxy, new ones refused for {down:.2f} s"
        )
        armed.witness(evidence, connections=before, seconds=round(down, 3))


class StoreLink(ProxiedLink):
    """The way from the workers to the server that keeps their state."""

    async def strike(self, blow: Blow) -> None:
        """Put the toxic on while a request is held at a door, so that what is recorded of its answer meets it."""
        action: Toxic = blow.action
        self.armed = blow.armed
        if action.kind == "down":
            await self._take_down(blow)
            return
        attributes = dict(action.attributes)
        await self._add(action.kind, attributes)
        self._session.see_through(self._lift_after(action.seconds, blow.armed, action.kind))
        if action.kind == "latency" and established(self.port):
            self._expect_slowness(blow.armed, least_seconds("latency", attributes, 0))

    def _expect_slowness(self, armed: Armed, least: float) -> None:
        """See how long the run is not heard of, beginning while its store is slow."""
        loop = asyncio.get_running_loop()
        since, slow = loop.time(), True

        def heard(_run: Run | None = None, _by: Generation | None = None) -> None:
            nonlocal since, slow
            silent, since = loop.time() - since, loop.time()
            if slow and silent >= least and not armed.witnessed:
                evidence = f"no request of the run for {silent:.3f} s, its store's answers take {least:g} s or more"
                armed.witness(evidence, least_seconds=least, seconds=round(silent, 3))
            slow = bool(self._on)

        self._unheard = heard
        self._session.listeners.append(heard)

    async def _lift_after(self, seconds: float, armed: Armed, kind: str) -> None:
        await asyncio.sleep(seconds)
        await self._lift()
        if kind == "timeout" and (lost := await self._lost()) > 0:
            evidence = f"timeout: {lost} bytes of the store's answers went into the proxy and not out in {seconds:g} s"
            armed.witness(evidence, lost_bytes=lost, seconds=seconds)
