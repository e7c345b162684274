"""The acts, with services that answer from a script."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import pytest

from kintsugi.runtime.clock import moment
from kintsugi.runtime.engines.acts import ACTS, Acts, TryAgain
from kintsugi.runtime.protocol import ModelRequest, ToolCall, ToolReply
from kintsugi.runtime.rules import Outcome
from kintsugi.runtime.services import Unanswered

ENVIRONMENT = {f"KINTSUGI_{name}": "" for name in ("TOOLS_URL", "MODEL_URL", "HUMAN_URL", "TOKEN")}
SPEC = {"effect": "write", "idempotency": "key", "parameters": {"type": "object"}, "result": {"type": "object"}}
DONE = Outcome("done", ToolReply(ok=True, result={"id": 1}))
LATER = ToolReply(ok=False, status=503, error="later")
TURNED_AWAY = Outcome("refused", LATER, retryable=True, retry_after_seconds=0.5)
UNKNOWN = Outcome("unknown", ToolReply(ok=False, error="no answer"), retryable=True)


class Scripted:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str | None, str | None]] = []

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Any:
        self.calls.append(("send", key, reference))
        return self._next()

    async def find_effect(self, run_id: str, name: str, reference: str) -> Any:
        self.calls.append(("look", None, reference))
        return self._next()

    async def model(self, *_: Any) -> Any:
        return self._next()

    async def ask(self, *_: Any) -> Any:
        return self._next()

    async def report_end(self, *_: Any) -> Any:
        return self._next()


def acts(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[Acts, Scripted]:
    made, services = Acts(ENVIRONMENT), Scripted(*answers)
    monkeypatch.setattr(made, "_to", lambda _: services)
    return made, services


def argument(idempotency: str = "key", *, look: bool = False, checked: bool = True, **call: Any) -> dict[str, Any]:
    spec = {**SPEC, "idempotency": idempotency}
    made = asdict(ToolCall("pay", {}, **call))
    asked = {"call": made, "spec": spec, "key": "k", "look": look, "checked": checked}
    return {"run_id": "r0", "born": asdict(moment()), **asked}


def test_every_act_is_a_method() -> None:
    assert all(callable(getattr(Acts, act)) for act in ACTS)


async def test_a_key_and_a_reference_go_only_to_tools_that_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, expected in (
        ("key", ("send", "k", None)),
        ("lookup", ("send", None, "k")),
        ("none", ("send", None, None)),
    ):
        made, services = acts(monkeypatch, DONE)
        got = await made.perform("call_tool", argument(kind))
        assert got["reply"]["result"] == {"id": 1}
        assert services.calls == [expected]


@pytest.mark.parametrize(("repeat", "looks"), [(None, 1), (True, 1), (False, 0)])
async def test_it_looks_before_it_sends_unless_this_is_known_to_be_the_first_attempt(
    monkeypatch: pytest.MonkeyPatch, repeat: bool | None, looks: int
) -> None:
    made, services = acts(monkeypatch, *[None] * looks, DONE)
    await made.perform("call_tool", argument("lookup", look=True), repeat=repeat)
    assert [what for what, *_ in services.calls] == ["look"] * looks + ["send"]


async def test_what_is_found_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, services = acts(monkeypatch, ToolReply(ok=True, result={"id": 7}))
    got = await made.perform("call_tool", argument("lookup", look=True))
    assert got["reply"]["result"] == {"id": 7}
    assert len(services.calls) == 1


@pytest.mark.parametrize("outcome", [TURNED_AWAY, UNKNOWN, Outcome("done", ToolReply(ok=True, result="no object"))])
async def test_what_may_be_tried_again_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    made, _ = acts(monkeypatch, outcome)
    with pytest.raises(TryAgain) as raised:
        await made.perform("call_tool", argument())
    assert raised.value.retry_after_seconds == outcome.retry_after_seconds


async def test_an_expired_approval_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = argument(approval="token", approval_expires_at=time.time() - 1)
    asked["spec"]["approval"] = "always"
    made, services = acts(monkeypatch)
    for act in ("call_tool", "call_tool_once"):
        got = await made.perform(act, asked)
        assert (got["reply"]["ok"], got["reply"]["by"]) == (False, "policy")
    assert services.calls == []


async def test_a_clock_that_is_set_ahead_makes_no_approval_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = argument(approval="token", approval_expires_at=time.time() + 60)
    asked["spec"]["approval"] = "always"
    right = time.time
    monkeypatch.setattr("kintsugi.runtime.clock.time.time", lambda: right() + 3600)
    made, services = acts(monkeypatch, DONE, DONE)
    for act in ("call_tool", "call_tool_once"):
        assert (await made.perform(act, asked))["reply"]["ok"]
    assert len(services.calls) == 2


async def test_a_key_is_made_for_each_attempt_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    made, services = acts(monkeypatch, DONE, DONE)
    for _ in range(2):
        await made.perform("call_tool", {**argument(checked=False), "key": ""})
    keys = [key for _, key, _ in services.calls]
    assert None not in keys
    assert len(set(keys)) == 2


async def test_only_the_process_that_marked_it_sends_an_opaque_call_and_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, services = acts(monkeypatch, DONE)
    mark = await made.perform("mark", {})
    asked = {**argument("none"), **mark}
    assert "reply" in await made.perform("call_tool_once", asked)
    assert "in_doubt" in await made.perform("call_tool_once", asked)
    other, none_sent = acts(monkeypatch)
    assert "in_doubt" in await other.perform("call_tool_once", asked)
    assert len(services.calls) == 1
    assert none_sent.calls == []


@pytest.mark.parametrize(("outcome", "key"), [(UNKNOWN, "in_doubt"), (TURNED_AWAY, "again"), (DONE, "reply")])
async def test_an_opaque_call_never_asks_the_engine_to_try_again(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, key: str
) -> None:
    made, _ = acts(monkeypatch, outcome)
    assert key in await made.perform("call_tool_once", argument("none"))


async def test_a_reply_of_the_model_is_recorded_only_if_it_is_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    request = asdict(ModelRequest("judge", [], schema={"type": "object"}))
    asked = {"run_id": "r0", "request": request, "messages": [], "model": "m"}
    good = {"message": {"content": "{}"}, "finish_reason": "stop"}
    bad = {"message": {"content": "{"}, "finish_reason": "stop"}
    made, _ = acts(monkeypatch, good, bad, Unanswered("busy", 429, 2.0))
    assert (await made.perform("ask_model", asked))["message"]["parsed"] == {}
    assert "not valid JSON" in (await made.perform("ask_model", asked))["rejected"]
    with pytest.raises(TryAgain) as raised:
        await made.perform("ask_model", asked)
    assert raised.value.retry_after_seconds == 2.0


@pytest.mark.parametrize("act", ["ask_person", "report_end"])
async def test_what_is_not_heard_is_said_again(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    question = {"kind": "approval", "step": "s"}
    asked = {"run_id": "r0", "request_id": "q", "question": question, "status": "completed", "detail": ""}
    made, _ = acts(monkeypatch, Unanswered("no answer"), None)
    with pytest.raises(TryAgain):
        await made.perform(act, asked)
    assert await made.perform(act, asked) == {}
