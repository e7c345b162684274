"""Runs a chain over a workflow's records in memory, without any fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from kintsugi.golden_workflows.chains import optimized
from kintsugi.golden_workflows.forms import Effect
from kintsugi.golden_workflows.records import Unservable
from kintsugi.golden_workflows.reference import script_reply
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.runtime.gathering import one_after_another
from kintsugi.runtime.protocol import Decision, ModelRequest, PolicyStop, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import approval_needed, arguments_digest, schema_problem

T = TypeVar("T")
Meanwhile = Callable[[str], None]


class MemoryContext:
    """Serves tools, model and human at once; `meanwhile` is told of each wait before it ends."""

    run_id = "r0"

    def __init__(self, workflow: Workflow, meanwhile: Meanwhile, refused: str = "") -> None:
        self.workflow = workflow
        self.clock = 0.0
        self.records = workflow.records(lambda: self.clock)
        self.meanwhile = meanwhile
        self.refused = refused
        self.effects: list[Effect] = []
        self.questions: list[Question] = []
        self.asked = 0

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        assert request.schema is not None
        self.asked += 1
        inputs = json.loads(request.messages[-1]["content"].splitlines()[-1])["inputs"]
        reply = script_reply(self.workflow.script[request.step], inputs, f" (wording {self.asked})")
        assert schema_problem(reply, request.schema) == ""
        return {"role": "assistant", "content": json.dumps(reply), "parsed": reply}

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        tool = self.workflow.tools[call.tool]
        assert schema_problem(call.arguments, tool.parameters) == ""
        try:
            if tool.effect == "read":
                answer = self.records.read(tool, call.arguments)
                return ToolReply(ok=True, result=answer.result, version=answer.version)
            if approval_needed(tool.public(), call.arguments):
                assert call.approval == arguments_digest(call.arguments), "approved for other arguments"
            if call.if_match not in (None, self.records.current_tag(tool, call.arguments)):
                return ToolReply(ok=False, status=412, error="the record has changed")
            answer = self.records.write(tool, call.arguments)
        except Unservable as error:
            return ToolReply(ok=False, status=error.status, error=str(error))
        free = self.workflow.free_arguments[step]
        literal = {key: value for key, value in call.arguments.items() if key not in free}
        self.effects.append(Effect(step=step, tool=call.tool, args=literal))
        return ToolReply(ok=True, result=answer.result, version=answer.version)

    async def ask_human(self, name: str, question: Question) -> Decision:
        self.questions.append(question)
        self.meanwhile(question.step)
        if question.kind == "approval":
            decision = "reject" if question.step == self.refused else "approve"
            return Decision(name, decision, token=arguments_digest(question.arguments))
        return Decision(name, "stop")

    async def sleep(self, name: str, seconds: float) -> None:
        self.clock += seconds
        self.meanwhile(name.partition("#")[0])

    async def now(self, name: str) -> float:
        return self.clock

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        return await one_after_another(calls)


@dataclass
class Ran:
    """How a run ended, and what it did."""

    ended: str
    effects: list[Effect]
    questions: list[Question]


RunChain = Callable[..., Ran]


@pytest.fixture
def run_chain() -> RunChain:
    """Runs the optimized chain in memory: ``run_chain(workflow, drift="", refused="")``, `refused` being a step."""

    def run(workflow: Workflow, drift: str = "", refused: str = "") -> Ran:
        drifts = [workflow.drifts[drift]] if drift else []

        def meanwhile(step: str) -> None:
            if drifts and drifts[0].step == step:
                happening = drifts.pop()
                context.records.change(happening.record, happening.set)

        context = MemoryContext(workflow, meanwhile, refused)
        try:
            ended = asyncio.run(optimized.run(context, json.loads(json.dumps(workflow.plan))))
        except PolicyStop as stop:
            ended = f"stopped: {stop}"
        assert not drifts, f"the run never waited at {drifts[0].step!r}"
        return Ran(ended, context.effects, context.questions)

    return run
