"""A worker that is paused past its lease, and wakes up."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kintsugi.runtime import carried, minimal
from kintsugi.runtime.breaker import Breaker
from kintsugi.runtime.carried import Carried, Means
from kintsugi.runtime.journal import Fenced, Journal
from kintsugi.runtime.leases import LEASE_SECONDS, Lease, claim, declare_dead
from kintsugi.runtime.store import connect, read_events

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Workers, World


@pytest.mark.process
async def test_a_worker_stopped_in_a_write_loses_the_run_and_commits_nothing(
    world: World, workers: Workers, plan: MakePlan
) -> None:
    world.person = world.truthful
    held, let_go = asyncio.Event(), asyncio.Event()

    async def hold_the_first(request: web.Request) -> None:
        if request.match_info["tool"] == "keyed" and not held.is_set():
            held.set()
            await let_go.wait()

    world.after = hold_the_first
    minimal.submit(world.state_dir, "run", {"chain": "everything", "plan": plan(tool_timeout_seconds=60.0)})
    first = await workers.start(world.environment("node-a"))
    await held.wait()
    os.kill(first, signal.SIGSTOP)
    stopped_at = asyncio.get_running_loop().time()
    await workers.start(world.environment("node-b"))
    await world.until_ended()
    assert asyncio.get_running_loop().time() - stopped_at >= LEASE_SECONDS
    # It wakes, hears the answer that it was waiting for, and must not act on it.
    os.kill(first, signal.SIGCONT)
    let_go.set()
    await incarnations(world, 2)
    await world.until_recorded("run", "ended")
    assert {end[1] for end in world.ends} == {"completed"}
    assert [world.count(name) for name in ("keyed", "lookup", "opaque", "guarded")] == [1, 1, 1, 1]
    with closing(connect(world.state_dir)) as connection:
        events = read_events(connection, "run")
    assert [event.kind for event in events].count("ended") == 1
    assert [event.kind for event in events if event.name == "keyed"] == ["intent", "result"]
    # It works on, under a new name.
    minimal.submit(world.state_dir, "next", {"chain": "several", "plan": plan()})
    await world.until_ended(2)


@pytest.mark.process
async def test_a_worker_stopped_between_intent_and_sending_sends_nothing(
    world: World, workers: Workers, plan: MakePlan
) -> None:
    """By the time it wakes, a person has said that the opaque call did not happen, and another worker has made it."""
    world.person = world.truthful
    minimal.submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
    first = await workers.start(world.environment("node-a"), stop_before_sending="opaque")
    await world.until_recorded("run", "intent", 3)
    await workers.start(world.environment("node-b"))
    await world.until_ended()
    assert [question["kind"] for question in world.questions.values()] == ["in_doubt", "approval"]
    os.kill(first, signal.SIGCONT)
    await incarnations(world, 2)
    assert world.count("opaque") == 1
    assert world.calls.count("opaque") == 1


async def incarnations(world: World, count: int) -> None:
    """Wait until so many workers are registered."""
    with closing(connect(world.state_dir)) as connection:
        await world.until_stored(lambda: connection.execute("SELECT count(*) FROM workers").fetchone()[0] >= count)


class Stopped:
    """A process whose clock has moved on while it was not running."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_a_write_is_sent_only_right_after_a_commit(
    world: World, plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused between intent and sending, a worker finds out that it has lost the run before it sends."""

    clock = Stopped()
    monkeypatch.setattr(carried, "time", clock)
    minimal.submit(world.state_dir, "run", {"chain": "c", "plan": plan()})
    lease = Lease(world.state_dir, "w")
    journal = Journal(world.state_dir, lease.beat)
    await journal.write(lease.register)
    (mine,) = await journal.write(lambda c: claim(c, ["run"], lease.incarnation))
    run = journal.run("run")
    assert run is not None
    services: Any = None
    held = Carried(run, mine, Means(journal, services, Breaker()), [], [])

    await held.record(held.event("intent", "x", tool="opaque", arguments={}))
    await held.confirm()
    clock.seconds += LEASE_SECONDS
    await held.confirm()
    assert [event.kind for event in journal.events("run")] == ["claimed", "intent"]

    clock.seconds += LEASE_SECONDS
    (beat,) = journal.query("SELECT beat FROM workers")[0]
    assert await journal.write(lambda c: declare_dead(c, lease.incarnation, beat))
    with pytest.raises(Fenced):
        await held.confirm()
    await journal.close()
    lease.close()
