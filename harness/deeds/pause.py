"""SIGSTOP of a worker until another one has its run, and then SIGCONT."""

from __future__ import annotations

import asyncio

from kintsugi.harness.deeds.blow import Blow
from kintsugi.harness.session import Generation, Run

__all__ = ["pause"]


async def pause(blow: Blow) -> None:
    """Stop a worker; it is woken beside the trial, once another one has taken its run over."""
    victim = await blow.victim()
    if victim is None or victim.process is None or not await blow.session.workers.stop(victim.process):
        blow.armed.missed("no worker that could be stopped")
        return
    victim.stopped = True
    blow.armed.tell("stopped", victim, "SIGSTOP, and all its threads stand still")
    blow.session.spawn(_wake(blow, victim))


async def _wake(blow: Blow, victim: Generation) -> None:
    session, loop = blow.session, asyncio.get_running_loop()
    successor: asyncio.Future[Generation] = loop.create_future()

    def taken_up(run: Run, by: Generation) -> None:
        if run is blow.run and by is not victim and not successor.done():
            successor.set_result(by)

    began = loop.time()
    session.listeners.append(taken_up)
    await asyncio.wait([successor], timeout=blow.action.seconds_max)
    session.listeners.remove(taken_up)
    assert victim.process is not None
    victim.heard = False
    goes_on = await session.workers.resume(victim.process)
    seconds = round(loop.time() - began, 3)
    victim.stopped, victim.woken, victim.started_at = False, True, loop.time()
    if not goes_on:
        blow.armed.missed("the worker did not live on after it was stopped")
        return
    blow.armed.tell("continued", victim, f"SIGCONT after {seconds:g} s")
    if not successor.done():
        blow.armed.missed(f"nobody had taken the run over after {seconds:g} s")
        return
    number = successor.result().number
    evidence = f"stopped for {seconds:g} s, worker {number} took the run over, then it was continued"
    blow.armed.witness(evidence, generation=victim.number, successor=number, stopped_seconds=seconds)
