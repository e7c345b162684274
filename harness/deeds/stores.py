"""The end and the return of the server in which a SUT keeps its state."""

from __future__ import annotations

import asyncio

from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.deeds.blow import Blow

__all__ = ["restart_store"]


async def restart_store(blow: Blow) -> None:
    """Kill the SUT's own server; what the request was about goes on, and beside it the server comes back."""
    server, armed = blow.session.server, blow.armed
    if server is None:
        armed.missed("this SUT has no server of its own")
        return
    try:
        pid = await server.kill()
    except Unavailable as problem:
        armed.missed(str(problem))
        return
    blow.session.history.add("nemesis", "store_killed", strike=armed.index, server=pid, evidence="reaped with signal 9")
    blow.session.see_through(_back(blow, pid))


async def _back(blow: Blow, pid: int) -> None:
    """Start it again once it was down for as long as it is to be, and witness both."""
    server, loop = blow.session.server, asyncio.get_running_loop()
    assert server is not None
    began = loop.time()
    try:
        await asyncio.sleep(blow.action.seconds)
        refused = not await server.listens()
        await server.restart()
        seconds = round(loop.time() - began, 3)
        if refused and await server.listens():
            evidence = f"server {pid} reaped with signal 9, its port refused, and it answered again after {seconds:g} s"
            blow.armed.witness(evidence, server=pid, down_seconds=seconds)
        else:
            blow.armed.missed("its port did not refuse connections while it was down")
    except Unavailable as problem:
        blow.armed.missed(f"it did not come back: {problem}")
