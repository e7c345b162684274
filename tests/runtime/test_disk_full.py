"""A disk that fills up under a living worker, and is freed again."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from kintsugi.runtime import minimal

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Workers, World


pytestmark = pytest.mark.process


def largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.glob("journal.db*"))


@pytest.mark.parametrize("name", ["keyed", "opaque"])
async def test_what_was_heard_while_the_disk_was_full_is_recorded_later(
    world: World, workers: Workers, plan: MakePlan, name: str
) -> None:
    """The effect has happened, its result can't be written: the worker keeps it until it can."""
    world.person = world.truthful
    held, let_go = asyncio.Event(), asyncio.Event()

    async def hold(request: web.Request) -> None:
        if request.match_info["tool"] == name:
            held.set()
            await let_go.wait()

    world.after = hold
    minimal.submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
    worker = await workers.start(world.environment())
    await held.wait()
    # A limit on the size of files stands for the disk's, and needs no privilege.
    full = largest_file(Path(world.state_dir))
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    let_go.set()
    await workers.until_said("run run: the journal can't be written")
    assert minimal.status(world.state_dir, "run")["in_doubt"] == [name]
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await world.until_ended()
    assert world.ends[0][1] == "completed"
    assert [world.count(each) for each in ("keyed", "lookup", "opaque", "guarded")] == [1, 1, 1, 1]
    assert {question["kind"] for question in world.questions.values()} == {"approval"}
    assert minimal.status(world.state_dir, "run")["claims"] == 1


async def test_a_worker_waits_for_a_disk_that_is_full_when_it_starts(
    world: World, workers: Workers, plan: MakePlan
) -> None:
    world.person = world.truthful
    minimal.submit(world.state_dir, "run", {"chain": "everything", "plan": plan()})
    worker = await workers.start(world.environment(), file_bytes_max=1000)
    await workers.until_said("worker w1:")
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await world.until_ended()
    assert world.ends[0][1] == "completed"
