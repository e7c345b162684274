"""The model over HTTP: chat completions, whole and streamed, with their usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from kintsugi.golden_workflows.chains.naive import _functions

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

INPUTS = {
    "invoice": {"id": "INV-1041", "amount_cents": 128400, "currency": "EUR"},
    "order": {"id": "PO-88", "amount_cents": 128400, "received_cents": 128400},
}


def judgement() -> dict[str, Any]:
    """What an optimized chain asks."""
    content = json.dumps({"step": "match", "inputs": INPUTS})
    form = {"type": "json_schema", "json_schema": {"name": "match", "schema": {"type": "object"}}}
    return {"messages": [{"role": "user", "content": content}], "response_format": form}


def turn(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a naive chain asks first."""
    return {"messages": [{"role": "user", "content": plan["task"]}], "tools": _functions(plan)}


def put_together(text: str) -> tuple[dict[str, Any], str, dict[str, int]]:
    """A streamed completion, read as a client of the protocol does: its message, finish reason and usage."""
    *events, end, rest = text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    message: dict[str, Any] = {"content": None}
    calls: dict[int, dict[str, Any]] = {}
    finish = []
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        delta = choice["delta"]
        message["role"] = delta.get("role", message.get("role"))
        if "content" in delta:
            message["content"] = (message["content"] or "") + delta["content"]
        for part in delta.get("tool_calls", []):
            if "id" in part:
                calls[part["index"]] = {"id": part["id"], "type": part["type"], "function": {**part["function"]}}
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
        finish += [choice["finish_reason"]] if choice["finish_reason"] else []
    if calls:
        message["tool_calls"] = list(calls.values())
    (usage,) = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    (reason,) = finish
    return message, reason, usage


@pytest.mark.parametrize("asks", ["judgement", "turn"])
async def test_a_streamed_reply_is_the_script_s(open_doors: NewDoors, asks: str) -> None:
    async with open_doors() as world:
        request = judgement() if asks == "judgement" else turn(world.session.workflow.plan)
        streamed = await world.post("model", "/chat/completions", {**request, "stream": True})
        assert streamed.headers["Content-Type"].startswith("text/event-stream")
        message, finish_reason, usage = put_together(streamed.body)
        (reply,) = world.saw("gateway", "reply")
        assert {k: v for k, v in message.items() if v is not None} == {
            k: v for k, v in reply["message"].items() if v is not None
        }
        assert finish_reason == reply["finish_reason"] == ("stop" if asks == "judgement" else "tool_calls")
        assert usage == {
            "prompt_tokens": reply["prompt_tokens"],
            "completion_tokens": reply["completion_tokens"],
            "total_tokens": reply["prompt_tokens"] + reply["completion_tokens"],
        }


async def test_a_whole_reply_is_a_chat_completion(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        answer = await world.post("model", "/chat/completions", {**judgement(), "model": "m"})
        assert (answer.body["object"], answer.body["model"]) == ("chat.completion", "m")
        (choice,) = answer.body["choices"]
        assert json.loads(choice["message"]["content"])["decision"] == "pay"
        assert answer.body["usage"]["total_tokens"] > 0


async def test_free_text_differs_at_each_ask(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        said = [(await world.post("model", "/chat/completions", judgement())).body for _ in range(2)]
        texts = [json.loads(body["choices"][0]["message"]["content"]) for body in said]
        assert texts[0]["decision"] == texts[1]["decision"]
        assert texts[0]["note"] != texts[1]["note"]
        assert [event["n"] for event in world.saw("gateway", "ask")] == [1, 2]


async def test_a_damaged_reply_is_damaged_once_and_said_to_be(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "malformed_output.invalid_json@model:match[0]#1@during") as world:
        first, second = [(await world.post("model", "/chat/completions", judgement())).body for _ in range(2)]
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(first["choices"][0]["message"]["content"])
        json.loads(second["choices"][0]["message"]["content"])
        assert [event["damaged"] for event in world.saw("gateway", "reply")] == [True, False]
        assert len(world.saw("nemesis", "witnessed")) == 1


async def test_only_chat_completions_are_served(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        assert (await world.post("model", "/completions", {"messages": []})).status == 400
        assert world.saw("gateway") == []
