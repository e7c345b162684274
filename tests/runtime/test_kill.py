"""The core, killed for real at every journal write, and taken up by a second process."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kintsugi.runtime.client import submit
from kintsugi.runtime.store import Event, connect, read_events
from kintsugi.runtime.suspects import SUSPECT_CLAIMS, SUSPECT_SECONDS, SUSPECT_SECONDS_MAX

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, NewWorld, Workers, World


pytestmark = pytest.mark.process


def events(world: World, run_id: str = "run") -> list[Event]:
    with closing(connect(world.state_dir)) as connection:
        return read_events(connection, run_id)


def opaque_is_in_doubt(journal: list[Event]) -> bool:
    kinds = [event.kind for event in journal if event.name == "opaque"]
    return "intent" in kinds and "result" not in kinds


async def test_killed_at_every_write(new_world: NewWorld, workers: Workers, plan: MakePlan) -> None:
    payload = {"chain": "everything", "plan": plan()}
    async with new_world("clean") as world:
        world.person = world.truthful
        submit(world.state_dir, "run", payload)
        await workers.kill_after(await workers.start(world.environment()), world.until_ended())
        expected_end = world.ends[0]
        # One commit for the worker itself; each line of the journal, the claim included, is one more. The
        # last line is written after the end was reported, so it may not have been reached.
        writes = 1 + len([event for event in events(world) if event.kind != "ended"]) + 1
    assert expected_end[1] == "completed"
    assert writes > 15

    async def strike(die_at: int, die_when: str) -> bool:
        """Whether a person had to be asked what became of the opaque call."""
        async with new_world(f"{die_at}-{die_when}") as world:
            world.person = world.truthful
            submit(world.state_dir, "run", payload)
            first = await workers.start(world.environment(), die_at=die_at, die_when=die_when)
            assert await workers.exit(first) == -signal.SIGKILL
            found = events(world)
            second = await workers.start(world.environment())
            await workers.kill_after(second, world.until_ended())
            where = f"killed {die_when} write {die_at}, after {[event.kind for event in found]}"
            assert set(world.ends) == {expected_end}, where
            for name in ("keyed", "lookup", "opaque", "guarded"):
                assert world.count(name) == 1, f"{name} {where}"
            halts = [question for question in world.questions.values() if question["kind"] != "approval"]
            assert [halt["kind"] for halt in halts] == ["in_doubt"] * opaque_is_in_doubt(found), where
            assert len(world.questions) == 1 + len(halts), where
            assert events(world)[: len(found)] == found, where
            return bool(halts)

    at_once = asyncio.Semaphore(4)

    async def struck(die_at: int, die_when: str) -> bool:
        async with at_once:
            return await strike(die_at, die_when)

    points = [(die_at, when) for die_at in range(1, writes + 1) for when in ("before", "during", "after")]
    halted = await asyncio.gather(*(struck(*point) for point in points))
    # Killed after the intent's commit, and before or during the result's.
    assert sum(halted) == 3


async def test_killed_again_during_recovery(new_world: NewWorld, workers: Workers, plan: MakePlan) -> None:
    """Five deaths in a row, each as soon as the run has got a little further."""
    async with new_world("again") as world:
        world.person = world.truthful
        submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
        for _ in range(5):
            pid = await workers.start(world.environment(), die_at=5, die_when="during")
            assert await workers.exit(pid) == -signal.SIGKILL
        await workers.kill_after(await workers.start(world.environment()), world.until_ended())
        assert [world.count(name) for name in ("keyed", "lookup", "opaque", "guarded")] == [1, 1, 1, 1]
        assert {end[1] for end in world.ends} == {"completed"}


async def test_another_worker_takes_over_at_once(world: World, workers: Workers, plan: MakePlan) -> None:
    """A worker that dies while it waits for a person is found dead by its lock, and no lease has to end."""
    submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
    first = await workers.start(world.environment("node-a"))
    await world.until_recorded("run", "asked")
    # For this one a lease never ends.
    await workers.start(world.environment("node-b"), lease_seconds=1e9)
    await workers.kill(first)
    (request_id,) = world.questions
    world.decide("run", request_id, {"decision": "approve", "token": "yes"})
    await world.until_ended()
    assert world.posts == [request_id]
    claims = [event.data["worker"].split(".")[0] for event in events(world) if event.kind == "claimed"]
    assert claims == ["node-a", "node-b"]


async def test_a_run_that_kills_its_worker_does_not_stop_the_others(
    world: World, workers: Workers, plan: MakePlan
) -> None:
    world.person = world.truthful
    submit(world.state_dir, "poison", {"chain": "poison", "plan": plan()})
    submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
    ended = asyncio.create_task(world.until_ended())
    while not ended.done():
        pid = await workers.start(world.environment())
        dead = asyncio.create_task(workers.exit(pid))
        await asyncio.wait({dead, ended}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
    await ended
    assert world.ends[0][:2] == ("run", "completed")
    claims = [event.at for event in events(world, "poison") if event.kind == "claimed"]
    assert len(claims) >= SUSPECT_CLAIMS
    # Under suspicion it is left alone for longer and longer, however often a worker begins anew.
    for fruitless, (last, again) in enumerate(pairwise(claims), 1):
        if fruitless >= SUSPECT_CLAIMS:
            assert again - last >= min(SUSPECT_SECONDS * 2.0 ** (fruitless - SUSPECT_CLAIMS), SUSPECT_SECONDS_MAX)


async def test_side_by_side_branches_survive_a_kill(new_world: NewWorld, workers: Workers, plan: MakePlan) -> None:
    for die_at in range(3, 8):
        async with new_world(str(die_at)) as world:
            submit(world.state_dir, "run", {"chain": "several", "plan": plan()})
            pid = await workers.start(world.environment(), die_at=die_at, die_when="during")
            ended = asyncio.create_task(world.until_ended())
            await asyncio.wait({ended, asyncio.create_task(workers.exit(pid))}, return_when=asyncio.FIRST_COMPLETED)
            await workers.start(world.environment())
            await ended
            assert world.ends[0] == (
                "run",
                "completed",
                json.dumps([True, True, True]).replace("true", "True"),
            )
            assert (world.count("keyed"), world.count("lookup")) == (1, 1)
