"""SIGKILL, and what is done around a death."""

from __future__ import annotations

import asyncio
import shutil

from kintsugi.harness.deeds.blow import Blow, Directive
from kintsugi.harness.processes import Exit
from kintsugi.harness.session import Generation

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
    lost = [victim, *_others(blow, victim)[: action.others]]
    if len(lost) <= action.others:
        armed.missed("there is no other node to be lost")
        return Directive("drop")
    ended, *further = await asyncio.gather(*(_end(blow, generation) for generation in lost))
    if ended.signal != 9:
        armed.missed(f"the worker had ended by itself with {ended.code}")
        return Directive("drop")
    if any(other.signal != 9 for other in further):
        armed.missed("the other node's worker had ended by itself")
        return Directive("drop")
    evidence = ended.seen or "reaped with signal 9"
    evidence += "".join(f", and so was worker {other.number}" for other in lost[1:])
    if action.lose_scratch:
        folders = [blow.session.scratch_folder(generation.node) for generation in lost]
        for folder in folders:
            await asyncio.to_thread(shutil.rmtree, folder)
        evidence += f", scratch folder gone: {not any(folder.exists() for folder in folders)}"
    others = {"others": [other.number for other in lost[1:]]} if action.others else {}
    blow.reaped(victim, evidence, **others)
    return Directive("drop")


def _others(blow: Blow, victim: Generation) -> list[Generation]:
    """The workers that live on other nodes."""
    everyone = blow.session.generations.values()
    return [g for g in everyone if g.node != victim.node and g.process is not None and not g.dead]


async def _end(blow: Blow, generation: Generation) -> Exit:
    generation.restart = blow.action.restart == "same_node"
    return await blow.session.kill(generation)
