"""The contexts on an engine that is none: acts are answered from a script, and everything asked of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kintsugi.runtime.engines.durable import DefaultContext, Spent, TunedContext, carry, dated, once_by_mark
from kintsugi.runtime.protocol import ModelRequest, PolicyStop, Question, ToolCall, ToolReply, WorkflowFailed
from kintsugi.runtime.rules import Budget

OBJECT = {"type": "object"}


def tool(effect: str, idempotency: str = "none") -> dict[str, Any]:
    return {"effect": effect, "idempotency": idempotency, "parameters": OBJECT, "result": OBJECT}


PLAN: dict[str, Any] = {
    "model": "scripted",
    "policy": {"attempts": 3, "malformed_attempts": 2, "model_calls_max": 4},
    "tools": {
        "read": tool("read"),
        "pay": tool("write", "key"),
        "file": tool("write", "lookup"),
        "mail": tool("write"),
    },
}
PAYLOAD = dated({"plan": PLAN})
DONE = {"reply": {"ok": True, "result": {"id": 1}}}


class Control(BaseException):
    """What an engine raises for its own ends."""


class Scripted:
    """An engine whose acts end as `answers` says: a value, or an exception to raise."""

    run_id = "r0"
    control: tuple[type[BaseException], ...] = (Control,)
    side_by_side = False

    def __init__(self, answers: Callable[[str, str], Any]) -> None:
        self.answers = answers
        self.acts: list[tuple[str, str]] = []
        self.arguments: dict[str, Mapping[str, Any]] = {}
        self.retries: dict[str, Budget | None] = {}
        self.slept: list[tuple[str, float]] = []
        self.decisions: list[dict[str, Any]] = []

    async def act(self, name: str, act: str, argument: Mapping[str, Any], retry: Budget | None) -> Mapping[str, Any]:
        assert name not in self.arguments, "every name is unique in the run"
        self.acts.append((name, act))
        self.arguments[name], self.retries[name] = argument, retry
        answer = {} if act in {"ask_person", "report_end"} else self.answers(name, act)
        if isinstance(answer, BaseException):
            raise answer
        return dict(answer)

    async def once(self, name: str, argument: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.act(name, "call_tool_once", argument, None)

    async def decision(self, request_id: str) -> Mapping[str, Any]:
        return self.decisions.pop(0)

    async def sleep(self, name: str, seconds: float) -> None:
        self.slept.append((name, seconds))

    def asked(self) -> list[Mapping[str, Any]]:
        return [self.arguments[name]["question"] for name, act in self.acts if act == "ask_person"]


def decided(decision: str, **more: Any) -> dict[str, Any]:
    return {"decision_id": "d", "decision": decision, **more}


def after(*answers: Any) -> Callable[[str, str], Any]:
    left = list(answers)
    return lambda *_: left.pop(0)


def tuned(engine: Scripted) -> TunedContext:
    return TunedContext(engine, PAYLOAD, 1.0)


async def pay(context: TunedContext | DefaultContext, name: str = "pay#1", **arguments: Any) -> ToolReply:
    return await context.tool(name, ToolCall("pay", arguments), step="pay")


async def test_a_call_that_may_be_repeated_is_left_to_the_engines_retries() -> None:
    engine = Scripted(after(DONE))
    reply = await pay(tuned(engine))
    assert reply.ok
    assert engine.retries["pay#1"] == Budget(3, 0.05, 2.0)
    argument = engine.arguments["pay#1"]
    assert (argument["look"], argument["checked"], len(argument["key"])) == (False, True, 32)


async def test_only_a_call_that_can_be_looked_for_is_looked_for() -> None:
    engine = Scripted(after(DONE, DONE))
    context = tuned(engine)
    await context.tool("file#1", ToolCall("file", {}), step="file")
    await context.tool("read#1", ToolCall("read", {}), step="read")
    assert [engine.arguments[name]["look"] for name, _ in engine.acts] == [True, False]


async def test_the_same_write_is_not_done_twice_in_a_run() -> None:
    engine = Scripted(after(DONE))
    context = tuned(engine)
    await pay(context, amount=1)
    again = await pay(context, "pay#2", amount=1)
    assert (again.ok, again.by) == (False, "policy")
    assert len(engine.acts) == 1


async def test_a_call_that_was_refused_may_be_made_again() -> None:
    refused = {"reply": {"ok": False, "status": 0, "error": "the approval has expired", "by": "policy"}}
    engine = Scripted(after(refused, DONE))
    context = tuned(engine)
    assert not (await pay(context)).ok
    assert (await pay(context, "pay#2")).ok


@pytest.mark.parametrize("idempotency", ["pay", "file", "read"])
async def test_a_spent_budget_is_put_to_a_person_and_may_be_granted_again(idempotency: str) -> None:
    engine = Scripted(after(Spent("no answer"), DONE))
    engine.decisions = [decided("not_happened")]
    reply = await tuned(engine).tool("call", ToolCall(idempotency, {}), step="s")
    assert reply.ok
    (question,) = engine.asked()
    assert (question["kind"], question["tool"]) == ("budget", idempotency)
    keys = {engine.arguments[name]["key"] for name, act in engine.acts if act == "call_tool"}
    assert len(keys) == 1, "a later round repeats under the same key"


async def test_what_a_person_has_seen_to_have_happened_is_the_result() -> None:
    engine = Scripted(after({"in_doubt": "the worker died"}))
    engine.decisions = [decided("happened", result={"id": 9})]
    reply = await tuned(engine).tool("mail#1", ToolCall("mail", {}), step="mail")
    assert (reply.ok, reply.result, reply.by) == (True, {"id": 9}, "human")
    assert engine.asked()[0]["kind"] == "in_doubt"
    assert engine.asked()[0]["evidence"]["in_doubt"] is True


async def test_a_person_who_stops_the_run_ends_it() -> None:
    engine = Scripted(after({"in_doubt": "the worker died"}))
    engine.decisions = [decided("stop")]
    with pytest.raises(WorkflowFailed, match="a person stopped the run"):
        await tuned(engine).tool("mail#1", ToolCall("mail", {}), step="mail")


async def test_an_opaque_call_that_surely_did_not_happen_is_made_again_under_another_name() -> None:
    turned_away = {"again": "status 503", "retry_after_seconds": 0.7}
    engine = Scripted(after(turned_away, {"again": "status 503"}, DONE))
    assert (await tuned(engine).tool("mail#1", ToolCall("mail", {}), step="mail")).ok
    assert [seconds for _, seconds in engine.slept] == [0.7, 0.1]
    assert len({engine.arguments[name]["key"] for name, _ in engine.acts}) == 3


async def test_an_opaque_call_is_given_up_after_its_attempts() -> None:
    engine = Scripted(lambda *_: {"again": "status 503"})
    engine.decisions = [decided("stop")]
    with pytest.raises(WorkflowFailed):
        await tuned(engine).tool("mail#1", ToolCall("mail", {}), step="mail")
    assert [act for _, act in engine.acts].count("call_tool_once") == PLAN["policy"]["attempts"]
    assert engine.asked()[0]["kind"] == "budget"


@pytest.mark.parametrize("together", [True, False])
async def test_calls_are_gathered_side_by_side_where_the_engine_can_replay_that(together: bool) -> None:
    class Waiting(Scripted):
        side_by_side = together

        async def act(
            self, name: str, act: str, argument: Mapping[str, Any], retry: Budget | None
        ) -> Mapping[str, Any]:
            seen.append(f"{name} begins")
            await asyncio.sleep(0)
            seen.append(f"{name} ends")
            return await super().act(name, act, argument, retry)

    seen: list[str] = []
    context = tuned(Waiting(lambda *_: DONE))
    replies = await context.gather(*(pay(context, name, of=name) for name in ("a", "b")))
    assert [reply.ok for reply in replies] == [True, True]
    mixed, in_turn = ["a begins", "b begins", "a ends", "b ends"], ["a begins", "a ends", "b begins", "b ends"]
    assert seen == (mixed if together else in_turn)


async def test_at_most_once_by_mark_hands_the_marks_incarnation_over() -> None:
    engine = Scripted(after({"incarnation": "i1"}, DONE))
    await once_by_mark(engine, "mail#1", {"key": "k"})
    assert engine.acts == [("mail#1/mark", "mark"), ("mail#1", "call_tool_once")]
    assert engine.arguments["mail#1"]["incarnation"] == "i1"


async def test_a_malformed_reply_is_sent_back_with_its_reason_until_the_budget_is_spent() -> None:
    engine = Scripted(after({"rejected": "no JSON"}, {"rejected": "still none"}, {"message": {"content": "1"}}))
    engine.decisions = [decided("continue")]
    message = await tuned(engine).model("turn 1", ModelRequest("turn", [{"role": "user", "content": "?"}], tools=[]))
    assert message == {"content": "1"}
    assert engine.asked()[0]["evidence"]["budget"] == "malformed_attempts"
    asked = [engine.arguments[name]["messages"] for name, act in engine.acts if act == "ask_model"]
    assert [len(messages) for messages in asked] == [1, 2, 2]
    assert "still none" in asked[2][-1]["content"]


async def test_the_runs_budget_of_asks_counts_over_all_calls() -> None:
    engine = Scripted(lambda *_: {"message": {"content": "on"}})
    engine.decisions = [decided("stop")]
    context = tuned(engine)
    request = ModelRequest("turn", [], tools=[])
    for turn in range(4):
        await context.model(f"turn {turn}", request)
    with pytest.raises(WorkflowFailed):
        await context.model("turn 4", request)
    assert engine.asked()[0]["evidence"]["budget"] == "model_calls_max"


async def test_the_quick_starts_context_has_no_keys_of_its_own_unless_it_is_taught() -> None:
    for stable in (False, True):
        engine = Scripted(after(DONE))
        await pay(DefaultContext(engine, PAYLOAD, 1.0, stable_keys=stable))
        assert bool(engine.arguments["pay#1"]["key"]) is stable
        assert engine.retries["pay#1"] is None


async def test_the_quick_starts_context_fails_where_the_engine_gives_up() -> None:
    with pytest.raises(WorkflowFailed, match="no answer"):
        await pay(DefaultContext(Scripted(after(Spent("no answer"))), PAYLOAD, 1.0))


async def test_a_question_has_the_same_id_at_a_replay_and_of_no_other() -> None:
    ids = []
    for name in ("a", "a", "b"):
        engine = Scripted(after())
        engine.decisions = [decided("approve")]
        await tuned(engine).ask_human(name, Question(kind="approval", step="s"))
        ids.append(engine.arguments[f"{name}/ask"]["request_id"])
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (None, "completed", "all done"),
        (PolicyStop("not approved"), "completed", "not approved"),
        (WorkflowFailed("it broke"), "failed", "it broke"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
async def test_every_end_is_reported(raised: Exception | None, status: str, detail: str) -> None:
    engine = Scripted(after())

    async def chain(*_: Any) -> str:
        if raised is not None:
            raise raised
        return "all done"

    ended = await carry(tuned(engine), {"chain": "c", "plan": PLAN}, {"c": chain})
    assert ended == {"status": status, "detail": detail}
    assert engine.arguments["end"]["status"] == status


async def test_what_an_engine_raises_for_its_own_ends_passes_through() -> None:
    engine = Scripted(after())

    async def chain(*_: Any) -> str:
        raise Control

    with pytest.raises(Control):
        await carry(tuned(engine), {"chain": "c", "plan": PLAN}, {"c": chain})
    assert engine.acts == []
