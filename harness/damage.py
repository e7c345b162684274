"""Damage that a fault does to one reply of the model, each kind by its name. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kintsugi.harness.script import Reply, call_reply

__all__ = ["arguments_of", "damage"]


def damage(how: str, reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    """The reply damaged in a named way; the same reply where there is nothing to damage. KeyError for unknown names."""
    return _DAMAGES[how](reply, messages, source)


def arguments_of(reply: Reply) -> dict[str, Any]:
    """The arguments of the first call that a reply makes, whole as the script gives them."""
    arguments: dict[str, Any] = json.loads(reply.message["tool_calls"][0]["function"]["arguments"])
    return arguments


def _is_call(reply: Reply) -> bool:
    return bool(reply.message.get("tool_calls"))


def _on_text(change: Callable[[str], str], finish_reason: str = "") -> Callable[..., Reply]:
    """Damage to the text that matters: a call's arguments, or the content."""

    def damaged(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
        del messages, source
        reason = finish_reason or reply.finish_reason
        if not _is_call(reply):
            return Reply({**reply.message, "content": change(reply.message["content"])}, reason)
        call = reply.message["tool_calls"][0]
        function = {**call["function"], "arguments": change(call["function"]["arguments"])}
        return Reply({**reply.message, "tool_calls": [{**call, "function": function}]}, reason)

    return damaged


def _on_values(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Reply]:
    def changed(text: str) -> str:
        try:
            value = json.loads(text)
        except ValueError:
            return text
        inner = value.get("arguments") if isinstance(value, dict) else None
        if isinstance(inner, dict):
            return json.dumps({**value, "arguments": change(inner)}, ensure_ascii=False)
        return json.dumps(change(value), ensure_ascii=False) if isinstance(value, dict) else text

    return _on_text(changed)


def _mistyped(values: dict[str, Any]) -> dict[str, Any]:
    for name in sorted(values):
        if isinstance(values[name], (int, float)) and not isinstance(values[name], bool):
            return {**values, name: str(values[name])}
    first = min(values, default="")
    return {**values, first: [values[first]]} if first else values


def _without_first(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in sorted(values)[1:]}


def _prose(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del reply, messages, source
    return Reply({"role": "assistant", "content": "Sure! I would now go ahead with the next step as planned."}, "stop")


def _empty(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del reply, messages, source
    return Reply({"role": "assistant", "content": ""}, "stop")


def _no_choices(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    """A reply without a message, which is sent as a list of no choices."""
    del reply, messages, source
    return Reply({}, "")


def _unknown_tool(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del messages
    return call_reply("submit_everything", arguments_of(reply), source) if _is_call(reply) else reply


def _same_call_twice(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del messages
    if not _is_call(reply):
        return reply
    call = reply.message["tool_calls"][0]
    again = call_reply(call["function"]["name"], arguments_of(reply), f"{source}/again").message["tool_calls"][0]
    return Reply({**reply.message, "tool_calls": [call, again]}, reply.finish_reason)


def _repeat_last_call(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    for message in reversed(messages):
        for call in message.get("tool_calls") or []:
            return Reply(
                {"role": "assistant", "content": None, "tool_calls": [{**call, "id": f"{call['id']}_{source[-6:]}"}]},
                "tool_calls",
            )
    return reply


def _ramble(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del reply, messages, source
    return Reply({"role": "assistant", "content": "Let me think about this once more. " * 40}, "length")


_DAMAGES: Mapping[str, Callable[..., Reply]] = {
    "truncated_json": _on_text(lambda text: text[: max(len(text) // 2, 1)]),
    "invalid_json": _on_text(lambda text: text.replace(":", "=", 1) if ":" in text else text + "}"),
    "prose": _prose,
    "wrong_types": _on_values(_mistyped),
    "missing_parameter": _on_values(_without_first),
    "invented_parameter": _on_values(lambda values: {**values, "priority_override": "urgent"}),
    "unknown_tool": _unknown_tool,
    "same_call_twice": _same_call_twice,
    "empty_reply": _empty,
    "no_choices": _no_choices,
    "finish_length": _on_text(lambda text: text[: max(len(text) * 2 // 3, 1)], "length"),
    "repeat_last_call": _repeat_last_call,
    "ramble": _ramble,
}
