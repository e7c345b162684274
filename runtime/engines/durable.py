"""The durable context on an existing engine: the shared rules, on the few primitives that every engine has.

An engine's side brings an `Engine`: how an act is made durable and tried again, how a decision is waited for, how
time passes. What is valid, which key a call carries, when to look before repeating and when to stop for a person
stands in `runtime.rules`, and is the same for all of them, and for the minimal runtime.

There are two contexts. `TunedContext` is what an engineer writes who has read the engine's documentation.
`DefaultContext` is what a quick-start teaches: each call is one durable step, with the engine's default settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from kintsugi.runtime.boundary import Boundary
from kintsugi.runtime.clock import moment
from kintsugi.runtime.gathering import one_after_another, side_by_side
from kintsugi.runtime.policy import Policy
from kintsugi.runtime.protocol import (
    Decision,
    DurableContext,
    ModelRequest,
    PolicyStop,
    Question,
    ToolCall,
    ToolReply,
    WorkflowFailed,
)
from kintsugi.runtime.rules import (
    Budget,
    backoff_seconds,
    first_move,
    idempotency_key,
    repair_messages,
    schema_problem,
    unexpected_result,
)

__all__ = [
    "PATIENCE",
    "Chains",
    "DefaultContext",
    "Engine",
    "Spent",
    "TunedContext",
    "carry",
    "dated",
    "once_by_mark",
]

Json = Mapping[str, Any]
T = TypeVar("T")
Chains = Mapping[str, Callable[[DurableContext, Json], Awaitable[str]]]

PATIENCE = Budget(attempts=1_000_000, base_seconds=0.05, cap_seconds=1.0)
"""For what is tried until it works: the person's inbox and the report of the end."""


class Spent(Exception):
    """An act has failed for good: the engine has tried it as often as it was to."""


class Engine(Protocol):
    """One run on an engine. Every name is unique in the run and the same at a replay."""

    run_id: str
    control: tuple[type[BaseException], ...]
    """What the engine raises through a workflow for its own ends, and no workflow may catch."""
    side_by_side: bool
    """Whether a replay finds each of several calls again that were under way at the same time."""

    async def act(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """The recorded result of an act (see `acts`), carried out at least once.

        It is tried again as `retry` says, or as the engine does by default (None). Raises Spent when that is over.
        """
        ...

    async def once(self, name: str, argument: Json) -> Json:
        """The recorded result of the act ``call_tool_once``, carried out at most once.

        ``{"in_doubt": why}`` where an attempt was begun and nothing is known of it. An engine without such a
        primitive uses `once_by_mark`.
        """
        ...

    async def decision(self, request_id: str) -> Json:
        """The person's decision on a request, however long it takes; one that came early is kept."""
        ...

    async def sleep(self, name: str, seconds: float) -> None:
        """Return no sooner than `seconds` of wall time after the first call of that name."""
        ...


async def once_by_mark(engine: Engine, name: str, argument: Json) -> Json:
    """At most once on an engine that only has at least once: a recorded mark says which process may send it."""
    mark = await engine.act(f"{name}/mark", "mark", {}, None)
    return await engine.act(name, "call_tool_once", {**argument, **mark}, None)


def dated(payload: Json) -> dict[str, Any]:
    """A payload with ``born``, the moment of its submission: no clock that is set later moves the run's time."""
    return {**payload, "born": asdict(moment())}


async def carry(context: TunedContext | DefaultContext, payload: Json, chains: Chains) -> dict[str, Any]:
    """Bring a run to its end on its context, and report it: ``status`` and ``detail``."""
    try:
        detail = str(await chains[payload["chain"]](context, payload["plan"]))
        ended = {"status": "completed", "detail": detail}
    except PolicyStop as stop:
        ended = {"status": "completed", "detail": str(stop)}
    except WorkflowFailed as failure:
        ended = {"status": "failed", "detail": str(failure)}
    except context.engine.control:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a chain raises is the end of its run
        ended = {"status": "failed", "detail": f"{type(error).__name__}: {error}"}
    await context.outside("end", "report_end", ended, PATIENCE)
    return ended


class _Context:
    """What both contexts have in common."""

    def __init__(self, engine: Engine, payload: Json, time_scale: float) -> None:
        self.run_id = engine.run_id
        self.engine = engine
        self.plan: Json = payload["plan"]
        self.policy = Policy.from_plan(self.plan)
        self._born = payload["born"]
        self._time_scale = time_scale
        self.asks = 0
        """How often the model was asked, of the run's budget."""

    async def outside(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """Carry out an act on the engine, with what every act needs."""
        return await self.engine.act(name, act, self.complete(argument), retry)

    def complete(self, argument: Json) -> dict[str, Any]:
        """An act's argument with the run, its birth and its time-outs."""
        return {
            **argument,
            "run_id": self.run_id,
            "born": self._born,
            "tool_timeout_seconds": self.policy.tool_timeout_seconds,
            "model_timeout_seconds": self.policy.model_timeout_seconds,
        }

    def question_for_model(self, request: ModelRequest, messages: list[Any]) -> dict[str, Any]:
        """The argument of ``ask_model``."""
        asked = {"step": request.step, "messages": [], "schema": request.schema, "tools": request.tools}
        return {"request": asked, "messages": messages, "model": self.plan["model"]}

    async def ask_human(self, name: str, question: Question) -> Decision:
        """A person's decision; see the protocol."""
        request_id = idempotency_key(self.run_id, name)
        asked = {"request_id": request_id, "question": asdict(question)}
        await self.outside(f"{name}/ask", "ask_person", asked, PATIENCE)
        return Decision.from_json(await self.engine.decision(request_id))

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait; see the protocol."""
        await self.engine.sleep(name, seconds * self._time_scale)

    async def now(self, name: str) -> float:
        """The time; see the protocol."""
        return float((await self.outside(name, "look_at_clock", {}, None))["unix_seconds"])

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        """Several calls; see the protocol."""
        return await (side_by_side(calls) if self.engine.side_by_side else one_after_another(calls))


class TunedContext(_Context):
    """The durable context with the shared rules, as the minimal runtime keeps them."""

    def __init__(self, engine: Engine, payload: Json, time_scale: float) -> None:
        super().__init__(engine, payload, time_scale)
        self._boundary = Boundary(self.plan)

    async def model(self, name: str, request: ModelRequest) -> Json:
        """The model's reply; see the protocol."""
        messages = list(request.messages)
        rejected, problem = 0, ""
        for number in range(1, 1_000_000):
            spent = ""
            if rejected >= self.policy.malformed_attempts:
                spent = "malformed_attempts"
            elif self.asks >= self.policy.model_calls_max:
                spent = "model_calls_max"
            else:
                self.asks += 1
                try:
                    got = await self.outside(
                        f"{name}/{number}",
                        "ask_model",
                        self.question_for_model(request, messages),
                        self.policy.budget,
                    )
                except Spent as error:
                    spent, problem = "attempts", str(error)
                else:
                    if "message" in got:
                        return dict(got["message"])
                    rejected, problem = rejected + 1, got["rejected"]
                    messages = repair_messages(request, problem)
            if spent:
                message = await self._answer_for_model(f"{name}/halt {number}", request, spent, problem)
                if message is not None:
                    return message
                rejected = 0
        raise AssertionError("unreachable")

    async def _answer_for_model(self, name: str, request: ModelRequest, spent: str, problem: str) -> Json | None:
        """A person's answer in the model's place, None where the model is to be asked again."""
        question = Question(
            kind="budget",
            step=request.step,
            summary=f"the model was asked too often in step {request.step} ({spent}): {problem}",
            evidence={"budget": spent, "problem": problem, "asks_of_the_run": self.asks},
        )
        decision = await self.ask_human(name, question)
        if decision.decision == "stop":
            raise WorkflowFailed(f"{request.step}: a person stopped the run; {problem}")
        if spent == "model_calls_max":
            self.asks = 0
        if decision.decision != "happened":
            return None
        if request.schema is None:
            content = decision.result
            return dict(content) if isinstance(content, dict) else {"role": "assistant", "content": str(content)}
        if schema_problem(decision.result, request.schema):
            return None
        return {"role": "assistant", "content": "", "parsed": decision.result}

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        """The outcome of a tool call; see the protocol."""
        # Whether an approval has expired is looked at by the act, right before it sends.
        refused = self._boundary.check(call, 0.0)
        if refused is not None:
            return refused
        reply = await self._tool(name, call, step, item)
        if reply.by == "policy":
            self._boundary.withdrawn(call)
        else:
            self._boundary.committed(call, reply)
        return reply

    async def _tool(self, name: str, call: ToolCall, step: str, item: int) -> ToolReply:
        spec = self.plan["tools"][call.tool]
        opaque = first_move(spec, in_doubt=True) == "halt"
        argument = {
            "call": asdict(call),
            "spec": spec,
            "key": idempotency_key(self.run_id, name),
            "look": first_move(spec, in_doubt=True) == "look",
            "checked": True,
        }
        problem, in_doubt = "", False
        for number in range(1, 1_000_000):
            part = name if number == 1 else f"{name}~{number}"
            if opaque:
                got = await self._at_most_once(part, argument)
            else:
                try:
                    got = await self.outside(part, "call_tool", argument, self.policy.budget)
                except Spent as error:
                    got = {"spent": str(error)}
            if "reply" in got:
                return ToolReply(**got["reply"])
            in_doubt = "in_doubt" in got or (not opaque and spec["effect"] == "write")
            problem = str(got.get("in_doubt") or got.get("spent"))
            kind = "in_doubt" if "in_doubt" in got else "budget"
            question = Question(
                kind=kind,
                step=step,
                item=item,
                summary=f"{call.tool} in step {step} {'may have happened' if in_doubt else 'failed'}: {problem}",
                tool=call.tool,
                arguments=call.arguments,
                evidence={"in_doubt": in_doubt, "idempotency": spec.get("idempotency", "none"), "problem": problem},
            )
            decision = await self.ask_human(f"{part}/halt", question)
            if decision.decision == "stop":
                raise WorkflowFailed(f"{step}: a person stopped the run; {problem}")
            if decision.decision == "happened" and not unexpected_result(spec, decision.result):
                return ToolReply(ok=True, result=decision.result, by="human")
        raise AssertionError("unreachable")

    async def _at_most_once(self, name: str, argument: Json) -> Json:
        """The result of an opaque call: ``reply``, ``in_doubt``, or ``spent`` where it surely has not happened."""
        failures = 0
        while True:
            part = f"{name}/{failures}" if failures else name
            key = idempotency_key(self.run_id, part)
            got = await self.engine.once(part, self.complete({**argument, "key": key}))
            if "again" not in got:
                return got
            failures += 1
            if failures >= self.policy.attempts:
                return {"spent": got["again"]}
            # No draw of chance here: a workflow has to do the same at a replay.
            wait = backoff_seconds(self.policy.budget, failures, got.get("retry_after_seconds"), 1.0)
            await self.engine.sleep(f"{part}/wait", wait)


class DefaultContext(_Context):
    """The durable context as quick-starts have it: every call a step, with whatever the engine does by default.

    `stable_keys` says whether the quick-start derives an idempotency key from the run (so that it is the same when
    the step is carried out again) or leaves it to the client library, which makes a new one for each call.
    """

    def __init__(self, engine: Engine, payload: Json, time_scale: float, *, stable_keys: bool = False) -> None:
        super().__init__(engine, payload, time_scale)
        self._stable_keys = stable_keys

    async def model(self, name: str, request: ModelRequest) -> Json:
        """The model's reply, asked for again where it is not fit to be used."""
        messages, problem = list(request.messages), ""
        for number in range(1, self.policy.malformed_attempts + 1):
            self.asks += 1
            if self.asks > self.policy.model_calls_max:
                raise WorkflowFailed(f"{name}: the model was asked too often")
            try:
                got = await self.outside(
                    f"{name}/{number}", "ask_model", self.question_for_model(request, messages), None
                )
            except Spent as error:
                raise WorkflowFailed(f"{name}: {error}") from error
            if "message" in got:
                return dict(got["message"])
            problem = got["rejected"]
            messages = repair_messages(request, problem)
        raise WorkflowFailed(f"{name}: {problem}")

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        """The outcome of a tool call that was made in one step."""
        argument = {
            "call": asdict(call),
            "spec": self.plan["tools"].get(call.tool, {}),
            "key": idempotency_key(self.run_id, name) if self._stable_keys else "",
            "look": False,
            "checked": False,
        }
        try:
            got = await self.outside(name, "call_tool", argument, None)
        except Spent as error:
            raise WorkflowFailed(f"{step}: {call.tool}: {error}") from error
        return ToolReply(**got["reply"])
