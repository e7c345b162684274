"""How an operator steers runs: pause, resume, cancel, retry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from kintsugi.runtime import minimal
from kintsugi.runtime.protocol import (
    DurableContext,
    ModelRequest,
    Question,
    ToolCall,
)

if TYPE_CHECKING:
    from tests.runtime.conftest import Handler, MakePlan, Plan, Working, World


async def test_a_paused_run_begins_nothing_until_it_is_resumed(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_request: web.Request) -> None:
        if len(world.calls) == 1:
            inside.set()
            await go_on.wait()

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        await ctx.tool("one", ToolCall("keyed", {}), step="s")
        await ctx.tool("two", ToolCall("opaque", {}), step="s")
        return "done"

    world.before = hold
    async with working(chain):
        await inside.wait()
        minimal.pause(world.state_dir, "run")
        # Signals are taken in before runs: once this one has ended, the pause was heard.
        minimal.submit(world.state_dir, "marker", {"chain": "nowhere", "plan": plan()})
        await world.until_ended()
        assert minimal.status(world.state_dir, "run")["state"] == "paused"
        go_on.set()
        # What was under way is finished and recorded.
        await world.until_stored(lambda: bool(minimal.status(world.state_dir, "run")["done"]))
    # The pause outlives the worker.
    async with working(chain):
        await world.until_stored(lambda: minimal.status(world.state_dir, "run")["claims"] == 2)
        assert minimal.status(world.state_dir, "run")["next"] == "resume"
        assert world.calls == ["keyed"]
        minimal.resume(world.state_dir, "run")
        await world.until_ended(2)
    assert world.calls == ["keyed", "opaque"]


async def test_a_cancelled_run_fails_and_can_be_tried_again(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        await ctx.tool("one", ToolCall("keyed", {}), step="s")
        return (await ctx.ask_human("ask", Question("approval", "s"))).decision

    async with working(chain):
        await world.until(lambda: bool(world.questions))
        minimal.cancel(world.state_dir, "run")
        await world.until_ended()
        assert world.ends == [("run", "failed", "cancelled by an operator")]
        await world.until_stored(lambda: bool(minimal.status(world.state_dir, "run")["ended"]))
        minimal.retry(world.state_dir, "run")
        world.decide("run", next(iter(world.questions)), {"decision": "approve"})
        await world.until(lambda: len(world.ends) == 2)
    assert world.ends[1] == ("run", "completed", "approve")
    assert world.calls == ["keyed"]
    assert len(world.posts) == 1


async def test_a_run_is_cancelled_in_the_middle_of_an_outage(world: World, working: Working, plan: MakePlan) -> None:
    """It need not come to the front of the line of those that wait for the tool."""

    async def down(_request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=503, headers={"Retry-After": "1000"})

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        return str((await ctx.tool("one", ToolCall("keyed", {}), step="s")).ok)

    world.before = down
    async with working(chain):
        for run_id in ("first", "run"):
            minimal.submit(world.state_dir, run_id, {"chain": "chain", "plan": plan()})
            await world.until(lambda: bool(world.calls))
            await world.until_recorded(run_id, "failed" if run_id == "first" else "claimed")
        minimal.cancel(world.state_dir, "run")
        await world.until_ended()
    assert world.ends == [("run", "failed", "cancelled by an operator")]
    assert world.calls == ["keyed"]


async def test_retry_cuts_a_back_off_short(world: World, working: Working, plan: MakePlan) -> None:
    slow = plan(backoff_base_seconds=1000.0, backoff_cap_seconds=1000.0)
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": slow})
    world.before = one_failure(world)

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        return str((await ctx.tool("one", ToolCall("keyed", {}), step="s")).ok)

    async with working(chain):
        await world.until_stored(lambda: bool(minimal.status(world.state_dir, "run")["retries"]))
        minimal.retry(world.state_dir, "run")
        await world.until_ended()
    assert world.ends[0][1:] == ("completed", "True")


async def test_retry_grants_a_halted_run_a_fresh_budget(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan(malformed_attempts=1)})
    replies = ["prose", {"value": 1}]
    world.model = lambda _body: replies.pop(0)

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        request = ModelRequest("think", [], schema={"type": "object"})
        return str((await ctx.model("ask", request))["parsed"])

    async with working(chain):
        await world.until_stored(lambda: minimal.status(world.state_dir, "run")["state"] == "waiting")
        minimal.retry(world.state_dir, "run")
        await world.until_ended()
    assert world.ends[0][1:] == ("completed", "{'value': 1}")


async def test_a_run_stopped_by_a_person_can_be_tried_again(world: World, working: Working, plan: MakePlan) -> None:
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan(attempts=1)})
    world.before = one_failure(world)
    world.person = lambda _question: {"decision": "stop"}

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        return str((await ctx.tool("one", ToolCall("keyed", {}), step="s")).ok)

    async with working(chain):
        await world.until_stored(lambda: bool(minimal.status(world.state_dir, "run")["ended"]))
        minimal.retry(world.state_dir, "run")
        await world.until(lambda: len(world.ends) == 2)
    assert [end[1] for end in world.ends] == ["failed", "completed"]


def one_failure(world: World) -> Handler:
    async def fail_once(_request: web.Request) -> web.StreamResponse | None:
        return web.json_response({}, status=503) if len(world.calls) == 1 else None

    return fail_once
