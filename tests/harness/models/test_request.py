"""What a provider is asked, and what is made of its completion. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.models.request import (
    ANSWER_TOKENS_MAX,
    answer_tokens_max,
    as_good,
    key_of,
    provider_request,
    read_completion,
)
from kintsugi.harness.script import Reply, Wanted, call_reply, reply_to

INVOICE = load_workflows()["finance/invoice_payment"]
ASKED = {"model": "scripted", "messages": [{"role": "user", "content": "Do it."}]}
PAY = Wanted("call", "pay", 0, INVOICE.truth.effects[0].args, "bank__pay")


def answered(message: Any, **more: Any) -> Mapping[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}


# --- what is asked ------------------------------------------------------------------------------------------


def test_the_model_is_the_one_that_was_named_and_an_answer_has_a_longest_length() -> None:
    assert provider_request("openai/m", ASKED) == {
        "model": "openai/m",
        "messages": ASKED["messages"],
        "max_tokens": ANSWER_TOKENS_MAX,
    }
    own = provider_request("openai/m", {**ASKED, "max_completion_tokens": 7})
    assert "max_tokens" not in own
    assert answer_tokens_max(own) == 7
    assert answer_tokens_max({"max_tokens": "many"}) == ANSWER_TOKENS_MAX


@pytest.mark.parametrize("name", ["api_base", "api_key", "base_url", "extra_headers", "mock_response", "stream", "n"])
def test_a_sut_names_no_server_and_no_key(name: str) -> None:
    assert name not in provider_request("openai/m", {**ASKED, name: "http://127.0.0.1:1"})


def test_what_a_sut_says_of_the_answer_is_handed_on() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    sent = {"tools": tools, "tool_choice": "auto", "temperature": 0.0, "response_format": {"type": "json_object"}}
    asked = provider_request("openai/m", {**ASKED, **sent})
    assert {name: asked[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"const": 1}}}, True),
        ({"type": "object", "required": ["a"], "properties": {"a": {"enum": [1]}}}, False),
        ({"type": "object", "additionalProperties": False, "properties": {"a": {"enum": [1]}}}, False),
        (
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["a"],
                "properties": {"a": {"type": "string", "minLength": 3}},
            },
            False,
        ),
        ({"type": "array", "items": {"type": "string", "minLength": 3}}, False),
        ("none", False),
    ],
)
def test_a_schema_is_strict_only_where_a_provider_would_take_it(schema: Any, strict: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "match", "schema": schema, "strict": True}}
    asked = provider_request("openai/m", {**ASKED, "response_format": form})["response_format"]["json_schema"]
    assert asked == {"name": "match", "schema": schema, "strict": strict}


def test_equal_requests_have_one_key_and_different_ones_another() -> None:
    one = provider_request("openai/m", ASKED)
    assert key_of(one) == key_of(dict(reversed(one.items())))
    assert key_of(one) != key_of(provider_request("openai/other", ASKED))
    assert key_of(one) != key_of(provider_request("openai/m", {**ASKED, "temperature": 1.0}))
    assert key_of(one) == key_of(provider_request("openai/m", {**ASKED, "stream": True, "user": "run 17"}))


# --- what came back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "assistant", "content": "Done."}, {"role": "assistant", "content": "Done."}),
        ({"content": None, "reasoning_content": "hm"}, {"role": "assistant", "content": ""}),
        (
            {"tool_calls": [{"id": None, "function": {"name": None, "arguments": {"a": 1}}}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "", "arguments": '{"a": 1}'}}],
            },
        ),
        (
            {"content": "So:", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{"}}]},
            {
                "role": "assistant",
                "content": "So:",
                "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{"}}],
            },
        ),
    ],
)
def test_a_reply_has_the_form_of_the_protocol_whatever_the_model_made_of_it(message: Any, read: Any) -> None:
    reply, tokens = read_completion(answered(message), ASKED)
    assert reply == Reply(read, "stop")
    assert tokens.estimated


def test_a_completion_without_a_choice_is_a_reply_without_a_message() -> None:
    completions: list[dict[str, Any]] = [{}, {"choices": []}, {"choices": None}]
    for completion in completions:
        assert read_completion(completion, ASKED)[0] == Reply({}, "")


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 9}, (90, 0, 9, False)),
        (
            {"prompt_tokens": 90, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}},
            (90, 64, 9, False),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 900}},
            (90, 90, 9, False),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": "90", "completion_tokens": None}, None),
        (None, None),
    ],
)
def test_tokens_are_the_provider_s_or_else_a_named_estimate(usage: Any, counted: tuple[int, ...] | None) -> None:
    _, tokens = read_completion(answered({"content": "x" * 400}, usage=usage), ASKED)
    if counted is None:
        assert tokens.estimated
        assert tokens.completion > 100
    else:
        assert (tokens.prompt, tokens.cached, tokens.completion, tokens.estimated) == counted


# --- how good it is -----------------------------------------------------------------------------------------


def good(wanted: Wanted, reply: Reply, **request: Any) -> bool:
    return as_good(INVOICE, wanted, reply_to(INVOICE, wanted, 7, 1), reply, {**ASKED, **request})


def test_a_call_is_as_good_where_all_that_is_literal_is_right() -> None:
    right = INVOICE.truth.effects[0].args
    assert good(PAY, call_reply("bank__pay", right, "x"))
    assert not good(PAY, call_reply("bank__pay", {**right, "amount_cents": 1}, "x"))
    assert not good(PAY, call_reply("mail__send", right, "x"))
    assert not good(PAY, Reply({"role": "assistant", "content": "Paid."}, "stop"))
    twice = call_reply("bank__pay", right, "x").message["tool_calls"] * 2
    assert not good(PAY, Reply({"role": "assistant", "content": None, "tool_calls": twice}, "tool_calls"))
    note = Wanted("call", "note", 0, {**INVOICE.truth.effects[1].args, "text": "All amounts agree."}, "erp__post_note")
    assert good(note, call_reply("erp__post_note", {**note.values, "text": "In other words."}, "x"))
    assert not good(note, call_reply("erp__post_note", {**note.values, "status": "held"}, "x"))


def test_an_approval_is_as_good_where_what_is_to_be_approved_is() -> None:
    asked = {"function": "bank__pay", "arguments": dict(INVOICE.truth.effects[0].args)}
    wanted = Wanted("call", "pay", 0, asked, "request_approval")
    assert good(wanted, call_reply("request_approval", asked, "x"))
    assert not good(wanted, call_reply("request_approval", {**asked, "arguments": {"amount_cents": 1}}, "x"))
    assert not good(wanted, call_reply("request_approval", {**asked, "arguments": "all"}, "x"))


def test_a_judgement_is_as_good_where_its_schema_is_satisfied() -> None:
    wanted = Wanted("answer", "match", 0, {}, missing="everything")
    schema = {"type": "object", "required": ["decision"], "properties": {"decision": {"enum": ["pay", "hold"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "match", "schema": schema}}
    for content, expected in (('{"decision": "hold"}', True), ('{"decision": "no"}', False), ("hold", False)):
        said = Reply({"role": "assistant", "content": content}, "stop")
        assert good(wanted, said, response_format=form) is expected
    nonsense = {"type": "json_schema", "json_schema": {"name": "match", "schema": {"type": "nonsense"}}}
    assert not good(wanted, Reply({"content": json.dumps({})}, "stop"), response_format=nonsense)


def test_the_last_word_is_as_good_where_it_is_no_call() -> None:
    end = Wanted("close", "end", 0)
    assert good(end, Reply({"role": "assistant", "content": "Finished."}, "stop"))
    assert not good(end, call_reply("bank__pay", {}, "x"))
    assert not good(end, Reply({}, ""))
