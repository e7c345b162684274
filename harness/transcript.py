"""What stands in a request's messages: objects, calls with what came of them, how far they bring the plan. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, function_name
from kintsugi.golden_workflows.expressions import ExpressionError, Json
from kintsugi.golden_workflows.plan import Instance, Results, dependents, next_instance, shows_end, step_named
from kintsugi.golden_workflows.reference import script_reply
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.runtime.rules import schema_problem

__all__ = ["Transcript", "as_json", "objects_in"]


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


@dataclass(frozen=True)
class _Entry:
    """A call that stands in a transcript, with what came of it."""

    function: str
    arguments: Mapping[str, Any]
    result: Any
    ok: bool

    @property
    def about(self) -> tuple[str, Any]:
        """The function and the arguments that it is about: those to be approved, where it asks for an approval."""
        if self.function == APPROVAL_FUNCTION:
            return str(self.arguments.get("function")), self.arguments.get("arguments")
        return self.function, self.arguments


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


class Transcript:
    """What a transcript tells of the plan: results, live approvals, and how often the last step was refused."""

    def __init__(self, workflow: Workflow, messages: Sequence[Mapping[str, Any]]) -> None:
        self.workflow = workflow
        self.entries = list(_entries(messages))
        self.results: Results = {}
        self.refused_by_human = ""
        self.stuck = ""
        """Why the values so far don't allow the plan to go on; empty where they do."""
        self.errors = 0
        """How often in a row the step that is due was refused."""
        self.erred = bool(self.entries) and not self.entries[-1].ok
        """Whether the last call came to nothing."""
        self.polls: dict[str, int] = defaultdict(int)
        """For each step that is polled, how many reads have shown that it takes longer."""
        self.to_wait_for = ""
        """The step whose last read has shown that, where nobody has waited since."""
        self._tools = {function_name(name): name for name in workflow.tools}
        self._approved: dict[str, tuple[_Entry, Mapping[str, Any]]] = {}
        """For each function, what was asked for and what was granted, until the call has been made."""
        self._made: dict[tuple[str, int], _Entry] = {}
        """The call that gave each step and item its result."""
        for entry in self.entries:
            self._take(entry)

    def _take(self, entry: _Entry) -> None:
        due = self.due()
        if not entry.ok:
            self.errors += (
                due is not None
                and entry.function in {APPROVAL_FUNCTION, function_name(due.tool)}
                and self._meant(due, entry)
            )
            self._take_refusal(due, entry)
            return
        if entry.function == APPROVAL_FUNCTION:
            self._take_decision(entry)
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

    def _take_decision(self, entry: _Entry) -> None:
        """What a person has said to a request for an approval."""
        answer = entry.result if isinstance(entry.result, Mapping) else {}
        decision = answer.get("decision")
        function, asked_for = entry.about
        # A chain that repeats no arguments has approved those that were asked for.
        granted = answer.get("arguments") or asked_for
        if decision in ("approve", "amend") and isinstance(granted, Mapping):
            self._approved[function] = (entry, granted)
            self.errors = 0
        else:
            self.refused_by_human = str(decision)

    def _take_refusal(self, due: Instance | None, entry: _Entry) -> None:
        """An approval of arguments that the tool can't take is good for nothing, once the call has shown it.

        It is asked for anew, with the right ones, if the tool can take those.
        """
        _, granted = self._approved.get(entry.function, (None, None))
        if due is None or due.kind != "tool" or entry.function != function_name(due.tool) or entry.arguments != granted:
            return
        schema = self.workflow.tools[due.tool].parameters
        if schema_problem(granted, schema) and not schema_problem(due.values, schema):
            del self._approved[entry.function]

    def _is_for(self, due: Instance, entry: _Entry) -> bool:
        """Whether a call is taken for the step that is due: it is of that function, and no repeat of an earlier one."""
        if entry.function != (WAIT_FUNCTION if due.kind == "sleep" else function_name(due.tool)):
            return False
        return self._meant(due, entry) or not any(
            (made.function, made.arguments) == (entry.function, entry.arguments) for made in self._made.values()
        )

    def _settled(self, step: str, result: Any) -> bool:
        """Whether a read has come to what its step waits for."""
        return shows_end(self.workflow.plan, step, self._with_prose(), result)

    def granted(self, due: Instance) -> Mapping[str, Any] | None:
        """The approved arguments of a write that is due; None where none were, or only for what was due before."""
        asked, granted = self._approved.get(function_name(due.tool), (None, {}))
        return granted if asked is not None and self._meant(due, asked) else None

    def _meant(self, due: Instance, entry: _Entry) -> bool:
        """Whether a call was an attempt at the step that is due: its literal arguments are the right ones."""
        _, arguments = entry.about
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
                    return None if due is None else replace(due, values=as_json(due.values))
                answer = script_reply(self.workflow.script[due.step], due.values["inputs"])
                self.results[due.step] = {0: as_json(answer)}
        except ExpressionError as error:
            # An earlier mistake has led to values that the plan can make nothing of.
            self.stuck = str(error)
            return None

    def _with_prose(self) -> Results:
        """The results, with the model's prose as it stands in the transcript's own calls, where it does."""
        known = dict(self.results)
        for step, free in self.workflow.free_fields.items():
            if step in known:
                value = known[step][0]
                known[step] = {0: value | {name: self._said(step, name, value[name]) or value[name] for name in free}}
        return known

    def _said(self, step: str, name: str, stem: str) -> str | None:
        """What a call gave as the model's prose for a field of a step's answer, which begins with `stem`."""
        reference = f"= {step}.{name}"
        for entry in self.entries:
            function, arguments = entry.about
            if not isinstance(arguments, dict):
                continue
            for plan_step in self.workflow.steps.values():
                if plan_step.tool is None or function_name(plan_step.tool) != function:
                    continue
                for argument, source in plan_step.args.items():
                    said = arguments.get(argument)
                    if source == reference and isinstance(said, str) and said.startswith(stem):
                        return said
        return None


def as_json(value: Json) -> Json:
    """The same value. Raises ExpressionError where it has no form in JSON, because a part of it was missing."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ExpressionError(f"a value is missing: {error}") from error
    return value
