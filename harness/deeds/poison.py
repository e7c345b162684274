"""A run that brings down whoever carries it."""

from __future__ import annotations

from kintsugi.harness.deeds.blow import Blow, Directive

__all__ = ["poison"]


async def poison(blow: Blow) -> Directive:
    """SIGKILL the worker that has brought the run to its boundary, and wait until it is reaped."""
    assert blow.crossing is not None
    victim = blow.crossing.generation
    if victim.process is not None and not victim.dead:
        ended = await blow.session.kill(victim)
        if ended.signal == 9:
            blow.reaped(victim, f"reaped with signal 9, time {blow.armed.done}")
    return Directive("drop")
