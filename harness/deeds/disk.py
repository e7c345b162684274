"""A disk without a byte left, for a while; and one that loses its power, with everything that ran on the machine."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from kintsugi.harness.deeds.blow import Blow, Directive
from kintsugi.harness.session import Generation

__all__ = ["BALLAST", "fill", "fill_disk", "lose_power"]

BALLAST = ".ballast"
CHUNK = bytes(2**20)
"""Bytes that are written at a time, as long as they fit; at the end a single one."""


async def fill_disk(blow: Blow) -> None:
    """Fill the state folder's disk; beside the trial it is freed again, and before that the worker may be killed."""
    session, folder = blow.session, blow.session.state_folder
    if not any(path.is_file() and path.stat().st_size for path in folder.rglob("*")):
        blow.armed.missed("the SUT keeps nothing in the state folder")
        return
    if not await asyncio.to_thread(fill, folder / BALLAST):
        blow.armed.missed("somebody freed space while the disk was being filled")
        return
    session.history.add("nemesis", "filled", strike=blow.armed.index)
    blow.armed.witness("our own write got ENOSPC, and the file system has 0 bytes left")
    session.under_way += 1
    session.spawn(_free(blow))


def fill(ballast: Path) -> bool:
    """Write a file until nothing more fits; whether the file system then says so as well."""
    size = len(CHUNK)
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while size:
            try:
                os.write(descriptor, CHUNK[:size])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    finally:
        os.close(descriptor)
    return os.statvfs(ballast.parent).f_bavail == 0


async def _free(blow: Blow) -> None:
    session, action = blow.session, blow.action
    try:
        await asyncio.sleep(action.kill_after_seconds)
        if action.kill_after_seconds:
            victim = await blow.victim()
            if victim is not None and not victim.dead:
                await _reaped(blow, victim)
        await asyncio.sleep(action.seconds - action.kill_after_seconds)
    finally:
        (session.state_folder / BALLAST).unlink(missing_ok=True)
        session.history.add("nemesis", "freed", strike=blow.armed.index)
        session.under_way -= 1


async def _reaped(blow: Blow, victim: Generation) -> bool:
    """SIGKILL a worker and wait until it is reaped; whether that was its end."""
    assert victim.process is not None
    ended = await blow.session.workers.kill(victim.process)
    victim.dead = True
    if ended.signal == 9:
        blow.armed.tell("killed", victim, "reaped with signal 9")
    return ended.signal == 9


async def lose_power(blow: Blow) -> Directive:
    """Kill every worker and cut the disk's power; nothing starts before the disk is back with what was synced."""
    session, armed = blow.session, blow.armed
    disk = session.equipment["loop_disk"]
    session.may_start.clear()
    try:
        living = [g for g in session.generations.values() if g.process is not None and not g.dead]
        died = [await _reaped(blow, victim) for victim in living]
        if not died or not all(died):
            armed.missed("no worker was running" if not died else "a worker had ended by itself")
            return Directive("drop")
        cut = disk.cut()
        try:
            lost = await disk.come_back()
        except OSError as problem:
            armed.missed(str(problem))
            return Directive("drop")
        if lost:
            armed.witness(f"{len(died)} worker(s) reaped with signal 9; {cut}; {lost}")
        else:
            armed.missed("what was not synced was on the disk all the same")
        return Directive("drop")
    finally:
        session.may_start.set()
