"""Tool calls against real HTTP: what is sent, what is believed, and when a person is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kintsugi.runtime.client import submit
from kintsugi.runtime.protocol import DurableContext, ToolCall
from kintsugi.runtime.worker import Chain

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, PassTime, Plan, RunChain, Working, World


def calling(name: str) -> Chain:
    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        reply = await ctx.tool("call", ToolCall(name, {"n": 1}), step="s")
        return f"{reply.ok} {reply.by} {reply.status} {reply.result} {reply.error}"

    return chain


class Script:
    """Answers in a tool's place, one after another; None lets the tool itself answer."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        answer = self._answers.pop(0) if self._answers else None
        if answer == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, int):
            return web.json_response({"error": {"message": f"said {answer}"}}, status=answer)
        if isinstance(answer, dict):
            return web.json_response({"result": answer})
        assert answer is None or isinstance(answer, web.StreamResponse)
        return answer


@pytest.mark.parametrize("name", ["keyed", "lookup"])
@pytest.mark.parametrize("lost", ["reset", 500, 502, 504, 408, {"nonsense": 1}])
async def test_an_answer_lost_after_the_effect_leads_to_no_second_one(
    world: World, run_chain: RunChain, name: str, lost: object
) -> None:
    world.after = Script(lost)
    assert await run_chain(calling(name)) == ("completed", "True tool 200 {'id': 1} ")
    assert world.count(name) == 1
    assert world.questions == {}
    assert world.calls == (["keyed", "keyed"] if name == "keyed" else ["lookup", "lookup/find"])


@pytest.mark.parametrize("lost", ["reset", 500])
async def test_an_answer_lost_before_the_effect_is_repeated(world: World, run_chain: RunChain, lost: object) -> None:
    world.before = Script(lost)
    assert await run_chain(calling("lookup")) == ("completed", "True tool 200 {'id': 1} ")
    assert world.calls == ["lookup", "lookup/find", "lookup"]


@pytest.mark.parametrize("happened", [True, False])
async def test_an_opaque_call_in_doubt_is_put_to_a_person(world: World, run_chain: RunChain, *, happened: bool) -> None:
    world.person = world.truthful
    script = Script("reset")
    world.after, world.before = (script, None) if happened else (None, script)
    by = "human" if happened else "tool"
    assert await run_chain(calling("opaque")) == ("completed", f"True {by} 200 {{'id': 1}} ")
    assert world.count("opaque") == 1
    (question,) = world.questions.values()
    assert (question["kind"], question["step"], question["tool"]) == ("in_doubt", "s", "opaque")
    assert question["arguments"] == {"n": 1}
    assert question["evidence"]["attempts"][0]["outcome"] == "unknown"


@pytest.mark.parametrize("status", [429, 503])
async def test_an_opaque_call_that_was_turned_away_is_just_repeated(
    world: World, run_chain: RunChain, status: int
) -> None:
    world.before = Script(status, status)
    assert await run_chain(calling("opaque")) == ("completed", "True tool 200 {'id': 1} ")
    assert world.questions == {}


async def test_a_refusal_is_the_callers_to_deal_with(world: World, run_chain: RunChain) -> None:
    world.before = Script(422)
    assert await run_chain(calling("opaque")) == ("completed", "False tool 422 None said 422")
    assert world.calls == ["opaque"]


async def test_a_refusal_may_come_as_a_page(world: World, run_chain: RunChain) -> None:
    world.before = Script(web.Response(text="<html>", status=503, headers={"Retry-After": "0.01"}))
    assert (await run_chain(calling("opaque")))[1] == "True tool 200 {'id': 1} "


async def test_a_slow_tool_times_out(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    never = asyncio.Event()

    async def hang(_request: web.Request) -> None:
        if len(world.calls) == 1:
            await never.wait()

    world.after = hang
    # Later attempts may be too slow as well; one of them is not.
    slow = plan(tool_timeout_seconds=0.5, attempts=1000)
    assert (await run_chain(calling("keyed"), slow))[1] == "True tool 200 {'id': 1} "
    assert world.count("keyed") == 1
    never.set()


async def test_reads_are_repeated_until_they_can_be_believed(world: World, run_chain: RunChain) -> None:
    world.before = Script("reset", 500, web.json_response({"result": "no object"}))
    assert (await run_chain(calling("read")))[1] == "True tool 200 {'value': 4} "


async def test_a_spent_budget_halts_and_a_person_grants_another(
    world: World, run_chain: RunChain, plan: MakePlan
) -> None:
    world.before = Script(*[503] * 5)
    world.person = lambda _question: {"decision": "continue"}
    assert (await run_chain(calling("keyed"), plan(attempts=2)))[1] == "True tool 200 {'id': 1} "
    assert [question["kind"] for question in world.questions.values()] == ["budget", "budget"]
    assert [len(q["evidence"]["attempts"]) for q in world.questions.values()] == [2, 4]
    assert len(world.calls) == 6


async def test_a_person_may_stop_the_run(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    world.before = Script(*[503] * 5)
    world.person = lambda _question: {"decision": "stop"}
    status, detail = await run_chain(calling("keyed"), plan(attempts=2))
    assert (status, detail) == ("failed", "s: a person stopped the run; said 503")


async def test_a_persons_result_is_held_to_the_schema_too(world: World, run_chain: RunChain) -> None:
    world.after = Script("reset")
    answers: list[dict[str, Any]] = [{"result": {"id": "one"}}, {"result": {"id": 1}}]
    world.person = lambda _question: {"decision": "happened", **answers.pop(0)}
    assert (await run_chain(calling("opaque")))[1] == "True human 200 {'id': 1} "
    assert "is not of type 'integer'" in list(world.questions.values())[1]["summary"]


async def test_an_answer_that_settles_nothing_is_asked_for_again(world: World, run_chain: RunChain) -> None:
    """To go on without knowing whether an opaque call happened would be to guess."""
    world.after = Script("reset")
    answers: list[dict[str, Any]] = [
        {"decision": "continue"},
        {"decision": "approve"},
        {"decision": "happened", "result": {"id": 1}},
    ]
    world.person = lambda _question: answers.pop(0)
    assert (await run_chain(calling("opaque")))[1] == "True human 200 {'id': 1} "
    assert world.count("opaque") == 1


async def test_lookups_that_fail_are_tried_within_the_budget(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    world.after = Script("reset")
    world.person = world.truthful
    fails = [502, 502, 502]
    original = world.on_find

    async def on_find(request: web.Request) -> web.StreamResponse:
        if fails:
            world.calls.append("lookup/find")
            return web.json_response({}, status=fails.pop())
        answer: web.StreamResponse = await original(request)
        return answer

    world.find = on_find
    assert (await run_chain(calling("lookup"), plan(attempts=2)))[1] == "True human 200 {'id': 1} "
    assert world.calls == ["lookup", "lookup/find", "lookup/find"]
    assert [question["kind"] for question in world.questions.values()] == ["budget"]


async def test_a_bare_404_is_no_proof_of_absence(world: World, run_chain: RunChain) -> None:
    """Something in between may say 404 too, and a second effect would follow."""
    world.after = Script("reset")
    pages = [web.Response(text="no such route", status=404)]
    original = world.on_find

    async def on_find(request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = pages.pop() if pages else await original(request)
        return answer

    world.find = on_find
    assert (await run_chain(calling("lookup")))[1] == "True tool 200 {'id': 1} "
    assert world.count("lookup") == 1


async def test_an_unapproved_or_unfit_call_never_leaves(world: World, run_chain: RunChain) -> None:
    status, detail = await run_chain(calling("guarded"))
    assert (status, detail[:19]) == ("completed", "False policy 0 None")
    assert "needs an approval" in detail
    assert world.calls == []


async def test_an_approval_that_expires_between_attempts_is_not_used(
    world: World, run_chain: RunChain, pass_time: PassTime
) -> None:
    """The first attempt was turned away; by the second, the token is void."""

    async def turn_away(_request: web.Request) -> web.StreamResponse | None:
        if len(world.calls) > 1:
            return None
        pass_time(7200.0)
        return web.json_response({}, status=503)

    world.before = turn_away

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        expires = await ctx.now("now") + 3600.0
        call = ToolCall("guarded", {}, approval="t", approval_expires_at=expires)
        first = await ctx.tool("call", call, step="s")
        again = await ctx.tool("again", ToolCall("guarded", {}, approval="u"), step="s")
        return f"{first.by} {first.error}; {again.ok}"

    _, detail = await run_chain(chain)
    assert detail == "policy The approval for guarded has expired; ask for a new one.; True"
    assert world.calls == ["guarded", "guarded"]


async def test_a_call_in_doubt_whose_approval_expired_is_put_to_a_person(
    world: World, run_chain: RunChain, pass_time: PassTime
) -> None:
    """Without an approval it may not be sent to find out, and that it never happened is not known either."""

    async def turn_away_the_second(_request: web.Request) -> web.StreamResponse | None:
        if len(world.calls) == 1:
            return None
        pass_time(7200.0)
        return web.json_response({}, status=503)

    world.after = Script("reset")
    world.before = turn_away_the_second
    world.person = lambda _question: {"decision": "happened", "result": {"id": 1}}

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        expires = await ctx.now("now") + 3600.0
        call = ToolCall("guarded", {}, approval="t", approval_expires_at=expires)
        return (await ctx.tool("call", call, step="s")).by

    assert await run_chain(chain) == ("completed", "human")
    assert world.calls == ["guarded", "guarded"]
    assert [question["kind"] for question in world.questions.values()] == ["in_doubt"]


async def test_what_a_keyed_call_says_at_the_door_settles_no_doubt(world: World, run_chain: RunChain) -> None:
    world.after = Script("reset")
    world.before = Script(None, 401)
    assert (await run_chain(calling("keyed")))[1] == "True tool 200 {'id': 1} "
    assert world.count("keyed") == 1


async def test_a_repeat_is_refused_with_the_earlier_result(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        await ctx.tool("first", ToolCall("opaque", {}), step="s")
        return str((await ctx.tool("second", ToolCall("opaque", {}), step="s")).result)

    assert await run_chain(chain) == ("completed", "{'id': 1}")
    assert await run_chain(chain, plan(repeat_writes="allow"), "other") == ("completed", "{'id': 3}")
    assert world.count("opaque") == 3


async def test_an_outage_is_met_with_backpressure(world: World, working: Working, plan: MakePlan) -> None:
    """Thirty runs, a tool that is down for its first 16 requests: all get through, and none is wasted."""

    async def down(_request: web.Request) -> web.StreamResponse | None:
        return web.json_response({}, status=503) if len(world.calls) <= 16 else None

    world.before = down
    for number in range(30):
        submit(world.state_dir, f"r{number}", {"chain": "chain", "plan": plan()})
    async with working(calling("keyed")):
        await world.until_ended(30)
    assert {end[1:] for end in world.ends} == {
        ("completed", f"True tool 200 {{'id': {number}}} ") for number in range(1, 31)
    }
    assert world.questions == {}
    assert len(world.calls) == 16 + 30
