"""How a model errs: seeded mistakes at a profile's rates, whose sources stand in docs/model-profiles.md. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION
from kintsugi.harness.damage import arguments_of, damage
from kintsugi.harness.script import Reply, Wanted, call_reply
from kintsugi.harness.slips import fields_in, is_prose, neighbours, slips
from kintsugi.runtime.rules import schema_problem

__all__ = ["MISTAKES", "PROFILES", "Profile", "vary"]


@dataclass(frozen=True)
class Profile:
    """The probabilities, per ask, of a model's own mistakes."""

    malformed: float = 0.0
    """JSON that can't be read."""
    premature_end: float = 0.0
    """The last word, although calls are left to make."""
    wrong_tool: float = 0.0
    """Another tool with the right one's arguments: one of the same service, where there is one."""
    wrong_argument: float = 0.0
    """One value that is wrong and might have been right."""
    repeated_call: float = 0.0
    """A call that has succeeded already, made once more."""
    ignored_instruction: float = 0.0
    """Something left out: the request for an approval, an item of a list, or a value."""
    corrects_itself: float = 1.0
    """The probability that an error message in the request keeps the model from erring at that ask."""


PROFILES: Mapping[str, Profile] = {
    "none": Profile(),
    "typical": Profile(
        malformed=0.01,
        premature_end=0.005,
        wrong_tool=2 / 60,
        wrong_argument=3 / 60,
        repeated_call=0.0125,
        ignored_instruction=0.0095,
        corrects_itself=0.9,
    ),
    "hostile": Profile(
        malformed=0.1,
        premature_end=0.03,
        wrong_tool=0.1,
        wrong_argument=0.15,
        repeated_call=0.05,
        ignored_instruction=0.05,
        corrects_itself=0.5,
    ),
}


@dataclass(frozen=True)
class _Ask:
    """One ask, with its right reply and the draw that decides how it goes wrong."""

    wanted: Wanted
    right: Reply
    request: Mapping[str, Any]
    draw: random.Random
    source: str

    @property
    def approval(self) -> bool:
        """Whether a person's approval is what is to be asked for."""
        return self.wanted.function == APPROVAL_FUNCTION


def vary(profile: Profile, wanted: Wanted, reply: Reply, request: Mapping[str, Any], source: str) -> Reply:
    """The reply with at most one of the model's own mistakes, drawn from `source` (seed, step, n).

    Where a mistake can't be made, the reply stays the right one, down to the call's id: a judgement has no tool to
    mistake, and nothing that was said in prose alone is a mistake.
    """
    draw = random.Random(f"variance/{source}")
    if wanted.kind == "close" or (wanted.after_error and draw.random() < profile.corrects_itself):
        return reply
    ask = _Ask(wanted, reply, request, draw, source)
    chance = draw.random()
    for name, mistake in MISTAKES.items():
        rate = getattr(profile, name)
        if chance < rate:
            return mistake(ask)
        chance -= rate
    return reply


# --- mistakes -----------------------------------------------------------------------------------------------


def _malformed(ask: _Ask) -> Reply:
    return damage("invalid_json", ask.right, [], ask.source)


def _premature_end(ask: _Ask) -> Reply:
    if ask.wanted.kind != "call":
        return ask.right
    return Reply({"role": "assistant", "content": "That should be everything."}, "stop")


def _wrong_tool(ask: _Ask) -> Reply:
    if ask.wanted.kind != "call" or ask.approval:
        return ask.right
    offered = {tool["function"]["name"] for tool in ask.request.get("tools") or []}
    others = sorted(offered - {ask.wanted.function, APPROVAL_FUNCTION})
    service = ask.wanted.function.partition("__")[0]
    similar = [name for name in others if name.partition("__")[0] == service]
    return call_reply(ask.draw.choice(similar or others), arguments_of(ask.right), ask.source) if others else ask.right


def _wrong_argument(ask: _Ask) -> Reply:
    schemas, seen = _schemas(ask), list(fields_in(ask.request.get("messages") or []))

    def wrong(name: str, value: Any) -> list[Any]:
        """Only what the schema allows: that a value is wrong is all that is wrong with it."""
        schema = schemas.get(name) or {}
        shown = [other for other in neighbours(name, value, seen) if not schema_problem(other, schema)]
        return [slip for slip in slips(value, schema, shown) if slip != value and not schema_problem(slip, schema)]

    return _changed(ask, {name: wrong(name, value) for name, value in _values(ask).items()})


def _repeated_call(ask: _Ask) -> Reply:
    if ask.wanted.kind != "call":
        return ask.right
    due = (ask.wanted.function, arguments_of(ask.right))
    made = [call for call in _succeeded(ask.request.get("messages") or []) if call != due]
    return call_reply(*ask.draw.choice(made), ask.source) if made else ask.right


def _ignored_instruction(ask: _Ask) -> Reply:
    if ask.wanted.kind == "call" and ask.approval:
        return call_reply(str(ask.wanted.values["function"]), arguments_of(ask.right)["arguments"], ask.source)
    schemas = _schemas(ask)
    return _changed(ask, {name: _less(value, schemas.get(name) or {}) for name, value in _values(ask).items()})


MISTAKES: Mapping[str, Callable[[_Ask], Reply]] = {
    "malformed": _malformed,
    "premature_end": _premature_end,
    "wrong_tool": _wrong_tool,
    "wrong_argument": _wrong_argument,
    "repeated_call": _repeated_call,
    "ignored_instruction": _ignored_instruction,
}
"""Every mistake by its name, in the order in which one draw chooses among them: a new kind comes last, so that the
asks at which the others are made stay the same."""


# --- values -------------------------------------------------------------------------------------------------

_LEFT_OUT = object()
"""In the place of a value: its name is left out too."""


def _values(ask: _Ask) -> dict[str, Any]:
    """The values that the right reply holds, by name; none where it could not tell."""
    if ask.wanted.kind == "call":
        arguments = arguments_of(ask.right)
        return dict(arguments["arguments"]) if ask.approval else arguments
    return _object(ask.right.message["content"])


def _changed(ask: _Ask, options: Mapping[str, Sequence[Any]]) -> Reply:
    """The right reply with one of its values changed to one of its options; itself where there are none."""
    apt = sorted(name for name, found in options.items() if found)
    if not apt:
        return ask.right
    name = ask.draw.choice(apt)
    values = {**_values(ask), name: ask.draw.choice(options[name])}
    values = {key: value for key, value in values.items() if value is not _LEFT_OUT}
    if ask.wanted.kind == "answer":
        content = json.dumps(values, ensure_ascii=False)
        return Reply({**ask.right.message, "content": content}, ask.right.finish_reason)
    arguments = {**arguments_of(ask.right), "arguments": values} if ask.approval else values
    return call_reply(ask.wanted.function, arguments, ask.source)


def _schemas(ask: _Ask) -> Mapping[str, Any]:
    """The JSON schemas of the values that a reply holds, by name, as the request gives them."""
    if ask.wanted.kind == "answer":
        form = (ask.request.get("response_format") or {}).get("json_schema") or {}
        properties: Mapping[str, Any] = (form.get("schema") or {}).get("properties") or {}
        return properties
    name = str(ask.wanted.values.get("function")) if ask.approval else ask.wanted.function
    for tool in ask.request.get("tools") or []:
        if tool["function"].get("name") == name:
            return (tool["function"].get("parameters") or {}).get("properties") or {}
    return {}


def _less(value: Any, schema: Mapping[str, Any]) -> list[Any]:
    """A list without one of its items; or, of any other value but prose, that it is left out."""
    if isinstance(value, list) and len(value) > int(schema.get("minItems", 0)):
        return [value[:place] + value[place + 1 :] for place in range(len(value))]
    return [] if value is None or is_prose(value) else [_LEFT_OUT]


# --- what stands in a request -------------------------------------------------------------------------------


def _succeeded(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The calls in a transcript that were answered with a result, each once, in their order."""
    answers = {message.get("tool_call_id"): message.get("content") for message in messages}
    found: list[tuple[str, dict[str, Any]]] = []
    for call in (call for message in messages for call in message.get("tool_calls") or []):
        answer, arguments = _object(answers.get(call.get("id"))), _object(call["function"].get("arguments"))
        made = (str(call["function"].get("name")), arguments)
        if "result" in answer and made not in found:
            found.append(made)
    return found


def _object(text: Any) -> dict[str, Any]:
    """The JSON object that a text is; an empty one where it is none."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
