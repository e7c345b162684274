"""One node is cut off from every service for a while: at our doors, and off its network where it is a container."""

from __future__ import annotations

import asyncio
import contextlib

from kintsugi.harness.deeds.blow import Blow, Directive, Link
from kintsugi.harness.session import CutOff, Generation, Run

__all__ = ["partition"]

REQUEST_SECONDS = 5.0
"""How much longer a node that was parked stays cut off, until it has something to say."""


async def partition(blow: Blow) -> Directive | None:
    """Cut the node off; it is healed beside the trial. The request that was struck is kept like all that follow."""
    session, armed, victim = blow.session, blow.armed, await blow.victim()
    if victim is None or victim.process is None or victim.dead:
        armed.missed("no worker had taken the run up")
        return None
    if blow.action.side == "store":
        await _from_its_store(blow, victim)
        return None
    cut = session.cut_off[victim.node] = CutOff(rejects=blow.action.rejects)
    containers = session.equipment.get("docker")
    evidence = "its requests are reset" if cut.rejects else "its requests are kept without an answer"
    if containers is not None:
        if not await containers.disconnect(victim.node):
            del session.cut_off[victim.node]
            cut.healed.set()
            armed.missed("its container could not be taken off its network")
            return None
        evidence = "the engine lists no network of its container"
    armed.tell("cut_off", victim, evidence, unseen=containers is not None)
    session.see_through(_heal(blow, victim, cut, seen=containers is None))
    if blow.crossing is None:
        return None
    cut.met()
    await cut.over(blow.crossing.gone)
    return Directive("reset")


async def _heal(blow: Blow, victim: Generation, cut: CutOff, *, seen: bool) -> None:
    """Heal the node when its time is over. What a container tries without a network is `seen` by nobody."""
    session, loop = blow.session, asyncio.get_running_loop()
    began = loop.time()
    others = await _others_meanwhile(blow, victim)
    if seen:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(cut.meets.wait(), REQUEST_SECONDS)
    seconds = round(loop.time() - began, 3)
    for generation in session.generations.values():
        if generation.node == victim.node:
            generation.wake()
    del session.cut_off[victim.node]
    cut.healed.set()
    # Told before a container is connected: it may have been served by the time the engine says that it is.
    blow.armed.tell("healed", victim, "its requests are served again" if seen else "the engine connects it again")
    connected = seen or await session.equipment["docker"].connect(victim.node)
    if not connected or (seen and not cut.kept):
        blow.armed.missed(f"it sent nothing in {seconds:g} s" if seen else "its container could not be connected again")
        return
    said = f"cut off for {seconds:g} s, {cut.kept} requests were kept from their services, then it was healed"
    if not seen:
        said = f"off its network for {seconds:g} s, in which nothing of it reached a service, then on it again"
    blow.armed.witness(said, generation=victim.number, kept=cut.kept, others=others, cut_off_seconds=seconds)


async def _from_its_store(blow: Blow, victim: Generation) -> None:
    """Cut the node off from its store; what it asks of the services is served, and it can record nothing of that."""
    session, armed = blow.session, blow.armed
    link = session.links[f"store of {victim.node}"]
    evidence = await link.sever()
    armed.tell("cut_off", victim, evidence or "nothing was seen of it", unseen=False)
    session.see_through(_heal_its_store(blow, victim, link, evidence))


async def _heal_its_store(blow: Blow, victim: Generation, link: Link, evidence: str) -> None:
    session, armed, loop = blow.session, blow.armed, asyncio.get_running_loop()
    began = loop.time()
    others = await _others_meanwhile(blow, victim)
    refused = await link.restore()
    seconds = round(loop.time() - began, 3)
    for generation in session.generations.values():
        if generation.node == victim.node:
            generation.wake()
    armed.tell("healed", victim, "the proxy lets its connections through again")
    if not evidence or not refused:
        armed.missed("its connections did not end, or new ones were not refused")
    else:
        whose = f"worker {others[0]} took the run over" if others else "nobody took the run over"
        said = f"{evidence} for {seconds:g} s, {whose}, then it was healed"
        armed.witness(said, generation=victim.number, others=others, cut_off_seconds=seconds)


async def _others_meanwhile(blow: Blow, victim: Generation) -> list[int]:
    """Wait for as long as the action says, or until another node has taken the run over; who was served meanwhile."""
    others: set[int] = set()
    taken_over = asyncio.Event()

    def asked(run: Run, by: Generation) -> None:
        if by.node != victim.node:
            others.add(by.number)
            if run is blow.run:
                taken_over.set()

    blow.session.listeners.append(asked)
    # Nobody takes a run from a worker whose lease lives on: then it goes on by itself.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(taken_over.wait(), blow.action.seconds)
    blow.session.listeners.remove(asked)
    return sorted(others)
