"""What an operator does to a run: pauses it, and resumes it later."""

from __future__ import annotations

import asyncio

from kintsugi.harness.deeds.blow import Blow
from kintsugi.harness.processes import VerbFailed

__all__ = ["suspend"]

NOTICE_SECONDS = 1.0
"""How long after it was acknowledged a pause may take to be heard of by whoever carries the run; the same for all, and
shorter than any client's time-out."""
RETRY_SECONDS = 0.1


async def suspend(blow: Blow) -> None:
    """Pause the run; a request that is in flight is let go once the pause must have been heard of."""
    session = blow.session
    try:
        await session.clients.call("pause", str(session.state_folder), blow.run.id)
    except VerbFailed as error:
        blow.armed.missed(f"the pause was not acknowledged: {error}")
        return
    if any(not generation.dead for generation in session.generations.values()):
        # Who begins to work from here on finds it; who works already has to hear of it.
        await asyncio.sleep(NOTICE_SECONDS)
    request = blow.crossing.request if blow.crossing else None
    session.history.add("nemesis", "paused", strike=blow.armed.index, run=blow.run.id, request=request)
    session.under_way += 1
    session.spawn(_resume(blow))


async def _resume(blow: Blow) -> None:
    session, loop = blow.session, asyncio.get_running_loop()
    meanwhile = 0

    def asked(run: object, _: object) -> None:
        nonlocal meanwhile
        meanwhile += run is blow.run

    began = loop.time()
    session.listeners.append(asked)
    try:
        await asyncio.sleep(blow.action.seconds)
        if blow.action.kill and not await _killed(blow):
            return
        seconds = loop.time() - began
        if await _acknowledged(blow):
            evidence = f"paused for {seconds:.2f} s with {meanwhile} request(s) of the run meanwhile, then resumed"
            blow.armed.witness(evidence, paused_seconds=round(seconds, 3), meanwhile=meanwhile)
    finally:
        session.listeners.remove(asked)
        session.under_way -= 1


async def _killed(blow: Blow) -> bool:
    """Kill the worker that has the paused run, and give the one that comes after it its chance to go on with it."""
    session = blow.session
    victim = await session.somebody(blow.run)
    if victim is None or victim.process is None:
        blow.armed.missed("no worker had the paused run")
        return False
    ended = await session.workers.kill(victim.process)
    victim.dead = True
    if ended.signal != 9:
        blow.armed.missed(f"the worker had ended by itself with {ended.code}")
        return False
    blow.armed.tell("killed", victim, "reaped with signal 9")
    await session.somebody(blow.run)
    await asyncio.sleep(blow.action.seconds)
    return True


async def _acknowledged(blow: Blow) -> bool:
    """Resume the run, again where that was not acknowledged."""
    session = blow.session
    while not session.closing:
        try:
            await session.clients.call("resume", str(session.state_folder), blow.run.id)
        except VerbFailed as error:
            session.history.add("nemesis", "not_resumed", run=blow.run.id, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            session.history.add("nemesis", "resumed", strike=blow.armed.index, run=blow.run.id)
            session.disturbed()
            return True
    return False
