"""Model calls: nothing that breaks its schema is recorded, and the model is not asked for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kintsugi.runtime.client import status
from kintsugi.runtime.protocol import DurableContext, ModelRequest

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Plan, RunChain, World


SCHEMA = {"type": "object", "required": ["value"], "properties": {"value": {"type": "integer"}}}


async def asking(ctx: DurableContext, _plan: Plan) -> str:
    request = ModelRequest("think", [{"role": "user", "content": "?"}], schema=SCHEMA)
    return str((await ctx.model("ask", request))["parsed"])


async def conversing(ctx: DurableContext, _plan: Plan) -> str:
    request = ModelRequest("turn", [{"role": "user", "content": "?"}], tools=[{"type": "function"}])
    return str([(await ctx.model(f"turn {turn}", request))["content"] for turn in range(3)])


def saying(*answers: object) -> Callable[[Any], Any]:
    left = list(answers)
    return lambda _body: left.pop(0) if left else {"value": 1}


def failing(status_code: int, **headers: str) -> web.StreamResponse:
    return web.json_response({}, status=status_code, headers=headers)


async def test_a_rejected_reply_is_asked_for_again_with_the_reason(world: World, run_chain: RunChain) -> None:
    world.model = saying("prose", {"value": "one"}, {"value": 2})
    assert await run_chain(asking) == ("completed", "{'value': 2}")
    first, second, third = (call["messages"] for call in world.model_calls)
    assert len(first) == 1
    assert "not valid JSON" in second[-1]["content"]
    # Only the last problem is told, so the request does not grow.
    assert "'one' is not of type 'integer'" in third[-1]["content"]
    assert len(third) == 2
    assert world.model_calls[0]["response_format"]["json_schema"]["name"] == "think"
    assert status(world.state_dir, "run")["cost"] == {
        "model_calls": 3,
        "tool_calls": 0,
        "prompt_tokens": 30,
        "completion_tokens": 6,
    }


async def test_too_many_rejected_replies_halt(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    world.model = saying("a", "b", "c", "d", {"value": 3})
    world.person = lambda _question: {"decision": "continue"}
    assert await run_chain(asking, plan(malformed_attempts=2)) == ("completed", "{'value': 3}")
    assert [q["kind"] for q in world.questions.values()] == ["budget", "budget"]
    assert [q["evidence"]["budget"] for q in world.questions.values()] == ["malformed_attempts"] * 2
    assert [len(q["evidence"]["attempts"]) for q in world.questions.values()] == [2, 4]


async def test_errors_are_retried_and_retry_after_is_honoured(world: World, run_chain: RunChain) -> None:
    world.model = saying(failing(500), failing(429, **{"Retry-After": "0.15"}), web.json_response({"choices": []}))
    assert await run_chain(asking) == ("completed", "{'value': 1}")
    assert len(world.model_calls) == 4
    assert world.questions == {}


async def test_errors_within_one_call_are_bounded(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    world.model = saying(failing(500), failing(500))
    world.person = lambda _question: {"decision": "happened", "result": {"value": 9}}
    assert await run_chain(asking, plan(attempts=2)) == ("completed", "{'value': 9}")
    (question,) = world.questions.values()
    assert (question["kind"], question["evidence"]["budget"]) == ("budget", "attempts")
    assert len(world.model_calls) == 2


async def test_a_person_who_answers_for_the_model_is_held_to_the_schema(
    world: World, run_chain: RunChain, plan: MakePlan
) -> None:
    world.model = saying(failing(500))
    answers: list[Any] = [{"result": {"value": "x"}}, {"result": {"value": 9}}]
    world.person = lambda _question: {"decision": "happened", **answers.pop(0)}
    assert await run_chain(asking, plan(attempts=1)) == ("completed", "{'value': 9}")


async def test_a_person_may_stop_the_run(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    world.model = saying("prose")
    world.person = lambda _question: {"decision": "stop"}
    status_, detail = await run_chain(asking, plan(malformed_attempts=1))
    assert status_ == "failed"
    assert detail.startswith("think: a person stopped the run; The reply is not valid JSON")


async def test_the_asks_of_a_run_are_bounded(world: World, run_chain: RunChain, plan: MakePlan) -> None:
    """The budget counts rejected and unanswered asks too, and a person's yes grants a fresh one."""
    world.model = saying("one", failing(500), "two", "three")
    world.person = lambda _question: {"decision": "continue"}
    assert await run_chain(conversing, plan(model_calls_max=2)) == ("completed", "['one', 'two', 'three']")
    assert [q["evidence"]["budget"] for q in world.questions.values()] == ["model_calls_max"]
    assert len(world.model_calls) == 4


async def test_a_free_conversation_gives_the_models_message_as_it_is(world: World, run_chain: RunChain) -> None:
    world.model = saying("one", "two", "three")
    assert await run_chain(conversing) == ("completed", "['one', 'two', 'three']")
    assert world.model_calls[0]["tools"] == [{"type": "function"}]
    assert "response_format" not in world.model_calls[0]
