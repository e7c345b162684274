"""What is done to a response while its body is written: broken off in the middle, or let out piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from kintsugi.harness.deeds.blow import Blow

if TYPE_CHECKING:
    from kintsugi.harness.crossing import Incoming

__all__ = ["break_off", "drip"]

PIECES = 16


async def break_off(blow: Blow) -> None:
    """Have the answer reset half way."""
    if blow.crossing is None:
        return
    say = blow.ended_by_us("half of the body was written, then the connection was reset by us")

    async def write(incoming: Incoming, response: web.StreamResponse, body: bytes) -> bool:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await response.prepare(incoming.request)
            await response.write(body[: len(body) // 2])
        say(incoming.cut(reset=True))
        return False

    blow.crossing.manner = write


async def drip(blow: Blow) -> None:
    """Have the answer trickle."""
    crossing, armed, seconds = blow.crossing, blow.armed, blow.action.seconds
    if crossing is None:
        return

    async def write(incoming: Incoming, response: web.StreamResponse, body: bytes) -> bool:
        loop = asyncio.get_running_loop()
        size, written, began = max(-(-len(body) // PIECES), 1), 0, loop.time()
        with contextlib.suppress(ConnectionError, RuntimeError):
            await response.prepare(incoming.request)
            for start in range(0, len(body), size):
                if start:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(incoming.gone.wait(), seconds / (PIECES - 1))
                if incoming.gone.is_set():
                    break
                piece = body[start : start + size]
                await response.write(piece)
                written += len(piece)
        took = round(loop.time() - began, 3)
        whole = written == len(body) and not incoming.gone.is_set()
        if whole:
            await response.write_eof()
        said = {"request": crossing.request, "seconds": took, "bytes_written": written, "bytes_whole": len(body)}
        if blow.session.closing:
            armed.missed("the trial ended first")
        elif whole:
            armed.witness(f"the body took {took:g} s from its first piece to its last", **said)
        else:
            armed.witness(f"the client gave up after {took:g} s and {written} of {len(body)} bytes", **said)
        return whole

    crossing.manner = write
