"""The scripted model: a pure function of (workflow, seed, request, n), where n is how often a step was asked.

It knows the plan, and nothing else that is not in the request: whatever it answers is computed from values that stand
there, so what is stale comes out stale, and what was left out can't be answered. Prose and call ids differ at every
ask, as a real model's do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, function_name
from kintsugi.golden_workflows.expressions import ExpressionError, names_in
from kintsugi.golden_workflows.plan import Instance
from kintsugi.golden_workflows.reference import script_reply
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.transcript import Transcript, as_json, objects_in
from kintsugi.runtime.rules import approval_needed

__all__ = ["Reply", "Wanted", "call_reply", "reply_to", "wanted_by"]

ERRORS_MAX = 5
"""After so many refusals of the same step in a row, the model gives up and says so."""

_ENDINGS = ("Done as asked.", "All of it is complete.", "Finished; nothing is left to do.", "The task is complete.")
_TAILS = (" Thank you.", " Let us know if anything is unclear.", " Kind regards.", " Best wishes.", " With thanks.")


@dataclass(frozen=True)
class Wanted:
    """What a request calls for: a judgement (``answer``), a tool call (``call``) or the last word (``close``)."""

    kind: str
    step: str
    item: int
    values: Mapping[str, Any] = field(default_factory=dict)
    function: str = ""
    missing: str = ""
    """The inputs that the answer rests on and that are not in the request."""
    after_error: bool = False
    """Whether the last attempt at this step was met with an error message."""
    ending: str = ""


@dataclass(frozen=True)
class Reply:
    """One reply of the model: an assistant message with its finish reason."""

    message: Mapping[str, Any]
    finish_reason: str


def wanted_by(workflow: Workflow, request: Mapping[str, Any]) -> Wanted:
    """What a chat completion request calls for, read from nothing but the request and the plan."""
    form = request.get("response_format") or {}
    name = (form.get("json_schema") or {}).get("name")
    if name is not None:
        return _judgement(workflow, str(name), request["messages"])
    return _next_call(Transcript(workflow, request["messages"]))


# --- judgements: the inputs stand in the request as JSON ----------------------------------------------------


def _judgement(workflow: Workflow, step: str, messages: Sequence[Mapping[str, Any]]) -> Wanted:
    script = workflow.script.get(step)
    if script is None:
        return Wanted("answer", step, 0, missing=f"what {step!r} is")
    needed = names_in([v.removeprefix("~") if isinstance(v, str) else v for v in script.values()])
    # The latest inputs count, as the latest result of a read does.
    for position, candidate in reversed(list(objects_in(messages))):
        inputs = candidate.get("inputs", candidate)
        if isinstance(inputs, Mapping) and needed <= set(inputs):
            after = messages[max(position + 1, len(messages) - 1) :]
            corrected = any("rejected" in str(message.get("content")) for message in after)
            return Wanted("answer", step, 0, inputs, after_error=corrected)
    return Wanted("answer", step, 0, missing=", ".join(sorted(needed)))


# --- calls: the results so far stand in the transcript ------------------------------------------------------


def _next_call(transcript: Transcript) -> Wanted:
    erred = transcript.erred
    if transcript.refused_by_human:
        return _end(f"Stopped: the approval was answered with {transcript.refused_by_human}.")
    due = transcript.due()
    if due is None:
        return _end(f"I can't go on: {transcript.stuck}." if transcript.stuck else "", after_error=erred)
    if transcript.errors >= ERRORS_MAX:
        return _end(f"I could not get past {due.step}.")
    if due.kind == "sleep":
        return Wanted("call", due.step, 0, {"seconds": due.values["seconds"]}, WAIT_FUNCTION, after_error=erred)
    return _tool_call(transcript, due)


def _end(ending: str, *, after_error: bool = False) -> Wanted:
    return Wanted("close", "end", 0, ending=ending, after_error=after_error)


def _tool_call(transcript: Transcript, due: Instance) -> Wanted:
    """What comes next where a tool is due: its approval, the call itself, or a wait before it is polled again."""
    workflow, erred = transcript.workflow, transcript.erred
    function = function_name(due.tool)
    step = workflow.steps[due.step]
    if transcript.polls[due.step] >= step.polls_max:
        return _end(f"I can't go on: {due.step} takes too long.")
    if transcript.to_wait_for == due.step:
        return Wanted("call", due.step, 0, {"seconds": step.every_seconds}, WAIT_FUNCTION, after_error=erred)
    spec = workflow.tools[due.tool]
    if spec.effect == "write" and approval_needed(spec.public(), due.values):
        granted = transcript.granted(due)
        if granted is None:
            values = {"function": function, "arguments": dict(due.values)}
            return Wanted("call", due.step, due.item, values, APPROVAL_FUNCTION, after_error=erred)
        return Wanted("call", due.step, due.item, granted, function, after_error=erred)
    return Wanted("call", due.step, due.item, due.values, function, after_error=erred)


# --- the reply ----------------------------------------------------------------------------------------------


def reply_to(workflow: Workflow, wanted: Wanted, seed: int, n: int) -> Reply:
    """The model's right answer to what is wanted, worded for the n-th ask."""
    if wanted.missing:
        return Reply(
            {"role": "assistant", "content": f"I can't tell: information is missing ({wanted.missing})."}, "stop"
        )
    draw = _draw(seed, wanted.step, wanted.item, n)
    if wanted.kind == "close":
        return Reply({"role": "assistant", "content": wanted.ending or draw(_ENDINGS)}, "stop")
    tail = f"{draw(_TAILS)} ({draw('ABCDEFGHJKMNPQRSTUVWXYZ')}{n})"
    if wanted.kind == "answer":
        try:
            value = as_json(script_reply(workflow.script[wanted.step], wanted.values, tail))
        except ExpressionError as error:
            return Reply({"role": "assistant", "content": f"I can't tell: {error}."}, "stop")
        return Reply({"role": "assistant", "content": json.dumps(value, ensure_ascii=False)}, "stop")
    return call_reply(wanted.function, _worded(workflow, wanted, tail), f"{seed}/{wanted.step}/{wanted.item}/{n}")


def call_reply(function: str, arguments: Any, source: str) -> Reply:
    """A reply that makes one call; its id is derived from `source`."""
    call = {
        "id": f"call_{hashlib.sha256(source.encode()).hexdigest()[:20]}",
        "type": "function",
        "function": {"name": function, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }
    return Reply({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def _worded(workflow: Workflow, wanted: Wanted, tail: str) -> Mapping[str, Any]:
    """The arguments of a call, its new prose worded for this ask; prose that was approved stays as it was."""
    step = workflow.steps[wanted.step]
    if step.tool is None or wanted.function == WAIT_FUNCTION:
        return wanted.values
    free = workflow.free_arguments[wanted.step]
    if wanted.function == APPROVAL_FUNCTION:
        inner = wanted.values["arguments"]
        return {**wanted.values, "arguments": {k: _reword(v, tail) if k in free else v for k, v in inner.items()}}
    spec = workflow.tools[step.tool]
    if spec.effect == "write" and approval_needed(spec.public(), wanted.values):
        return wanted.values
    return {name: _reword(value, tail) if name in free else value for name, value in wanted.values.items()}


def _reword(value: Any, tail: str) -> Any:
    worded = isinstance(value, str) and any(known.strip() in value for known in _TAILS)
    return f"{value}{tail}" if isinstance(value, str) and not worded else value


def _draw(seed: int, step: str, item: int, n: int) -> Callable[[Sequence[str]], str]:
    state = hashlib.sha256(f"{seed}/{step}/{item}/{n}".encode()).digest()
    used = iter(state)
    return lambda options: options[next(used) % len(options)]
