"""The scripted model: a pure function of (workflow, seed, request, n), where n is how often a step was asked.

It knows the plan, and nothing else that is not in the request: whatever it answers is computed from values that stand
there, so what is stale comes out stale, and what was left out can't be answered. Prose and call ids differ at every
ask, as a real model's do.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, function_name
from kintsugi.golden_workflows.expressions import ExpressionError, Json, names_in
from kintsugi.golden_workflows.plan import Instance, Results, dependents, next_instance, settled, step_named
from kintsugi.golden_workflows.reference import script_reply
from kintsugi.golden_workflows.spec import FREE_TEXT, Workflow
from kintsugi.runtime.rules import approval_needed

__all__ = ["Reply", "Wanted", "call_reply", "objects_in", "reply_to", "wanted_by"]

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


@dataclass(frozen=True)
class _Entry:
    """A call that stands in a transcript, with what came of it."""

    function: str
    arguments: Mapping[str, Any]
    result: Any
    ok: bool


def wanted_by(workflow: Workflow, request: Mapping[str, Any]) -> Wanted:
    """What a chat completion request calls for, read from nothing but the request and the plan."""
    form = request.get("response_format") or {}
    name = (form.get("json_schema") or {}).get("name")
    if name is not None:
        return _judgement(workflow, str(name), request["messages"])
    return _next_call(workflow, list(_entries(request["messages"])))


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


def objects_in(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every JSON object in the messages' text, the outermost ones, in order, each with its message's position."""
    decoder = json.JSONDecoder()
    for number, message in enumerate(messages):
        text = message.get("content")
        position = text.find("{") if isinstance(text, str) else -1
        while isinstance(text, str) and position >= 0:
            try:
                value, position = decoder.raw_decode(text, position)
            except ValueError:
                position += 1
            else:
                yield number, value
            position = text.find("{", position)


# --- calls: the results so far stand in the transcript ------------------------------------------------------


def _entries(messages: Sequence[Mapping[str, Any]]) -> Iterator[_Entry]:
    answers = {m.get("tool_call_id"): m.get("content") for m in messages if m.get("role") == "tool"}
    for message in messages:
        for call in message.get("tool_calls") or []:
            try:
                arguments = json.loads(call["function"]["arguments"])
                content = json.loads(answers.get(call.get("id")) or "null")
            except (ValueError, TypeError, KeyError):
                arguments, content = {}, None
            ok = isinstance(content, Mapping) and "result" in content
            result = content["result"] if isinstance(content, Mapping) and ok else None
            name = str((call.get("function") or {}).get("name"))
            yield _Entry(name, arguments if isinstance(arguments, dict) else {}, result, ok)


class _Transcript:
    """What a transcript tells of the plan: results, live approvals, and how often the last step was refused."""

    def __init__(self, workflow: Workflow, entries: Sequence[_Entry]) -> None:
        self.workflow = workflow
        self.entries = entries
        self.results: Results = {}
        self.refused_by_human = ""
        self.stuck = ""
        """Why the values so far don't allow the plan to go on; empty where they do."""
        self.errors = 0
        """How often in a row the step that is due was refused."""
        self.erred = bool(entries) and not entries[-1].ok
        self.polls: dict[str, int] = defaultdict(int)
        """For each step that is polled, how many reads have shown that it takes longer."""
        self.to_wait_for = ""
        """The step whose last read has shown that, where nobody has waited since."""
        self._tools = {function_name(name): name for name in workflow.tools}
        self._approved: dict[str, tuple[_Entry, Mapping[str, Any]]] = {}
        """For each function, what was asked for and what was granted, until the call has been made."""
        self._made: dict[tuple[str, int], _Entry] = {}
        """The call that gave each step and item its result."""
        for entry in entries:
            self._take(entry)

    def _take(self, entry: _Entry) -> None:
        due = self.due()
        if not entry.ok:
            self.errors += (
                due is not None
                and entry.function in {APPROVAL_FUNCTION, function_name(due.tool)}
                and self._meant(due, entry)
            )
            return
        if entry.function == APPROVAL_FUNCTION:
            answer = entry.result if isinstance(entry.result, Mapping) else {}
            decision = answer.get("decision")
            # A chain that repeats no arguments has approved those that were asked for.
            granted = answer.get("arguments") or entry.arguments.get("arguments")
            if decision in ("approve", "amend") and isinstance(granted, Mapping):
                self._approved[str(entry.arguments.get("function"))] = (entry, granted)
                self.errors = 0
            else:
                self.refused_by_human = str(decision)
            return
        if due is None or not self._is_for(due, entry):
            if entry.function == WAIT_FUNCTION:
                self.to_wait_for = ""
            self._take_again(entry)
            return
        if not self._settled(due.step, entry.result):
            self.polls[due.step] += 1
            self.to_wait_for = due.step
            self.errors = 0
            return
        self.results.setdefault(due.step, {})[due.item] = entry.result
        self._made[due.step, due.item] = entry
        self._approved.pop(entry.function, None)
        self.errors = 0

    def _is_for(self, due: Instance, entry: _Entry) -> bool:
        """Whether a call is taken for the step that is due: it is of that function, and no repeat of an earlier one."""
        if entry.function != (WAIT_FUNCTION if due.kind == "sleep" else function_name(due.tool)):
            return False
        return self._meant(due, entry) or not any(
            (made.function, made.arguments) == (entry.function, entry.arguments) for made in self._made.values()
        )

    def _settled(self, step: str, result: Any) -> bool:
        """Whether a read has come to what its step waits for; one that can't be told by is taken for too early."""
        try:
            return settled(self.workflow.plan, step, self._with_prose(), result)
        except ExpressionError:
            return False

    def granted(self, due: Instance) -> Mapping[str, Any] | None:
        """The approved arguments of a write that is due; None where none were, or only for what was due before."""
        asked, granted = self._approved.get(function_name(due.tool), (None, {}))
        return granted if asked is not None and self._meant(due, asked) else None

    def _meant(self, due: Instance, entry: _Entry) -> bool:
        """Whether a call was an attempt at the step that is due: its literal arguments are the right ones."""
        arguments = entry.arguments.get("arguments") if entry.function == APPROVAL_FUNCTION else entry.arguments
        free = self.workflow.free_arguments.get(due.step, frozenset())
        return isinstance(arguments, dict) and all(
            arguments.get(name) == value for name, value in due.values.items() if name not in free
        )

    def _take_again(self, entry: _Entry) -> None:
        """A read that was made again: its latest result counts, and what rests on another one is open again."""
        tool = self._tools.get(entry.function)
        if tool is None or self.workflow.tools[tool].effect != "read":
            return
        for (step, item), made in list(self._made.items()):
            same = (made.function, made.arguments) == (entry.function, entry.arguments)
            if same and item in self.results.get(step, {}) and self.results[step][item] != entry.result:
                self.results[step][item] = entry.result
                self._forget(step)
                if not self._settled(step, entry.result):
                    del self.results[step]
                    self.to_wait_for = step

    def _forget(self, changed: str) -> None:
        """Drop every result that rests on a changed read, except effects, which can't be undone."""
        for name in dependents(self.workflow.plan, changed):
            tool = step_named(self.workflow.plan, name).get("tool")
            if tool is None or self.workflow.tools[tool].effect == "read":
                self.results.pop(name, None)

    def due(self) -> Instance | None:
        """The first step that has no result, the model's own judgements made on the way."""
        self.stuck = ""
        try:
            while True:
                due = next_instance(self.workflow.plan, self._with_prose())
                if due is None or due.kind != "model":
                    return None if due is None else replace(due, values=_as_json(due.values))
                answer = script_reply(self.workflow.script[due.step], due.values["inputs"])
                self.results[due.step] = {0: _as_json(answer)}
        except ExpressionError as error:
            # An earlier mistake has led to values that the plan can make nothing of.
            self.stuck = str(error)
            return None

    def _with_prose(self) -> Results:
        """The results, with the model's prose as it stands in the transcript's own calls, where it does."""
        known = dict(self.results)
        for step, script in self.workflow.script.items():
            if step not in known:
                continue
            value = dict(known[step][0])
            for name, expression in script.items():
                if isinstance(expression, str) and expression.startswith(FREE_TEXT):
                    value[name] = self._said(step, name, value[name]) or value[name]
            known[step] = {0: value}
        return known

    def _said(self, step: str, name: str, stem: str) -> str | None:
        reference = f"= {step}.{name}"
        for entry in self.entries:
            arguments = entry.arguments.get("arguments") if entry.function == APPROVAL_FUNCTION else entry.arguments
            function = str(entry.arguments.get("function")) if entry.function == APPROVAL_FUNCTION else entry.function
            for plan_step in self.workflow.steps.values():
                if (
                    plan_step.tool is None
                    or function_name(plan_step.tool) != function
                    or not isinstance(arguments, dict)
                ):
                    continue
                for argument, source in plan_step.args.items():
                    said = arguments.get(argument)
                    if source == reference and isinstance(said, str) and said.startswith(stem):
                        return said
        return None


def _next_call(workflow: Workflow, entries: Sequence[_Entry]) -> Wanted:
    transcript = _Transcript(workflow, entries)
    end = Wanted("close", "end", 0, after_error=transcript.erred)
    if transcript.refused_by_human:
        return Wanted(
            "close", "end", 0, ending=f"Stopped: the approval was answered with {transcript.refused_by_human}."
        )
    due = transcript.due()
    if due is None:
        return replace(end, ending=f"I can't go on: {transcript.stuck}.") if transcript.stuck else end
    if transcript.errors >= ERRORS_MAX:
        return Wanted("close", "end", 0, ending=f"I could not get past {due.step}.")
    erred = transcript.erred
    if due.kind == "sleep":
        return Wanted("call", due.step, 0, {"seconds": due.values["seconds"]}, WAIT_FUNCTION, after_error=erred)
    return _tool_call(transcript, due)


def _tool_call(transcript: _Transcript, due: Instance) -> Wanted:
    """What comes next where a tool is due: its approval, the call itself, or a wait before it is polled again."""
    workflow, erred = transcript.workflow, transcript.erred
    function = function_name(due.tool)
    step = workflow.steps[due.step]
    if transcript.polls[due.step] >= step.polls_max:
        return Wanted("close", "end", 0, ending=f"I can't go on: {due.step} takes too long.")
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
            value = _as_json(script_reply(workflow.script[wanted.step], wanted.values, tail))
        except ExpressionError as error:
            return Reply({"role": "assistant", "content": f"I can't tell: {error}."}, "stop")
        return Reply({"role": "assistant", "content": json.dumps(value, ensure_ascii=False)}, "stop")
    return call_reply(wanted.function, _worded(workflow, wanted, tail), f"{seed}/{wanted.step}/{wanted.item}/{n}")


def _as_json(value: Json) -> Json:
    """The same value. Raises ExpressionError where it has no form in JSON, because a part of it was missing."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ExpressionError(f"a value is missing: {error}") from error
    return value


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
