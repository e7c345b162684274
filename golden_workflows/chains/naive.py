"""The naive chain: a ReAct loop. The model decides every step and sees the whole transcript at every turn.

Nothing is validated beyond parsing: whatever call the model makes is made, and a reply without a call is the end. What
can't be carried out at all is told to the model, as the result of its call.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from kintsugi.runtime.protocol import Decision, DurableContext, ModelRequest, Question, ToolCall
from kintsugi.runtime.rules import arguments_digest, write_down

__all__ = ["APPROVAL_FUNCTION", "WAIT_FUNCTION", "function_name", "run"]

Plan = Mapping[str, Any]

APPROVAL_FUNCTION = "request_approval"
WAIT_FUNCTION = "wait"

SYSTEM = """You are an agent that carries out a task by calling functions, one at a time, until it is done.
Work step by step: look at the results so far, decide on the next call, and make it with exact arguments taken from
the results. Some functions need a person's approval: call request_approval with the function's name and the exact
arguments first, and then make the call with the same arguments. If approval is refused, stop. Use wait when the task
says to wait. When everything is done, answer with a short summary and no call."""


def function_name(tool: str) -> str:
    """A tool's name as a function name that the chat protocol allows (no dots)."""
    return tool.replace(".", "__")


async def run(ctx: DurableContext, plan: Plan) -> str:
    """Let the model work through a task on a durable context; the text of its last reply.

    How many turns it may take is the runtime's budget, ``model_calls_max``.
    """
    tools = {function_name(name): name for name in plan["tools"]}
    functions = _functions(plan)
    messages: list[Mapping[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": plan["task"]},
    ]
    approvals: dict[str, Decision] = {}
    for turn in itertools.count(1):
        message = await ctx.model(f"turn {turn}", ModelRequest("turn", list(messages), tools=functions))
        given = message.get("tool_calls")
        calls = [_whole(call, f"turn {turn}.{at}") for at, call in enumerate(given if isinstance(given, list) else [])]
        if not calls:
            return str(message.get("content") or "")
        said = {key: value for key, value in message.items() if value is not None}
        messages.append({**said, "tool_calls": calls})
        for position, call in enumerate(calls):
            answer = await _act(ctx, f"turn {turn}.{position}", call["function"], tools, approvals)
            content = json.dumps(answer, ensure_ascii=False)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
    raise AssertionError("unreachable")


def _whole(call: Any, name: str) -> Mapping[str, Any]:
    """A call with all that the chat protocol asks of one; what the model left out is empty, and its id is `name`."""
    call = call if isinstance(call, dict) else {}
    function = call["function"] if isinstance(call.get("function"), dict) else {}
    texts = {key: function[key] if isinstance(function.get(key), str) else "" for key in ("name", "arguments")}
    called = call.get("id") if isinstance(call.get("id"), str) else name
    return {**call, "id": called, "type": "function", "function": {**function, **texts}}


async def _act(
    ctx: DurableContext,
    name: str,
    function: Mapping[str, Any],
    tools: Mapping[str, str],
    approvals: dict[str, Decision],
) -> Mapping[str, Any]:
    """Make one call that the model asked for; what it is told came of it."""
    try:
        arguments = json.loads(function["arguments"])
        write_down(arguments)
    except (ValueError, RecursionError) as error:
        return {"error": f"the arguments are not valid JSON: {error}"}
    if not isinstance(arguments, dict):
        return {"error": "the arguments are not a JSON object"}
    if function["name"] == APPROVAL_FUNCTION:
        return await _approve(ctx, name, arguments, tools, approvals)
    if function["name"] == WAIT_FUNCTION:
        seconds = _seconds(arguments.get("seconds"))
        if seconds is None:
            return {"error": "give 'seconds', a number that is not below 0"}
        await ctx.sleep(name, seconds)
        return {"result": {"waited_seconds": arguments["seconds"]}}
    tool = tools.get(function["name"])
    if tool is None:
        return {"error": f"there is no function called {function['name']!r}"}
    approval = approvals.get(f"{tool} {arguments_digest(arguments)}")
    call = ToolCall(
        tool=tool,
        arguments=arguments,
        approval=approval.token if approval else None,
        approval_expires_at=approval.expires_at if approval else None,
    )
    reply = await ctx.tool(name, call, step=name)
    return {"result": reply.result} if reply.ok else {"error": reply.error, "status": reply.status}


def _seconds(value: Any) -> float | None:
    """A wait in seconds; None where a value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if 0 <= seconds < math.inf else None


async def _approve(
    ctx: DurableContext,
    name: str,
    request: Mapping[str, Any],
    tools: Mapping[str, str],
    approvals: dict[str, Decision],
) -> Mapping[str, Any]:
    tool = tools.get(str(request.get("function")), "")
    arguments = request.get("arguments")
    if not tool or not isinstance(arguments, dict):
        return {"error": "give the function's name and its arguments, an object"}
    question = Question(kind="approval", step=name, summary=f"may {tool} be called?", tool=tool, arguments=arguments)
    decision = await ctx.ask_human(name, question)
    if decision.decision in {"approve", "amend"}:
        granted = decision.arguments or arguments
        approvals[f"{tool} {arguments_digest(granted)}"] = decision
        return {"result": {"decision": decision.decision, "arguments": granted}}
    return {"result": {"decision": decision.decision}}


def _functions(plan: Plan) -> list[Mapping[str, Any]]:
    """Every tool of the plan as a function definition, with the two that the chain itself offers."""
    definitions = [
        (function_name(name), tool["description"], tool["parameters"]) for name, tool in plan["tools"].items()
    ]
    definitions.append(
        (
            APPROVAL_FUNCTION,
            "Ask a person whether a function may be called with exactly these arguments.",
            {
                "type": "object",
                "required": ["function", "arguments"],
                "properties": {"function": {"type": "string"}, "arguments": {"type": "object"}},
            },
        )
    )
    if any("sleep_seconds" in step or "until" in step for step in plan["steps"]):
        seconds = {"type": "object", "required": ["seconds"], "properties": {"seconds": {"type": "number"}}}
        definitions.append((WAIT_FUNCTION, "Wait for a number of seconds.", seconds))
    return [
        {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}
        for name, text, parameters in definitions
    ]
