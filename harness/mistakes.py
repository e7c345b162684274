"""How a model errs: seeded mistakes at a profile's rates, and damage that a fault does to one reply. All pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION
from kintsugi.harness.script import Reply, Wanted, call_reply

__all__ = ["PROFILES", "Profile", "damage", "vary"]


@dataclass(frozen=True)
class Profile:
    """The probabilities, per ask, of a model's own mistakes."""

    wrong_tool: float = 0.0
    wrong_argument: float = 0.0
    malformed: float = 0.0
    premature_end: float = 0.0
    corrects_itself: float = 1.0
    """The probability that an error message in the request keeps the model from erring at that ask."""


PROFILES: Mapping[str, Profile] = {
    "none": Profile(),
    "typical": Profile(
        wrong_tool=2 / 60, wrong_argument=3 / 60, malformed=0.01, premature_end=0.005, corrects_itself=0.9
    ),
    "hostile": Profile(wrong_tool=0.1, wrong_argument=0.15, malformed=0.1, premature_end=0.03, corrects_itself=0.5),
}
"""`typical` takes wrong choices and wrong arguments from a vendor's published 58/60 and 57/60; the rest is assumed."""


def vary(profile: Profile, wanted: Wanted, reply: Reply, request: Mapping[str, Any], source: str) -> Reply:
    """The reply with at most one of the model's own mistakes, drawn from `source` (seed, step, n).

    The request's schemas say what else a value might plausibly have been.
    """
    tools = request.get("tools") or []
    draw = random.Random(f"variance/{source}")
    if wanted.kind == "close" or (wanted.after_error and draw.random() < profile.corrects_itself):
        return reply
    chance = draw.random()
    mistakes: Sequence[tuple[float, Callable[[], Reply]]] = (
        (profile.malformed, lambda: damage("invalid_json", reply, [], source)),
        (profile.premature_end, lambda: _premature(wanted, reply)),
        (profile.wrong_tool, lambda: _wrong_tool(wanted, reply, tools, draw, source)),
        (profile.wrong_argument, lambda: _wrong_argument(wanted, reply, _schema_of(wanted, request), draw, source)),
    )
    for rate, mistake in mistakes:
        if chance < rate:
            return mistake()
        chance -= rate
    return reply


def _premature(wanted: Wanted, reply: Reply) -> Reply:
    if wanted.kind != "call":
        return reply
    return Reply({"role": "assistant", "content": "That should be everything."}, "stop")


def _wrong_tool(
    wanted: Wanted, reply: Reply, tools: Sequence[Mapping[str, Any]], draw: random.Random, source: str
) -> Reply:
    others = sorted(
        t["function"]["name"] for t in tools if t["function"]["name"] not in {wanted.function, APPROVAL_FUNCTION}
    )
    if wanted.kind != "call" or wanted.function == APPROVAL_FUNCTION or not others:
        return reply
    return call_reply(draw.choice(others), _arguments(reply), source)


def _schema_of(wanted: Wanted, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schemas of the values that a reply holds, by name, as the request gives them."""
    if wanted.kind == "answer":
        form = (request.get("response_format") or {}).get("json_schema") or {}
        properties: Mapping[str, Any] = (form.get("schema") or {}).get("properties") or {}
        return properties
    name = str(wanted.values.get("function")) if wanted.function == APPROVAL_FUNCTION else wanted.function
    for tool in request.get("tools") or []:
        if tool["function"].get("name") == name:
            return (tool["function"].get("parameters") or {}).get("properties") or {}
    return {}


def _wrong_argument(
    wanted: Wanted, reply: Reply, schemas: Mapping[str, Any], draw: random.Random, source: str
) -> Reply:
    if wanted.kind == "answer":
        try:
            value = json.loads(reply.message["content"])
        except ValueError:
            return reply
        slipped = _slip(value, schemas, draw)
        return Reply({**reply.message, "content": json.dumps(slipped, ensure_ascii=False)}, reply.finish_reason)
    right = arguments = _arguments(reply)
    if wanted.function == APPROVAL_FUNCTION:
        arguments = {**right, "arguments": _slip(right["arguments"], schemas, draw)}
    else:
        arguments = _slip(right, schemas, draw)
    # Where there is nothing to get wrong the reply stays the right one, down to the call's id.
    return reply if arguments == right else call_reply(wanted.function, arguments, source)


def _slip(values: dict[str, Any], schemas: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """One plausible slip: another choice, a neighbouring id, a factor of ten, one item of a list too many or too few.

    Prose is left alone. Only what a schema allows is chosen among, but nothing makes the slip valid otherwise.
    """
    slips = {name: [s for s in _slips(value, schemas.get(name) or {}) if s != value] for name, value in values.items()}
    apt = sorted(name for name, found in slips.items() if found)
    if not apt:
        return values
    name = draw.choice(apt)
    return {**values, name: draw.choice(slips[name])}


def _slips(value: Any, schema: Mapping[str, Any]) -> list[Any]:
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value * 10]
    if isinstance(value, str) and " " not in value and value[-1:].isdigit():
        return [value[:-1] + str((int(value[-1]) + 1) % 10)]
    if isinstance(value, list):
        known = (schema.get("items") or {}).get("enum") if isinstance(schema.get("items"), Mapping) else None
        shorter = [value[:-1]] if len(value) > int(schema.get("minItems", 0)) else []
        longer = [[*value, other] for other in known or [] if other not in value][:1]
        return shorter + longer
    return []


def _arguments(reply: Reply) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(reply.message["tool_calls"][0]["function"]["arguments"])
    return arguments


# --- damage that a fault does -------------------------------------------------------------------------------


def damage(how: str, reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    """The reply damaged in a named way; the same reply where there is nothing to damage. KeyError for unknown names."""
    return _DAMAGES[how](reply, messages, source)


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
    return call_reply("submit_everything", _arguments(reply), source) if _is_call(reply) else reply


def _same_call_twice(reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    del messages
    if not _is_call(reply):
        return reply
    call = reply.message["tool_calls"][0]
    again = call_reply(call["function"]["name"], _arguments(reply), f"{source}/again").message["tool_calls"][0]
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
