"""Decisions: early, late, twice, contradictory, and over restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from kintsugi.runtime import minimal
from kintsugi.runtime.protocol import Decision, DurableContext, Question
from kintsugi.runtime.rules import idempotency_key

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Plan, Working, World


APPROVE = {"decision_id": "d1", "decision": "approve", "token": "t", "expires_at": 12.5}


async def asking(ctx: DurableContext, _plan: Plan) -> str:
    first = await ctx.ask_human("first", Question("approval", "s", tool="pay", arguments={"a": 1}))
    second = await ctx.ask_human("second", Question("verify", "s"))
    return f"{first} {second.decision}"


async def asking_once(ctx: DurableContext, _plan: Plan) -> str:
    return str(await ctx.ask_human("first", Question("approval", "s")))


def submit(world: World, plan: MakePlan) -> str:
    """Submit a run; the id of its first request."""
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})
    return idempotency_key("run", "first")


async def test_a_decision_that_comes_before_the_question_is_kept(
    world: World, working: Working, plan: MakePlan
) -> None:
    request_id = submit(world, plan)
    minimal.decide(world.state_dir, "run", request_id, APPROVE)
    async with working(asking_once):
        await world.until_ended()
    assert world.ends[0][2] == str(Decision.from_json(APPROVE))
    assert world.posts == []


async def test_a_decision_between_the_question_and_its_answer_is_kept(
    world: World, working: Working, plan: MakePlan
) -> None:
    """It is delivered while the request to the inbox is not yet answered."""
    submit(world, plan)
    world.person = lambda _question: APPROVE
    async with working(asking_once):
        await world.until_ended()
    assert world.ends[0][2] == str(Decision.from_json(APPROVE))


async def test_a_decision_that_comes_while_no_worker_lives_is_found(
    world: World, working: Working, plan: MakePlan
) -> None:
    request_id = submit(world, plan)
    async with working(asking_once):
        await world.until(lambda: bool(world.posts))
        await world.until_recorded("run", "asked")
    minimal.decide(world.state_dir, "run", request_id, APPROVE)
    async with working(asking_once, "another"):
        await world.until_ended()
    assert world.ends[0][2] == str(Decision.from_json(APPROVE))
    # The question was asked, and that was recorded: nobody is asked twice.
    assert world.posts == [request_id]


async def test_a_decision_delivered_twice_counts_once(world: World, working: Working, plan: MakePlan) -> None:
    request_id = submit(world, plan)
    async with working(asking):
        await world.until(lambda: bool(world.posts))
        for _ in range(3):
            minimal.decide(world.state_dir, "run", request_id, APPROVE)
        await world.until(lambda: len(world.posts) == 2)
        minimal.decide(world.state_dir, "run", request_id, APPROVE)
        second = world.posts[1]
        minimal.decide(world.state_dir, "run", second, {"decision_id": "d2", "decision": "yes"})
        await world.until_ended()
        minimal.decide(world.state_dir, "run", second, {"decision_id": "d2", "decision": "yes"})
    assert world.ends == [("run", "completed", f"{Decision.from_json(APPROVE)} yes")]
    assert len(world.posts) == 2


async def test_of_two_decisions_the_first_stands(world: World, working: Working, plan: MakePlan) -> None:
    request_id = submit(world, plan)
    minimal.decide(world.state_dir, "run", request_id, APPROVE)
    minimal.decide(world.state_dir, "run", request_id, {"decision_id": "d2", "decision": "reject"})
    async with working(asking_once):
        await world.until_ended()
    assert "'approve'" in world.ends[0][2]


async def test_a_recorded_decision_survives_a_restart(world: World, working: Working, plan: MakePlan) -> None:
    request_id = submit(world, plan)
    minimal.decide(world.state_dir, "run", request_id, APPROVE)
    for _ in range(2):
        async with working(asking):
            await world.until(lambda: bool(world.posts))
            await world.until_recorded("run", "asked", 2)
    minimal.decide(world.state_dir, "run", world.posts[0], {"decision_id": "d2", "decision": "yes"})
    async with working(asking):
        await world.until_ended()
    assert world.ends[0][2] == f"{Decision.from_json(APPROVE)} yes"
    assert len(world.posts) == 1


async def test_the_inbox_is_tried_until_it_answers(world: World, working: Working, plan: MakePlan) -> None:
    request_id = submit(world, plan)
    closed = [500, 500]
    original = world.on_question

    async def on_question(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=closed.pop()) if closed else await original(request)

    world.question = on_question
    world.person = lambda _question: APPROVE
    async with working(asking_once):
        await world.until_ended()
    assert world.posts == [request_id]
