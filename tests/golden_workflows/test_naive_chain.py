"""The naive chain: what the model asks for is done, and what can't be done is told to the model, which may mend it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from kintsugi.golden_workflows.chains import naive
from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION
from kintsugi.runtime.gathering import one_after_another
from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall, ToolReply

T = TypeVar("T")

PLAN = {
    "task": "Pay.",
    "steps": [{"id": "pay", "tool": "bank.pay"}, {"id": "pause", "sleep_seconds": 60}],
    "tools": {"bank.pay": {"description": "Pay.", "parameters": {"type": "object", "properties": {}}}},
}


class Said:
    """A model that gives some messages in turn and then its last word; it keeps what was asked, done and waited for."""

    run_id = "r0"

    def __init__(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.messages = [*messages, {"role": "assistant", "content": "Done."}]
        self.requests: list[ModelRequest] = []
        self.calls: list[ToolCall] = []
        self.waits: list[float] = []

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        self.requests.append(request)
        return self.messages[len(self.requests) - 1]

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        self.calls.append(call)
        return ToolReply(ok=True, result={"paid": True})

    async def ask_human(self, name: str, question: Question) -> Decision:
        return Decision(name, "approve", token="t")

    async def sleep(self, name: str, seconds: float) -> None:
        self.waits.append(seconds)

    async def now(self, name: str) -> float:
        return 0.0

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        return await one_after_another(calls)

    def run(self) -> list[dict[str, Any]]:
        """What each of the model's calls was told, once the run is over."""
        assert asyncio.run(naive.run(self, PLAN)) == "Done."
        told = [message for message in self.requests[-1].messages if message["role"] == "tool"]
        return [json.loads(message["content"]) for message in told]


def calls(*functions: Any) -> dict[str, Any]:
    """A message that calls functions."""
    given = [{"id": f"c{at}", "type": "function", "function": function} for at, function in enumerate(functions)]
    return {"role": "assistant", "content": None, "tool_calls": given}


def wait(arguments: str) -> dict[str, Any]:
    return calls({"name": WAIT_FUNCTION, "arguments": arguments})


@pytest.mark.parametrize(("arguments", "seconds"), [('{"seconds": 60}', 60.0), ('{"seconds": 0.5}', 0.5)])
def test_a_wait_is_waited_for(arguments: str, seconds: float) -> None:
    said = Said([wait(arguments)])
    assert said.run() == [{"result": {"waited_seconds": seconds}}]
    assert said.waits == [seconds]


@pytest.mark.parametrize(
    "seconds",
    ['"one day"', '"60"', "null", "true", "[60]", "{}", "-1", "-0.5", "NaN", "Infinity", "1e400", "1" + "0" * 400],
)
def test_a_wait_for_what_is_no_number_of_seconds_once_ended_the_run(seconds: str) -> None:
    said = Said([wait(f'{{"seconds": {seconds}}}'), wait('{"seconds": 60}')])
    refused, waited = said.run()
    assert list(refused) == ["error"]
    assert waited == {"result": {"waited_seconds": 60}}
    assert said.waits == [60.0]


def test_a_wait_that_says_nothing_was_once_over_at_once() -> None:
    said = Said([wait("{}")])
    assert said.run() == [{"error": "give 'seconds', a number that is not below 0"}]
    assert said.waits == []


@pytest.mark.parametrize(
    "call",
    [
        None,
        "bank__pay",
        {},
        {"id": "c0"},
        {"id": "c0", "type": "function", "function": None},
        {"id": "c0", "type": "function", "function": "bank__pay"},
        {"id": "c0", "type": "function", "function": {}},
        {"id": "c0", "type": "function", "function": {"name": "bank__pay"}},
        {"id": "c0", "type": "function", "function": {"name": "bank__pay", "arguments": None}},
        {"id": "c0", "type": "function", "function": {"name": "bank__pay", "arguments": {"amount": 1}}},
        {"id": "c0", "type": "function", "function": {"arguments": "{}"}},
        {"id": "c0", "type": "function", "function": {"name": None, "arguments": "{}"}},
        {"id": "c0", "type": "function", "function": {"name": ["bank__pay"], "arguments": "{}"}},
        {"id": 7, "type": "function", "function": {"name": "no_such", "arguments": "{}"}},
    ],
)
def test_a_call_that_is_none_once_ended_the_run(call: Any) -> None:
    said = Said([{"role": "assistant", "content": None, "tool_calls": [call]}])
    (told,) = said.run()
    assert list(told) == ["error"]
    assert said.calls == []
    # What goes back is a message as the protocol has it, or no provider would take the request.
    given, answer = said.requests[-1].messages[-2:]
    (whole,) = given["tool_calls"]
    assert all(isinstance(whole["function"][key], str) for key in ("name", "arguments"))
    assert isinstance(whole["id"], str)
    assert answer["tool_call_id"] == whole["id"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "[]",
        '"text"',
        '{"amount": NaN}',
        '{"amount": 1e400}',
        '{"text": "\\ud83d"}',
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=["empty", "torn", "list", "text", "nan", "infinite", "half_a_character", "deep"],
)
@pytest.mark.parametrize("name", ["bank__pay", APPROVAL_FUNCTION, WAIT_FUNCTION])
def test_arguments_that_can_t_be_sent_on_are_told(name: str, arguments: str) -> None:
    said = Said([calls({"name": name, "arguments": arguments})])
    (told,) = said.run()
    assert list(told) == ["error"]
    assert (said.calls, said.waits) == ([], [])


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"function": "bank__pay"},
        {"function": "no_such", "arguments": {}},
        {"function": ["bank__pay"], "arguments": {}},
        {"function": {"name": "bank__pay"}, "arguments": {}},
        {"function": None, "arguments": {}},
        {"function": "bank__pay", "arguments": "{}"},
    ],
)
def test_an_approval_of_nothing_is_told(request_: dict[str, Any]) -> None:
    said = Said([calls({"name": APPROVAL_FUNCTION, "arguments": json.dumps(request_)})])
    assert said.run() == [{"error": "give the function's name and its arguments, an object"}]


def test_calls_that_are_whole_are_made_with_their_approval_and_go_back_as_they_came() -> None:
    asked = {"function": "bank__pay", "arguments": {"amount": 1}}
    message = calls(
        {"name": APPROVAL_FUNCTION, "arguments": json.dumps(asked)}, {"name": "bank__pay", "arguments": '{"amount": 1}'}
    )
    said = Said([message])
    assert said.run()[1] == {"result": {"paid": True}}
    assert [(call.tool, call.arguments, call.approval) for call in said.calls] == [("bank.pay", {"amount": 1}, "t")]
    assert said.requests[-1].messages[2] == {"role": "assistant", "tool_calls": message["tool_calls"]}
