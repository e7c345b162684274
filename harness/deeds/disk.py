"""A disk without a byte left, for a while; and one that loses its power, with everything that ran on the machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

from kintsugi.harness.deeds.blow import Blow, Directive
from kintsugi.harness.session import Generation

__all__ = ["BALLAST", "fill", "fill_disk", "lose_power"]

BALLAST = ".ballast"
CHUNK = bytes(2**20)
"""Bytes that are written at a time, as long as they fit; at the end a single one."""
FULL = "our own write got ENOSPC, and the file system has 0 bytes left"


async def fill_disk(blow: Blow) -> None:
    """Fill the state folder's disk; beside the trial it is freed again, and before that the worker may be killed."""
    session, folder = blow.session, blow.session.state_folder
    # Who comes in place of a worker that was killed finds the disk full, however long that takes.
    session.may_start.clear()
    try:
        if not await asyncio.to_thread(holds_anything, folder):
            blow.armed.missed("the SUT keeps nothing in the state folder")
            return
        if not await asyncio.to_thread(fill, folder / BALLAST):
            blow.armed.missed("somebody freed space while the disk was being filled")
            return
    finally:
        session.may_start.set()
    session.history.add("nemesis", "filled", strike=blow.armed.index)
    if not blow.action.kill_after_seconds:
        blow.armed.witness(FULL)
    session.see_through(_free(blow))


def holds_anything(folder: Path) -> bool:
    """Whether any file below a folder, in which others write and delete meanwhile, has a byte in it."""
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                if Path(where, name).stat().st_size:
                    return True
    return False


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
            # Not whose request was struck: who met the full disk may have crashed of it, and another one have come.
            victim = await session.somebody(blow.run)
            if victim is None:
                blow.armed.missed("no worker was there to be killed while the disk was full")
            elif await _reaped(blow, victim):
                blow.armed.witness(f"{FULL}; then the worker was reaped with signal 9")
            else:
                blow.armed.missed("the worker had ended by itself")
        await asyncio.sleep(action.seconds - action.kill_after_seconds)
    finally:
        (session.state_folder / BALLAST).unlink(missing_ok=True)
        session.history.add("nemesis", "freed", strike=blow.armed.index)


async def _reaped(blow: Blow, victim: Generation) -> bool:
    """SIGKILL a worker and wait until it is reaped; whether that was its end."""
    ended = await blow.session.kill(victim)
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
        try:
            cut = disk.cut()
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
