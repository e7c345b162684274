"""The model gateway: OpenAI chat completions, answered by the scripted model; every ask and reply is recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kintsugi.harness.crossing import Incoming
from kintsugi.harness.deeds.blow import Crossing
from kintsugi.harness.injected import obedient
from kintsugi.harness.mistakes import PROFILES, damage, vary
from kintsugi.harness.script import Reply, Wanted, reply_to, wanted_by

__all__ = ["TOKENIZER", "serve_model", "tokens_of"]

TOKENIZER = "estimate: one token per four characters of JSON"
"""How the scripted model's tokens are counted; the scorecard says so."""
CHARACTERS_PER_TOKEN = 4
CACHE_FROM_TOKENS = 1024
CACHE_STEP_TOKENS = 128


def tokens_of(value: Any) -> int:
    """The token estimate of a JSON value."""
    return max(1, round(len(json.dumps(value, ensure_ascii=False)) / CHARACTERS_PER_TOKEN))


async def serve_model(incoming: Incoming) -> None:
    """Serve ``POST /v1/chat/completions``, whole or streamed."""
    request = incoming.body
    if incoming.path != ["chat", "completions"] or not _is_chat(request):
        await incoming.send(400, {"error": {"message": "POST /v1/chat/completions with 'messages' is what is served"}})
        return
    session, run = incoming.session, incoming.run
    wanted = wanted_by(session.workflow, request)
    crossing = incoming.crossing("model", wanted.step, wanted.item)
    run.asked[wanted.step, wanted.item] += 1
    n = run.asked[wanted.step, wanted.item]
    prompt_tokens = tokens_of(request["messages"]) + tokens_of(request.get("tools") or request.get("response_format"))
    session.history.add("gateway", "ask", **crossing.named(), n=n, wants=wanted.kind, prompt_tokens=prompt_tokens)
    if await incoming.struck(crossing, "before"):
        return
    right = reply_to(session.workflow, wanted, session.trial.seed, n)
    source = f"{session.trial.seed}/{run.id}/{wanted.step}/{wanted.item}/{n}"
    reply = obedient(request, source) or vary(PROFILES[session.trial.variance], wanted, right, request, source)
    # What is generated is charged, whether its answer arrives or not.
    charged = {"prompt_tokens": prompt_tokens, "cached_prompt_tokens": _cached(run.prompts, request)}
    charged |= {"completion_tokens": tokens_of(reply.message)}
    session.history.add("gateway", "generated", **crossing.named(), **charged)
    if await incoming.struck(crossing, "during"):
        return
    corruption = incoming.nemesis.corruption(crossing)
    damaged = False
    if corruption is not None:
        say, how = corruption
        plain, reply = reply, damage(how, reply, request["messages"], source)
        damaged = reply != plain
        say(damaged)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens_of(reply.message)}
    session.history.add(
        "gateway",
        "reply",
        **crossing.named(),
        wants=wanted.kind,
        message=reply.message,
        finish_reason=reply.finish_reason,
        right=_right(wanted, right),
        damaged=damaged,
        as_scripted=reply == right,
        **usage,
    )
    delivered = await incoming.answer(crossing, 200, _body(crossing, request, reply, usage))
    session.history.add("gateway", "delivered", request=crossing.request, run=run.id, delivered=delivered)


def _cached(prompts: list[str], request: Mapping[str, Any]) -> int:
    """How many tokens of a prompt a provider would have had in its cache from an earlier prompt of the same run.

    The longest common prefix with any of them, in whole steps of 128 tokens and from 1,024 on, as OpenAI's guide to
    prompt caching has it; tools come before messages. Remembers the prompt.
    """
    prompt = json.dumps([request.get("tools") or request.get("response_format"), request["messages"]])
    tokens = max((_steps_in_common(prompt, earlier) for earlier in prompts), default=0) * CACHE_STEP_TOKENS
    prompts.append(prompt)
    return tokens if tokens >= CACHE_FROM_TOKENS else 0


def _steps_in_common(one: str, other: str) -> int:
    """How many whole steps two prompts begin with in common; compared step by step, which costs next to nothing."""
    size = CHARACTERS_PER_TOKEN * CACHE_STEP_TOKENS
    most = min(len(one), len(other)) // size
    starts = range(0, most * size, size)
    return next((n for n, at in enumerate(starts) if one[at : at + size] != other[at : at + size]), most)


def _is_chat(request: Any) -> bool:
    """Whether a body has the shape of a chat completion request, as far as the script reads it."""
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    form, tools = request.get("response_format") or {}, request.get("tools") or []
    if not isinstance(form, dict) or not isinstance(form.get("json_schema") or {}, dict):
        return False
    lists = [tools, *(message.get("tool_calls") or [] for message in messages)]
    if not all(isinstance(entries, list) for entries in lists):
        return False
    return (
        all(isinstance(e, dict) and isinstance(e.get("function"), dict) for entries in lists for e in entries)
        and all(isinstance(tool["function"].get("name"), str) for tool in tools)
        and all(isinstance(message.get("tool_call_id", ""), str) for message in messages)
    )


def _right(wanted: Wanted, reply: Reply) -> Mapping[str, Any]:
    """What the right reply would have held, for the tool accuracy as proposed."""
    if wanted.kind != "call":
        return {"kind": wanted.kind}
    return {
        "kind": "call",
        "function": wanted.function,
        "arguments": reply.message["tool_calls"][0]["function"]["arguments"],
    }


def _body(crossing: Crossing, request: Mapping[str, Any], reply: Reply, usage: Mapping[str, int]) -> Any:
    total = {**usage, "total_tokens": sum(usage.values())}
    head = {"id": f"chatcmpl-{crossing.request}", "created": 0, "model": request.get("model", "scripted")}
    if not request.get("stream"):
        choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish_reason}
        choices = [choice] if reply.message else []
        return {**head, "object": "chat.completion", "choices": choices, "usage": total}
    return _streamed(head, reply, total).encode()


def _streamed(head: Mapping[str, Any], reply: Reply, usage: Mapping[str, int]) -> str:
    """The reply as server-sent events: its text or its calls in pieces, the finish reason, the usage, the end."""
    pieces: list[dict[str, Any]] = [{"role": "assistant"}] if reply.message else []
    text = reply.message.get("content") or ""
    pieces += [{"content": text[start : start + 24]} for start in range(0, len(text), 24)]
    for index, call in enumerate(reply.message.get("tool_calls") or []):
        arguments = call["function"]["arguments"]
        opening = {"name": call["function"]["name"], "arguments": ""}
        pieces.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": opening}]})
        for start in range(0, len(arguments), 24):
            part = {"arguments": arguments[start : start + 24]}
            pieces.append({"tool_calls": [{"index": index, "function": part}]})
    choices: list[list[dict[str, Any]]] = [[{"index": 0, "delta": piece, "finish_reason": None}] for piece in pieces]
    choices.append([{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}] if reply.message else [])
    events = [{**head, "object": "chat.completion.chunk", "choices": choice} for choice in choices]
    events.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
