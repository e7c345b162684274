"""What is done to one request over HTTP: held, cut, answered in place of its service, refused. Exact, and by us."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from email.utils import formatdate
from http import HTTPStatus

from kintsugi.harness.deeds.blow import Armed, Blow, Directive

__all__ = ["answer", "cut", "hold", "limit", "refuse"]

EDGE_SECONDS = 0.1
"""How long before its time a rate limit is lifted: a client's clock may run a moment ahead of ours."""


async def hold(blow: Blow) -> Directive | None:
    """Keep a request, or its response, until the client has gone."""
    crossing, armed, action = blow.crossing, blow.armed, blow.action
    if crossing is None:
        return None
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        await asyncio.wait_for(crossing.gone.wait(), action.seconds_max)
    except TimeoutError:
        # A client without a time-out: the silence was served all the same, and then the connection is closed.
        evidence = f"silent for {action.seconds_max:g} s, then the connection was closed by us"
        armed.witness(evidence, request=crossing.request)
        return Directive("empty")
    if blow.session.closing:
        armed.missed("the trial ended first")
        return Directive("drop")
    held = round(loop.time() - started, 3)
    armed.witness(f"the client gave up after {held:g} s", request=crossing.request, held_seconds=held)
    return Directive("drop")


async def cut(blow: Blow) -> Directive | None:
    """End the connection in place of a response."""
    done = blow.ended_by_us("connection ended by us, no byte of a response")
    return Directive(blow.action.how, done=done) if blow.crossing else None


async def answer(blow: Blow) -> Directive | None:
    """Answer with an error status in place of the real response."""
    action = blow.action
    done = blow.ended_by_us(f"answered {action.status} in place of the result")
    retry_after = "" if action.retry_after_seconds is None else f"{action.retry_after_seconds:g}"
    return Directive("answer", action.status, retry_after, done) if blow.crossing else None


async def limit(blow: Blow) -> Directive | None:
    """Turn the call away until its time is over; who comes sooner is told anew, and noted."""
    crossing, armed, session = blow.crossing, blow.armed, blow.session
    if crossing is None:
        return None
    loop = asyncio.get_running_loop()
    if armed.until is None:
        seconds, now = blow.action.seconds, time.time()
        if blow.action.date:
            seconds = math.ceil(now + seconds) - now
        armed.until = loop.time() + seconds
        session.spawn(_lift(armed, seconds - EDGE_SECONDS))
    else:
        early = round(armed.until - loop.time(), 3)
        session.history.add("nemesis", "too_soon", run=crossing.run.id, request=crossing.request, seconds=early)
    left = max(armed.until - loop.time(), 0.0)
    # Rounded up: who heeds it must not come too soon.
    told = f"{math.ceil(left * 1000) / 1000:.3f}"
    retry_after = formatdate(round(time.time() + left), usegmt=True) if blow.action.date else told
    done = blow.ended_by_us(f"answered 429 for another {told} s")
    return Directive("answer", HTTPStatus.TOO_MANY_REQUESTS, retry_after, done)


async def _lift(armed: Armed, seconds: float) -> None:
    await asyncio.sleep(seconds)
    armed.lapsed = True


async def refuse(blow: Blow) -> Directive | None:
    """Reset the request, and refuse connections to its service for a while."""
    if blow.crossing is None:
        return None
    down = blow.close_port(blow.crossing.kind, blow.action.seconds)
    blow.session.spawn(_witness_refusal(blow.armed, down))
    return Directive("reset")


async def _witness_refusal(armed: Armed, down: Awaitable[float]) -> None:
    seconds = await down
    armed.witness(f"connection reset by us, then the port refused for {seconds:.2f} s")
