"""What a provider is asked for a SUT's request, the key of that, and what its completion says. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.models.answers import Tokens
from kintsugi.harness.models.tokens import prompt_tokens, tokens_of
from kintsugi.harness.script import Reply, Wanted
from kintsugi.runtime.rules import canonical, schema_problem

__all__ = ["ANSWER_TOKENS_MAX", "answer_tokens_max", "as_good", "key_of", "provider_request", "read_completion"]

ANSWER_TOKENS_MAX = 4096
"""How long an answer may be where the SUT does not say: what a call may cost has to be bounded before it is made."""

PARAMETERS = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
)
"""What of a request is handed on. All else is left out: what names a server or a key is not the SUT's to say."""

STRICT_KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "description",
        "title", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format",
        "minItems", "maxItems",
    }
)  # fmt: skip
"""What a schema may hold that a provider is to hold its model to, token by token (OpenAI's structured outputs)."""


def provider_request(name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the provider gets: the model's name and what the SUT sent.

    Never as a stream: a reply has to be whole before it is recorded and before a fault may damage it, and where a
    stream brings no usage litellm makes one up, so that nobody could say who counted.
    """
    sent = {key: request[key] for key in PARAMETERS if request.get(key) is not None}
    if "response_format" in sent:
        sent["response_format"] = _form(sent["response_format"])
    if not sent.keys() & {"max_tokens", "max_completion_tokens"}:
        sent["max_tokens"] = ANSWER_TOKENS_MAX
    return {"model": name, **sent}


def _form(form: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form of the answer, held to strictly only where a provider could: it would turn the others down whole."""
    schema = form.get("json_schema")
    if not isinstance(schema, Mapping) or not schema.get("strict") or _can_be_strict(schema.get("schema")):
        return form
    return {**form, "json_schema": {**schema, "strict": False}}


def _can_be_strict(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= STRICT_KEYWORDS:
        return False
    properties = schema.get("properties") or {}
    if schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False and set(schema.get("required") or ()) == set(properties)
        if not closed or not all(_can_be_strict(inner) for inner in properties.values()):
            return False
    return "items" not in schema or _can_be_strict(schema["items"])


def key_of(request: Mapping[str, Any]) -> str:
    """SHA-256 of what a provider is asked: model, messages, tools, form of the answer, parameters."""
    return hashlib.sha256(canonical(request).encode()).hexdigest()


def answer_tokens_max(request: Mapping[str, Any]) -> int:
    """How many tokens the answer to a provider's request may have."""
    for name in ("max_completion_tokens", "max_tokens"):
        found = request.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return ANSWER_TOKENS_MAX


# --- what came back -----------------------------------------------------------------------------------------


def read_completion(completion: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[Reply, Tokens]:
    """The first choice of a chat completion, in the form in which replies are recorded and sent, and what it used.

    Tokens are the provider's where its usage says any, else an estimate. A reply without a choice is an empty one.
    """
    choices = completion.get("choices") or [{}]
    said = choices[0].get("message") or {}
    calls = [_call(call, number) for number, call in enumerate(said.get("tool_calls") or [])]
    content = said.get("content")
    message: dict[str, Any] = {"role": "assistant", "content": content if content or calls else ""}
    if calls:
        message["tool_calls"] = calls
    reason = str(choices[0].get("finish_reason") or ("tool_calls" if calls else "stop"))
    reply = Reply(message, reason) if completion.get("choices") else Reply({}, "")
    return reply, _tokens(completion.get("usage") or {}, request, reply)


def _call(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A call as the protocol has it, whatever the model made of it: a name and arguments that are text."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    named = {"name": str(function.get("name") or ""), "arguments": arguments}
    return {"id": str(call.get("id") or f"call_{number}"), "type": "function", "function": named}


def _tokens(usage: Mapping[str, Any], request: Mapping[str, Any], reply: Reply) -> Tokens:
    prompt, completion = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    if prompt + completion == 0:
        # A provider that says nothing is given zeros by whoever asks it.
        return Tokens(prompt_tokens(request), 0, tokens_of(reply.message))
    cached = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    return Tokens(prompt, min(cached, prompt), completion, estimated=False)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


# --- how good it is -----------------------------------------------------------------------------------------


def as_good(workflow: Workflow, wanted: Wanted, right: Reply, reply: Reply, request: Mapping[str, Any]) -> bool:
    """Whether a reply is as right as the script's, in other words where words are free.

    A judgement has to satisfy its schema, a call has to be the right one alone, the last word has to be no call.
    """
    calls = reply.message.get("tool_calls") or []
    if wanted.kind == "close":
        return bool(reply.message) and not calls
    if wanted.kind == "answer":
        form = (request.get("response_format") or {}).get("json_schema") or {}
        value = _parsed(reply.message.get("content"))
        whole = reply.finish_reason == "stop" and not calls and value is not None
        return whole and _satisfies(value, form.get("schema") or {})
    if len(calls) != 1 or not right.message.get("tool_calls"):
        return False
    made, due = calls[0]["function"], right.message["tool_calls"][0]["function"]
    same = _literal(workflow, wanted, made["arguments"]) == _literal(workflow, wanted, due["arguments"])
    return bool(made["name"] == due["name"] and same)


def _satisfies(value: Any, schema: Any) -> bool:
    try:
        return not schema_problem(value, schema)
    except Exception:  # noqa: BLE001 - what a foreign SUT sends as a schema may be none, and then nothing satisfies it
        return False


def _literal(workflow: Workflow, wanted: Wanted, arguments: str) -> Any:
    """Arguments without their prose; those of the call that is to be approved, where an approval is asked for."""
    value = _parsed(arguments)
    if not isinstance(value, dict):
        return None
    if wanted.function != APPROVAL_FUNCTION:
        return workflow.literal(wanted.step, value)
    inner = value.get("arguments")
    kept = workflow.literal(wanted.step, inner) if isinstance(inner, dict) else inner
    return {**value, "arguments": kept}


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
