"""A wall clock that is suddenly hours off, for the worker that runs or for the one that comes back."""

from __future__ import annotations

import asyncio

from kintsugi.harness.deeds.blow import Blow
from kintsugi.harness.session import Generation

__all__ = ["jump_clock"]

LOOK_SECONDS = 0.02
APPEAR_SECONDS = 10.0
"""How long a worker may take to be there under the clock; many times what a supervisor and a loader take."""
TOLERANCE_HOURS = 0.01


async def jump_clock(blow: Blow) -> None:
    """Set the clock of the trial's workers; whether one lives under it is seen beside the trial."""
    blow.session.equipment["fake_clock"].set(blow.action.hours)
    blow.session.see_through(_see(blow))


async def _see(blow: Blow) -> None:
    session, armed, hours = blow.session, blow.armed, blow.action.hours
    clock = session.equipment["fake_clock"]
    said = False
    try:
        off = await clock.hours_off()
        if abs(off - hours) > TOLERANCE_HOURS:
            armed.missed(f"a clock that was set {hours:+g} h off is {off:+.2f} h off")
        elif (worker := await _living_under(blow)) is None:
            armed.missed("no worker was there under the clock that was set")
        else:
            evidence = f"worker {worker.number} lives with a clock that is {off:+.2f} h off"
            armed.witness(evidence, worker=worker.number, hours=round(off, 2))
        said = True
    finally:
        if not said:
            armed.missed("the trial ended before a worker was there under the clock that was set")


async def _living_under(blow: Blow) -> Generation | None:
    """A worker that lives, and whose program has loaded the clock; None where there is none for long."""
    session, loop = blow.session, asyncio.get_running_loop()
    until = loop.time() + APPEAR_SECONDS
    while loop.time() < until:
        for generation in list(session.generations.values()):
            process = generation.process
            if process is not None and not generation.dead and session.equipment["fake_clock"].governs(process.pid):
                return generation
        await asyncio.sleep(LOOK_SECONDS)
    return None
