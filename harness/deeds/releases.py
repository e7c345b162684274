"""A newer release of the workflow's code, which workers have from their next start on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kintsugi.harness.deeds.blow import Blow

__all__ = ["deploy"]

RELEASES = "kintsugi.golden_workflows.chains.released"
STARTED_SECONDS = 10.0
POLL_SECONDS = 0.01


async def deploy(blow: Blow) -> None:
    """Have every worker that is started from now on execute the new release; it is seen when one does."""
    blow.session.environment["KINTSUGI_CHAINS"] = f"{RELEASES}:{blow.action.release}"
    blow.session.afresh = True
    blow.session.see_through(_deployed(blow, set(blow.session.generations)))


async def _deployed(blow: Blow, before: set[str]) -> None:
    session, release = blow.session, f"{RELEASES}:{blow.action.release}"
    try:
        async with asyncio.timeout(STARTED_SECONDS):
            while True:
                new = [g for token, g in session.generations.items() if token not in before and g.process is not None]
                for generation in new:
                    assert generation.process is not None
                    words = _command_line(generation.process.pid)
                    if release in words:
                        evidence = f"its command line names {release}"
                        pid = generation.process.pid
                        blow.armed.witness(evidence, released=generation.number, program=words[-3:], worker=pid)
                        return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        blow.armed.missed("no worker was started with the new release")


def _command_line(pid: int) -> list[str]:
    """What a process was executed with; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []
