"""What the gateway says in pieces is what it says whole; what it counts; what it takes for a request. All pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.damage import _DAMAGES, damage
from kintsugi.harness.gateway import _is_chat, _right, _streamed
from kintsugi.harness.models.tokens import cached, tokens_of
from kintsugi.harness.script import Reply, Wanted, call_reply, reply_to

if TYPE_CHECKING:
    from collections.abc import Iterator

INVOICE = load_workflows()["finance/invoice_payment"]
HEAD = {"id": "chatcmpl-1", "created": 0, "model": "scripted"}
USAGE = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
PAY = reply_to(INVOICE, Wanted("call", "pay", 0, INVOICE.truth.effects[0].args, "bank__pay"), 7, 1)
CLOSE = reply_to(INVOICE, Wanted("close", "end", 0), 7, 1)


def chunks(stream: str) -> Iterator[dict[str, Any]]:
    """The chunks of a stream of server-sent events, which ends with a word of its own."""
    *events, end = stream.split("\n\n")[:-1]
    assert end == "data: [DONE]"
    for event in events:
        assert event.startswith("data: ")
        yield json.loads(event.removeprefix("data: "))


def put_together(stream: str) -> Reply:
    """The reply that a client makes of a stream."""
    content, reasons = "", []
    made: dict[int, dict[str, Any]] = {}
    for chunk in chunks(stream):
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == HEAD["id"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            content += delta.get("content") or ""
            for piece in delta.get("tool_calls") or []:
                call = made.setdefault(piece["index"], {"function": {"name": "", "arguments": ""}})
                call |= {key: piece[key] for key in ("id", "type") if key in piece}
                call["function"]["name"] += piece["function"].get("name", "")
                call["function"]["arguments"] += piece["function"]["arguments"]
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    if made:
        message["tool_calls"] = [made[index] for index in sorted(made)]
    (reason,) = reasons
    return Reply(message, reason)


def same(streamed: Reply, whole: Reply) -> bool:
    content = whole.message.get("content") or None
    return streamed == Reply({**whole.message, "content": content}, whole.finish_reason)


@pytest.mark.parametrize("reply", [PAY, CLOSE])
@pytest.mark.parametrize("how", ["", *sorted(_DAMAGES.keys() - {"no_choices"})])
def test_a_stream_holds_the_whole_reply(how: str, reply: Reply) -> None:
    if how:
        reply = damage(how, reply, [dict(PAY.message)], "7/r0/pay/0/2")
    assert same(put_together(_streamed(HEAD, reply, USAGE)), reply)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(), arguments=st.dictionaries(st.text(max_size=5), st.text() | st.integers(), max_size=4))
def test_whatever_the_reply_holds(text: str, arguments: dict[str, Any]) -> None:
    for reply in (Reply({"role": "assistant", "content": text}, "stop"), call_reply("f", arguments, text)):
        assert same(put_together(_streamed(HEAD, reply, USAGE)), reply)


def test_a_reply_without_a_choice_is_a_stream_of_usage_alone() -> None:
    found = list(chunks(_streamed(HEAD, damage("no_choices", PAY, [], ""), USAGE)))
    assert [choice for chunk in found for choice in chunk["choices"]] == []
    assert [chunk["usage"] for chunk in found if "usage" in chunk] == [USAGE]


def test_usage_comes_last_and_once() -> None:
    found = [chunk.get("usage") for chunk in chunks(_streamed(HEAD, PAY, USAGE))]
    assert found[-1] == USAGE
    assert not any(found[:-1])


def test_the_right_reply_of_a_call_is_kept_for_comparison() -> None:
    right = {"kind": "call", "function": "bank__pay", "arguments": json.dumps(INVOICE.truth.effects[0].args)}
    wanted = Wanted("call", "pay", 0, INVOICE.truth.effects[0].args, "bank__pay")
    assert _right(wanted, PAY) == right
    assert _right(Wanted("close", "end", 0), CLOSE) == {"kind": "close"}


# --- tokens -------------------------------------------------------------------------------------------------


def test_more_text_is_more_tokens() -> None:
    assert tokens_of(None) == 1
    assert tokens_of("x" * 398) == 100
    assert tokens_of({"a": "x" * 400}) > tokens_of({"a": "x"})


def asked(*texts: str, tools: str = "") -> dict[str, Any]:
    """A request whose prompt holds long texts; each is some 5,000 tokens."""
    return {"messages": [{"role": "user", "content": text * 20_000} for text in texts], "tools": [{"name": tools}]}


def test_the_beginning_that_a_prompt_shares_with_an_earlier_one_iscached() -> None:
    prompts: list[str] = []
    assert cached(prompts, asked("a")) == 0
    grown = cached(prompts, asked("a", "b"))
    assert 4900 <= grown <= 5100
    assert grown % 128 == 0
    assert cached(prompts, asked("a", "b")) > 9800
    assert cached(prompts, asked("a", "c")) == grown, "the longest that is shared with any of them"


def test_little_in_common_is_not_cached_at_all() -> None:
    prompts: list[str] = []
    cached(prompts, asked("a", tools="x"))
    assert cached(prompts, asked("a", tools="y")) == 0
    assert cached(prompts, {"messages": []}) == 0
    for size, tokens in ((4050, 0), (4100, 1024), (4560, 1024), (4600, 1152)):
        seen = [json.dumps([None, [{"content": "a" * size}]])]
        assert cached(seen, {"messages": [{"content": "a" * size + "b"}]}) == tokens, size


def test_runs_do_not_share_a_cache() -> None:
    assert cached([], asked("a")) == 0
    assert cached([], asked("a")) == 0


# --- requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"messages": "text"},
        {"messages": ["text"]},
        {"messages": [], "response_format": "json"},
        {"messages": [], "response_format": {"json_schema": "x"}},
        {"messages": [], "tools": {"a": 1}},
        {"messages": [], "tools": [{}]},
        {"messages": [], "tools": [{"function": {}}]},
        {"messages": [{"role": "tool", "tool_call_id": ["x"]}]},
        {"messages": [{"tool_calls": [{"function": "pay"}]}]},
        {"messages": [{"tool_calls": "pay"}]},
    ],
)
def test_a_request_that_no_model_would_take_is_turned_down(body: object) -> None:
    # Such a one once broke the harness, and was charged to nobody.
    assert not _is_chat(body)


def test_a_request_for_a_chat_completion() -> None:
    assert _is_chat({"messages": []})
    tools = [{"type": "function", "function": {"name": "f"}}]
    messages = [dict(PAY.message), {"role": "tool", "tool_call_id": "x", "content": "{}"}]
    assert _is_chat({"messages": messages, "tools": tools, "response_format": None})
