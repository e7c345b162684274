"""How runs begin, go on and end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kintsugi.runtime import minimal, worker
from kintsugi.runtime.carried import Carried
from kintsugi.runtime.protocol import (
    DurableContext,
    PolicyStop,
    Question,
    ToolCall,
    WorkflowFailed,
)
from kintsugi.runtime.store import connect, read_events
from kintsugi.runtime.worker import Chain

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Plan, RunChain, Working, World


def ending(how: BaseException | str) -> Chain:
    async def chain(_ctx: DurableContext, _plan: Plan) -> str:
        if isinstance(how, BaseException):
            raise how
        return how

    return chain


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("all done", ("completed", "all done")),
        (PolicyStop("rejected"), ("completed", "rejected")),
        (WorkflowFailed("no way"), ("failed", "no way")),
        (KeyError("x"), ("failed", "KeyError: 'x'")),
        (asyncio.CancelledError(), ("failed", "CancelledError in the chain")),
    ],
)
async def test_how_a_run_ends(
    world: World, run_chain: RunChain, how: BaseException | str, end: tuple[str, str]
) -> None:
    assert await run_chain(ending(how)) == end
    shown = minimal.status(world.state_dir, "run")
    assert (shown["state"], shown["detail"]) == end


async def test_a_plan_or_chain_that_cannot_be_used_fails_its_run_only(
    world: World, working: Working, plan: MakePlan
) -> None:
    minimal.submit(world.state_dir, "a", {"chain": "nowhere", "plan": plan()})
    minimal.submit(world.state_dir, "b", {"chain": "chain", "plan": plan(attempts=0)})
    minimal.submit(world.state_dir, "c", {"chain": "chain"})
    minimal.submit(world.state_dir, "d", {"chain": "chain", "plan": plan()})
    async with working(ending("done")):
        await world.until_ended(4)
    ends = {run: (status, detail) for run, status, detail in world.ends}
    assert ends["a"] == ("failed", "there is no chain 'nowhere'; this worker has chain")
    assert ends["b"][1].endswith("policy.attempts is 0; allowed: a whole number from 1")
    assert ends["c"][1].startswith("the plan can't be used: KeyError")
    assert ends["d"] == ("completed", "done")


async def test_the_end_is_reported_until_it_is_heard(world: World, run_chain: RunChain) -> None:
    deaf = [502, 503]
    original = world.on_end

    async def on_end(request: web.Request) -> web.StreamResponse:
        if deaf:
            return web.json_response({}, status=deaf.pop())
        answer: web.StreamResponse = await original(request)
        return answer

    world.end = on_end
    assert await run_chain(ending("done")) == ("completed", "done")
    assert len(world.ends) == 1


async def test_a_changed_chain_is_noticed_at_replay(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})

    def asking(amount: int) -> Chain:
        async def chain(ctx: DurableContext, _plan: Plan) -> str:
            await ctx.tool("write", ToolCall("keyed", {"amount": amount}), step="s")
            await ctx.ask_human("ask", Question("approval", "s"))
            return "done"

        return chain

    async with working(asking(1)):
        await world.until(lambda: bool(world.questions))
    async with working(asking(2)):
        await world.until_ended()
    (end,) = world.ends
    assert end[1] == "failed"
    assert "NonDeterminism: 'write' is in the journal of run run with another request" in end[2]
    assert world.count("keyed") == 1


async def test_branches_of_a_failed_run_come_to_rest_before_it_ends(world: World, run_chain: RunChain) -> None:
    """A branch in the middle of a write is not cut off, and none begins another."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_request: web.Request) -> None:
        arrived.set()
        await go_on.wait()

    world.before = hold

    async def writes(ctx: DurableContext) -> None:
        await ctx.tool("one", ToolCall("keyed", {}), step="s")
        await ctx.tool("two", ToolCall("opaque", {}), step="s")

    async def fails() -> None:
        await arrived.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        raise WorkflowFailed("broken")

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        await asyncio.gather(writes(ctx), fails(), ctx.sleep("long", 10_000))
        return "unreachable"

    assert await run_chain(chain) == ("failed", "broken")
    assert world.calls == ["keyed"]
    done = minimal.status(world.state_dir, "run")["done"]
    assert ("one", "tool") in [(call["name"], call["by"]) for call in done if "by" in call]


async def test_time_is_recorded_and_scaled(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})
    times: list[list[float]] = []

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        first = await ctx.now("first")
        await ctx.sleep("nap", 10.0)
        second = await ctx.now("second")
        times.append([first, second])
        await ctx.ask_human("ask", Question("approval", "s"))
        return "done"

    async with working(chain):
        await world.until(lambda: bool(world.questions))
    world.person = None
    world.decide("run", next(iter(world.questions)), {"decision": "approve"})
    async with working(chain, KINTSUGI_TIME_SCALE="1000"):
        await world.until_ended()
    assert times[0] == times[1]
    with closing(connect(world.state_dir)) as connection:
        (timer,) = [event for event in read_events(connection, "run") if event.kind == "timer"]
    first, second = times[0]
    # Ten workflow seconds at a hundredth of a wall second each, from some moment before the timer was recorded.
    assert first + 0.1 <= timer.data["until"] <= timer.at + 0.1
    assert timer.data["until"] <= second


async def test_a_run_that_breaks_the_runtime_itself_is_taken_up_again(
    world: World, working: Working, plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug or a broken file must not leave a run with a worker that does nothing for it."""
    broken = [OSError("a fault of its own")]

    class Breaking(Carried):
        def __init__(self, *arguments: Any) -> None:
            if broken:
                raise broken.pop()
            super().__init__(*arguments)

    monkeypatch.setattr(worker, "Carried", Breaking)
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})
    async with working(ending("done")):
        await world.until_ended()
    assert minimal.status(world.state_dir, "run")["claims"] == 2


async def test_the_same_submission_twice_is_one_run(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    payload = {"chain": "chain", "plan": plan()}
    for _ in range(2):
        minimal.submit(world.state_dir, "run", payload)
    await run_chain(ending("done"), plan())
    minimal.submit(world.state_dir, "run", payload)
    assert len(world.ends) == 1
    with pytest.raises(ValueError, match="another payload"):
        minimal.submit(world.state_dir, "run", {"chain": "other", "plan": plan()})


def test_what_is_said_to_an_unknown_run_is_refused(tmp_path: Path) -> None:
    decision = {"decision_id": "d", "decision": "approve"}
    with pytest.raises(LookupError, match="there is no run 'x'"):
        minimal.decide(tmp_path, "x", "q", decision)
    for control in (minimal.pause, minimal.resume, minimal.retry, minimal.cancel):
        with pytest.raises(LookupError):
            control(tmp_path, "x")
    assert minimal.status(tmp_path, "x")["state"] == "unknown"
    with pytest.raises(ValueError, match="decision"):
        minimal.decide(tmp_path, "x", "q", {"decision": "approve"})


def test_its_import_opens_nothing_and_starts_no_thread() -> None:
    """The launcher forks workers from a process that has imported it."""
    program = """
import os, threading
before = {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
import kintsugi.runtime.minimal
after = {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
print(threading.active_count(), sorted(after) == sorted(before))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "1 True\n"
