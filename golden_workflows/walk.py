"""Walks a workflow's plan over its own records, with the script's answers: what a correct run does.

It names the boundaries that a correct run crosses, before any SUT has run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kintsugi.golden_workflows.expressions import ExpressionError, evaluate, is_expression
from kintsugi.golden_workflows.forms import Tool, is_free_text
from kintsugi.golden_workflows.plan import Instance, Results, due_together, settled
from kintsugi.golden_workflows.problems import FileProblem
from kintsugi.golden_workflows.records import Answer, Unservable
from kintsugi.golden_workflows.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Call", "Visit", "script_reply", "trajectory", "visits", "walk"]

STEPS_MAX = 200


@dataclass(frozen=True)
class Call:
    """One boundary of a correct run: a tool call, a question to the model, or a timer, at a step and item."""

    step: str
    item: int
    kind: str
    tool: str
    arguments: Mapping[str, Any]
    needs_approval: bool = False


@dataclass(frozen=True)
class Visit:
    """A call with what came of it."""

    call: Call
    value: Any
    """The tool's result or the model's answer; an empty object for a timer."""
    output: Mapping[str, Any]
    """The JSON schema that the answer must satisfy, its expressions resolved; empty but for a question."""
    record: str
    """``collection/id`` of what a tool read or wrote; the collection for a list; empty without a tool."""
    outdated: str
    """The first ``fresh`` read of this write that the run's own writes have outdated; empty if none."""
    unmatched: bool
    """Whether If-Match would be refused: the first ``fresh`` read is of another record than is written."""


def script_reply(script: Mapping[str, Any], inputs: Mapping[str, Any], prose: str = "") -> dict[str, Any]:
    """The scripted model's answer to a step's inputs; `prose` varies the wording of its free text.

    Raises ExpressionError where an input that the answer rests on is missing.
    """
    reply: dict[str, Any] = {}
    for field, value in script.items():
        if is_free_text(value):
            reply[field] = f"{evaluate(value.removeprefix('~'), inputs)}{prose}"
        elif is_expression(value):
            reply[field] = evaluate(value, inputs)
        else:
            reply[field] = value
    return reply


def trajectory(workflow: Workflow, drift: str | None = None) -> Sequence[Call]:
    """The calls of a correct run, in order, for the seed records or for a drift that came before everything.

    Walked once for each workflow. Raises FileProblem where the plan can't be walked to its end.
    """
    return [visit.call for visit in visits(workflow, drift)]


@cache
def visits(workflow: Workflow, drift: str | None) -> Sequence[Visit]:
    """The same calls with what came of them."""
    return tuple(walk(workflow, drift))


def walk(workflow: Workflow, drift: str | None = None, prose: str = "", *, backwards: bool = False) -> Iterator[Visit]:
    """The visits of a correct run, in order; `prose` is added to every free text of the model.

    `backwards`: the steps of each parallel group come in the opposite order.

    Raises FileProblem where the plan can't be walked to its end.
    """
    walker = _Walker(workflow, prose)
    if drift is not None:
        walker.records.change(workflow.drifts[drift].record, workflow.drifts[drift].set)
    for _ in range(STEPS_MAX):
        place = ""
        try:
            together = due_together(workflow.plan, walker.results)
            if not together:
                return
            due = together[-1 if backwards else 0]
            place = f"{due.step}: "
            yield walker.do(due)
        except (ExpressionError, Unservable) as error:
            under = f" (under drift {drift!r})" if drift else ""
            raise FileProblem(f"{workflow.path or workflow.name}: plan.{place}{error}{under}") from error
    long = f"it does not end within {STEPS_MAX} steps; is a loop too long?"
    raise FileProblem(f"{workflow.path or workflow.name}: plan: {long}")


class _Walker:
    """What is known on the way: the records, each step's results, and what each read was when it was made."""

    def __init__(self, workflow: Workflow, prose: str) -> None:
        self.workflow = workflow
        self.prose = prose
        self.clock = 0.0
        """Workflow seconds; only timers and polls take any."""
        self.records = workflow.records(lambda: self.clock)
        self.results: Results = {}
        self.read: dict[tuple[str, int], tuple[Tool, Mapping[str, Any], Answer]] = {}

    def do(self, due: Instance) -> Visit:
        """Make one call and remember what came of it."""
        does = {"tool": self._tool, "model": self._model, "sleep": self._sleep}
        visit = does[due.kind](due)
        self.results.setdefault(due.step, {})[due.item] = visit.value
        return visit

    def _tool(self, due: Instance) -> Visit:
        # Imported late: the rules load jsonschema, which a worker that only walks a plan has no use for.
        from kintsugi.runtime.rules import approval_needed

        tool = self.workflow.tools[due.tool]
        if tool.effect == "read":
            answer = self._read(due, tool)
            self.read[due.step, due.item] = (tool, due.values, answer)
            call = Call(due.step, due.item, "tool", due.tool, due.values)
            return Visit(call, answer.result, {}, answer.record, "", unmatched=False)
        outdated = next(filter(None, map(self._moved, self.workflow.steps[due.step].fresh)), "")
        unmatched = self._unmatched(due, tool)
        answer = self.records.write(tool, due.values)
        needs = approval_needed(tool.public(), due.values)
        call = Call(due.step, due.item, "tool", due.tool, due.values, needs)
        return Visit(call, answer.result, {}, answer.record, outdated, unmatched)

    def _read(self, due: Instance, tool: Tool) -> Answer:
        """The read that a step comes to, after as many polls as it takes."""
        step = self.workflow.steps[due.step]
        answer, reads = self.records.read(tool, due.values), 1
        while not settled(self.workflow.plan, due.step, self.results, answer.result):
            if reads == step.polls_max:
                raise ExpressionError(f"'until' did not hold in {reads} reads; the last gave {answer.result}")
            self.clock += step.every_seconds or 0.0
            answer, reads = self.records.read(tool, due.values), reads + 1
        return answer

    def _model(self, due: Instance) -> Visit:
        inputs = due.values["inputs"]
        reply = script_reply(self.workflow.script[due.step], inputs, self.prose)
        return Visit(
            Call(due.step, due.item, "model", "", inputs),
            reply,
            due.values["output"],
            "",
            "",
            unmatched=False,
        )

    def _sleep(self, due: Instance) -> Visit:
        self.clock += due.values["seconds"]
        return Visit(Call(due.step, due.item, "sleep", "", due.values), {}, {}, "", "", unmatched=False)

    def _moved(self, step: str) -> str:
        """The step's id, if the records it read have been changed since by this run; else empty."""
        made = [known for (name, _), known in self.read.items() if name == step]
        moved = any(self.records.read(tool, arguments).version != answer.version for tool, arguments, answer in made)
        return step if moved else ""

    def _unmatched(self, due: Instance, tool: Tool) -> bool:
        fresh = self.workflow.steps[due.step].fresh
        if not (tool.if_match and fresh):
            return False
        known = self.read.get((fresh[0], due.item)) or self.read.get((fresh[0], 0))
        return known is None or known[2].version != self.records.current_tag(tool, due.values)
