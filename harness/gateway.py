"""The model gateway: OpenAI chat completions, answered by the model that a trial has; every ask and reply is recorded.

Who answers is behind one seam (`harness.models`). Faults, accounting and the form of the answer are here, and the same
for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.harness.crossing import Incoming
from kintsugi.harness.damage import damage
from kintsugi.harness.deeds.blow import Crossing
from kintsugi.harness.models.answers import Asked, Refused
from kintsugi.harness.models.tokens import prompt_tokens, tokens_of
from kintsugi.harness.script import Reply, Wanted, reply_to, wanted_by

__all__ = ["serve_model"]


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
    estimated = prompt_tokens(request)
    session.history.add("gateway", "ask", **crossing.named(), n=n, wants=wanted.kind, prompt_tokens=estimated)
    if await incoming.struck(crossing, "before"):
        return
    right = reply_to(session.workflow, wanted, session.trial.seed, n)
    try:
        answer = await session.model.answer(Asked(session.trial, session.workflow, crossing, request, wanted, right, n))
    except Refused as refused:
        await _pass_on(incoming, crossing, refused)
        return
    reply, tokens = answer.reply, answer.tokens
    # What is generated is charged, whether its answer arrives or not.
    charged = {"prompt_tokens": tokens.prompt, "cached_prompt_tokens": tokens.cached}
    charged |= {"completion_tokens": tokens.completion}
    session.history.add("gateway", "generated", **crossing.named(), **charged, estimated=tokens.estimated)
    if await incoming.struck(crossing, "during"):
        return
    corruption = incoming.nemesis.corruption(crossing)
    damaged = False
    if corruption is not None:
        say, how = corruption
        source = f"{session.trial.seed}/{run.id}/{wanted.step}/{wanted.item}/{n}"
        plain, reply = reply, _damaged(how, reply, request["messages"], source)
        damaged = reply != plain
        say(damaged)
    completion = tokens_of(reply.message) if damaged else tokens.completion
    usage = {"prompt_tokens": tokens.prompt, "completion_tokens": completion}
    session.history.add(
        "gateway",
        "reply",
        **crossing.named(),
        wants=wanted.kind,
        message=reply.message,
        finish_reason=reply.finish_reason,
        right=_right(wanted, right),
        damaged=damaged,
        as_scripted=answer.good and not damaged,
        **usage,
    )
    delivered = await incoming.answer(crossing, 200, _body(crossing, request, reply, usage))
    session.history.add("gateway", "delivered", request=crossing.request, run=run.id, delivered=delivered)


async def _pass_on(incoming: Incoming, crossing: Crossing, refused: Refused) -> None:
    """Give the SUT the provider's error in place of a reply; nothing was generated."""
    said = {"status": refused.status, "error": str(refused), "retry_after": refused.retry_after}
    incoming.session.history.add("gateway", "refused", **crossing.named(), **said)
    headers = {"Retry-After": refused.retry_after} if refused.retry_after else {}
    await incoming.answer(crossing, refused.status, {"error": {"message": str(refused)}}, headers)


def _damaged(how: str, reply: Reply, messages: Sequence[Mapping[str, Any]], source: str) -> Reply:
    """The damaged reply; the reply itself where its model has spoilt already what was to be damaged."""
    try:
        return damage(how, reply, messages, source)
    except (ValueError, TypeError, KeyError):
        return reply


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
    """What the right reply would have held, for the accuracy as proposed."""
    if wanted.kind == "answer":
        return {"kind": "answer", "content": reply.message["content"]}
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
