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
    if blow.action.while_down:
        session.may_start.clear()
    try:
        if blow.action.while_down and _working(blow):
            blow.armed.missed("a worker was there again before the run could be paused")
            return
        await session.clients.call("pause", str(session.state_folder), blow.run.id)
    except VerbFailed as error:
        blow.armed.missed(f"the pause was not acknowledged: {error}")
        return
    finally:
        if blow.action.while_down:
            session.may_start.set()
    if not blow.action.while_down and _working(blow):
        # Who begins to work from here on finds it; who works already has to hear of it.
        await asyncio.sleep(NOTICE_SECONDS)
    session.history.add("nemesis", "paused", strike=blow.armed.index, run=blow.run.id, request=blow.request)
    if not blow.action.kill:
        down = ", while no worker was there" if blow.action.while_down else ""
        blow.armed.witness(f"the pause was acknowledged{down}")
    session.see_through(_resume(blow))


def _working(blow: Blow) -> bool:
    """Whether any worker runs, or is being started."""
    return any(not generation.dead for generation in blow.session.generations.values())


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
        if blow.action.kill:
            await _kill(blow)
        # From here on it may go on: a verb can have taken effect long before it is acknowledged, or without that.
        paused_seconds = round(loop.time() - began, 3)
        said = {"strike": blow.armed.index, "run": blow.run.id}
        session.history.add("nemesis", "resuming", **said, paused_seconds=paused_seconds, meanwhile=meanwhile)
        await _until_acknowledged(blow)
    finally:
        session.listeners.remove(asked)


async def _kill(blow: Blow) -> None:
    """Kill the worker that has the paused run, and give the one that comes after it its chance to go on with it."""
    session = blow.session
    victim = await session.somebody(blow.run)
    if victim is None or victim.process is None:
        blow.armed.missed("no worker had the paused run")
        return
    ended = await session.kill(victim)
    if ended.signal != 9:
        blow.armed.missed(f"the worker had ended by itself with {ended.code}")
        return
    blow.armed.tell("killed", victim, "reaped with signal 9")
    blow.armed.witness("the pause was acknowledged, and then the worker reaped with signal 9")
    await session.somebody(blow.run)
    await asyncio.sleep(blow.action.seconds)


async def _until_acknowledged(blow: Blow) -> None:
    """Resume the run, again where that was not acknowledged; a SUT that never does is left to its end."""
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
            return
