"""Forks workers that die by a real SIGKILL at a chosen journal write; a program, driven by lines of JSON.

Each line on stdin, ``{"environment", "die_at", "die_when"}``, forks one worker. Its pid is told on stdout,
and when it is reaped ``[pid, signal or exit status]``. The `die_at`-th commit of the worker that carries
anything but a heartbeat is struck: ``before`` it, ``during`` it (written, not committed) or ``after`` it (not
yet acknowledged). ``stop_before_sending`` names a call between whose intent and whose sending it is stopped; with
``file_bytes_max`` no file can grow beyond that; ``lease_seconds`` is how long it lets another worker be silent.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from kintsugi.runtime import carried, worker
from kintsugi.runtime.journal import Claim, Journal
from kintsugi.runtime.leases import Watch
from kintsugi.runtime.minimal import work
from kintsugi.runtime.protocol import DurableContext, ModelRequest, Question, ToolCall
from kintsugi.runtime.store import Event


async def everything(ctx: DurableContext, _plan: Mapping[str, Any]) -> str:
    """Every kind of durable call once; the end tells all that was seen, so that two ends can be compared."""
    seen: list[Any] = []
    request = ModelRequest("think", [{"role": "user", "content": "?"}], schema={"type": "object"})
    seen.append((await ctx.model("think", request))["parsed"])
    seen.append((await ctx.tool("read", ToolCall("read", {}), step="read")).ok)
    for name in ("keyed", "lookup", "opaque"):
        reply = await ctx.tool(name, ToolCall(name, {"amount": 7}), step=name)
        seen.append((name, reply.ok, reply.result["id"]))
    question = Question("approval", "guarded", tool="guarded", arguments={"amount": 8})
    approval = await ctx.ask_human("approve", question)
    call = ToolCall("guarded", {"amount": 8}, approval=approval.token)
    reply = await ctx.tool("guarded", call, step="guarded")
    seen.append((reply.ok, reply.result))
    started = await ctx.now("started")
    await ctx.sleep("rest", 1.0)
    assert await ctx.now("rested") >= started
    again = await ctx.tool("again", ToolCall("keyed", {"amount": 7}), step="again")
    seen.append((again.ok, again.by))
    return json.dumps(seen)


async def several(ctx: DurableContext, _plan: Mapping[str, Any]) -> str:
    """Branches side by side."""
    calls = [ctx.tool(name, ToolCall(name, {}), step=name) for name in ("keyed", "lookup", "read")]
    return str([reply.ok for reply in await ctx.gather(*calls)])


async def poison(_ctx: DurableContext, _plan: Mapping[str, Any]) -> str:
    """Kills its worker as soon as it is carried."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


CHAINS: dict[str, worker.Chain] = {"everything": everything, "several": several, "poison": poison}


def dying(die_at: int, die_when: str) -> type[Journal]:
    """A journal whose process dies at one of its commits."""

    class DyingJournal(Journal):
        _commits = 0

        def _commit(self, operations: list[Any]) -> list[Any]:
            if not operations:
                return super()._commit(operations)
            self._commits += 1
            if self._commits < die_at:
                return super()._commit(operations)
            if die_when == "during":
                operations = [*operations, die]
            elif die_when == "after":
                super()._commit(operations)
            if die_when != "during":
                die()
            return super()._commit(operations)

    return DyingJournal


def stopping(name: str) -> type[Journal]:
    """A journal whose process is stopped as soon as the intent of a call has been acknowledged."""

    class StoppingJournal(Journal):
        async def append(self, claim: Claim, events: Iterable[Event], *, end: bool = False) -> None:
            events = list(events)
            await super().append(claim, events, end=end)
            if ("intent", name) in [(event.kind, event.name) for event in events]:
                os.kill(os.getpid(), signal.SIGSTOP)

    return StoppingJournal


def die(_connection: sqlite3.Connection | None = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def child(order: dict[str, Any]) -> None:
    if "die_at" in order:
        setattr(worker, "Journal", dying(order["die_at"], order["die_when"]))  # noqa: B010 - of one child
        # Its commits are counted: one that was slow must not be followed by another that only confirms the claim.
        setattr(carried, "LEASE_SECONDS", math.inf)  # noqa: B010 - as above
    if "stop_before_sending" in order:
        setattr(worker, "Journal", stopping(order["stop_before_sending"]))  # noqa: B010 - as above
    if "lease_seconds" in order:
        setattr(worker, "Watch", partial(Watch, lease_seconds=order["lease_seconds"]))  # noqa: B010 - as above
    if "file_bytes_max" in order:
        limits = (order["file_bytes_max"], resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    asyncio.run(work(order["environment"], CHAINS))


def reap(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    ALIVE.discard(pid)
    tell([pid, os.waitstatus_to_exitcode(status)])


def tell(what: object) -> None:
    # In one piece, because the reaping threads tell things too.
    os.write(1, f"{json.dumps(what)}\n".encode())


ALIVE: set[int] = set()


def main() -> None:
    """Serve until stdin ends; what is then left of the workers dies too."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                child(json.loads(line))
            finally:
                os._exit(1)
        ALIVE.add(pid)
        tell(pid)
        threading.Thread(target=reap, args=(pid,), daemon=True).start()
    for pid in list(ALIVE):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
