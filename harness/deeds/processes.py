"""SIGKILL, and what is done around a death."""

from __future__ import annotations

import asyncio
import shutil

from kintsugi.harness.deeds.blow import Blow, Directive

__all__ = ["kill"]


async def kill(blow: Blow) -> Directive:
    """SIGKILL the worker and wait until it is reaped; its request is dropped."""
    action, armed, victim = blow.action, blow.armed, await blow.victim()
    if victim is None or victim.process is None:
        armed.missed("no worker had taken the run up")
        return Directive("drop")
    if action.delay_ms:
        await asyncio.sleep(action.delay_ms / 1000)
    if victim.dead:
        # Its end is that of an earlier strike, or its own: not to be counted again.
        armed.missed("the worker was dead already")
        return Directive("drop")
    victim.restart = action.restart == "same_node"
    ended = await blow.session.workers.kill(victim.process)
    victim.dead = True
    if ended.signal != 9:
        armed.missed(f"the worker had ended by itself with {ended.code}")
        return Directive("drop")
    evidence = "reaped with signal 9"
    if action.lose_scratch:
        scratch = blow.session.scratch_folder(victim.node)
        await asyncio.to_thread(shutil.rmtree, scratch)
        evidence += f", scratch folder gone: {not scratch.exists()}"
    armed.witness(evidence, generation=victim.number, pid=victim.process.pid)
    return Directive("drop")
