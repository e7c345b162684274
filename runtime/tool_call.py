"""A durable tool call: propose, validate, check policy, record the intent, execute, record the result.

After a crash it goes on from its events, and what may have happened is settled the way the tool allows:
repeated with its key, looked for by its client reference, or put to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any

from kintsugi.runtime.calls import Call, next_for_tool
from kintsugi.runtime.carried import Carried
from kintsugi.runtime.protocol import Question, ToolCall, ToolReply, WorkflowFailed
from kintsugi.runtime.rules import (
    Outcome,
    after_attempt,
    arguments_digest,
    backoff_seconds,
    idempotency_key,
    refusal,
    unexpected_result,
)
from kintsugi.runtime.services import Unanswered
from kintsugi.runtime.store import Event

__all__ = ["durable_tool"]

TURNED_AWAY_AT_THE_DOOR = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
}
"""Refusals that say nothing about whether an earlier attempt had got in."""


async def durable_tool(run: Carried, name: str, call: ToolCall, step: str, item: int) -> ToolReply:
    """The outcome of a tool call, done at most as often as the tool's kind of idempotency allows.

    Raises WorkflowFailed when a person stops the run, Fenced when the run is someone else's.
    """
    digest = arguments_digest({"tool": call.tool, "arguments": call.arguments})
    known = run.call(name, digest)
    if not known.began:
        refused = run.boundary.check(call, run.clock.now())
        if refused is not None:
            await run.record(run.event("result", name, digest=digest, step=step, reply=asdict(refused)))
            return refused
    going = _ToolCall(run, name, call, step, item, digest)
    while (known := run.calls.get(name, Call())).end is None:
        await going.advance(known)
    return ToolReply(**known.end["reply"])


class _ToolCall:
    """One call while it is under way; all that matters of it is in the journal."""

    def __init__(self, run: Carried, name: str, call: ToolCall, step: str, item: int, digest: str) -> None:
        self._run = run
        self._name = name
        self._call = call
        self._step = step
        self._item = item
        self._digest = digest
        self._spec: Mapping[str, Any] = run.plan["tools"][call.tool]
        self._key = idempotency_key(run.run_id, name)

    async def advance(self, known: Call) -> None:
        """Do what comes next, and record what came of it."""
        match next_for_tool(known, self._spec, self._run.policy):
            case "answer":
                await self._take_answer(known)
            case "stop":
                raise WorkflowFailed(f"{self._step}: a person stopped the run; {known.problem or 'no reason'}")
            case "halt_in_doubt":
                await self._halt("in_doubt", known)
            case "halt_budget":
                await self._halt("budget", known)
            case "look":
                await self._look(known)
            case "send":
                await self._send(known)

    # --- attempts -----------------------------------------------------------------------------------------

    async def _send(self, known: Call) -> None:
        run, write = self._run, self._spec["effect"] == "write"
        await run.back_off(known.not_before)
        async with run.turn(self._call.tool) as slot:
            # The approval may have expired since it was proposed.
            refused = refusal(self._spec, self._call, run.clock.now())
            if not refused:
                outcome = await self._attempt(known, write=write)
                if outcome.retryable:
                    slot.failed(outcome.retry_after_seconds)
                else:
                    slot.answered()
        if refused:
            await self._withdraw(known, refused)
            return
        outcome = self._believed(known, outcome)
        if after_attempt(outcome, run.policy.budget, known.sends_failed + 1) == "return":
            await run.record(self._result(outcome.reply))
            return
        in_doubt = write and (known.in_doubt or outcome.kind == "unknown")
        wait = backoff_seconds(run.policy.budget, known.sends_failed + 1, outcome.retry_after_seconds, run.means.draw())
        reply = outcome.reply
        await run.record(self._failure("send", outcome.kind, reply.error, reply.status, wait, in_doubt=in_doubt))

    async def _attempt(self, known: Call, *, write: bool) -> Outcome:
        run, keyed = self._run, self._spec.get("idempotency") == "key"
        if write and not known.in_doubt:
            await run.record(
                run.event(
                    "intent",
                    self._name,
                    digest=self._digest,
                    tool=self._call.tool,
                    arguments=self._call.arguments,
                    step=self._step,
                    item=self._item,
                )
            )
        if write and not keyed:
            await run.confirm()
        return await run.means.services.tool(
            run.run_id,
            self._call,
            key=self._key if write and keyed else None,
            reference=self._key if write and self._spec["idempotency"] == "lookup" else None,
        )

    def _believed(self, known: Call, outcome: Outcome) -> Outcome:
        """The outcome as far as it can be believed."""
        if outcome.kind == "done":
            problem = unexpected_result(self._spec, outcome.reply.result)
            if problem:
                return Outcome("unknown", replace(outcome.reply, ok=False, error=problem), retryable=True)
        elif outcome.kind == "refused" and known.in_doubt and outcome.reply.status in TURNED_AWAY_AT_THE_DOOR:
            return replace(outcome, kind="unknown", retryable=True)
        return outcome

    async def _look(self, known: Call) -> None:
        run = self._run
        await run.back_off(known.not_before)
        found, problem, status, retry_after = None, "", 200, None
        async with run.turn(self._call.tool) as slot:
            try:
                found = await run.means.services.find_effect(run.run_id, self._call.tool, self._key)
                slot.answered()
            except Unanswered as error:
                problem, status, retry_after = str(error), error.status, error.retry_after_seconds
                slot.failed(retry_after)
        if found is not None:
            problem = unexpected_result(self._spec, found.result)
        if problem:
            wait = backoff_seconds(run.policy.budget, known.looks_failed + 1, retry_after, run.means.draw())
            await run.record(self._failure("look", "unknown", problem, status, wait, in_doubt=True))
        elif found is not None:
            await run.record(self._result(found))
        else:
            await run.record(run.event("absent", self._name, digest=self._digest))

    async def _withdraw(self, known: Call, refused: str) -> None:
        """The call may no longer be sent; if an earlier attempt may have had an effect, a person is asked."""
        if known.in_doubt:
            await self._halt("in_doubt", replace(known, problem=refused))
            return
        self._run.boundary.withdrawn(self._call)
        await self._run.record(self._result(ToolReply(ok=False, status=0, error=refused, by="policy")))

    # --- a person -----------------------------------------------------------------------------------------

    async def _halt(self, kind: str, known: Call) -> None:
        what = "may or may not have happened" if known.in_doubt else "did not succeed"
        question = Question(
            kind=kind,
            step=self._step,
            item=self._item,
            summary=f"{self._call.tool} in step {self._step} {what}: {known.problem or 'the worker died'}",
            tool=self._call.tool,
            arguments=self._call.arguments,
            evidence={
                "in_doubt": known.in_doubt,
                "idempotency": self._spec.get("idempotency", "none"),
                "key": self._key,
                "attempts": list(known.attempts),
                "budget": "attempts",
            },
        )
        request_id = idempotency_key(self._run.run_id, f"{self._name}/halt {known.questions + 1}")
        await self._run.ask(self._name, request_id, question, self._digest)

    async def _take_answer(self, known: Call) -> None:
        assert known.question is not None
        decision = await self._run.decided(known.question["request_id"])
        data = asdict(decision)
        if decision.decision != "happened":
            await self._run.record(self._run.event("decided", self._name, **data))
            return
        problem = unexpected_result(self._spec, decision.result)
        decided = self._run.event("decided", self._name, **data, problem=problem)
        reply = ToolReply(ok=True, result=decision.result, by="human")
        await self._run.record(decided, *([] if problem else [self._result(reply)]))

    # --- events -------------------------------------------------------------------------------------------

    def _result(self, reply: ToolReply) -> Event:
        return self._run.event("result", self._name, digest=self._digest, step=self._step, reply=asdict(reply))

    def _failure(
        self, act: str, outcome: str, problem: str, status: int, wait_seconds: float, *, in_doubt: bool
    ) -> Event:
        return self._run.event(
            "failed",
            self._name,
            digest=self._digest,
            step=self._step,
            act=act,
            outcome=outcome,
            problem=problem,
            status=status,
            not_before=self._run.clock.now() + wait_seconds,
            in_doubt=in_doubt,
        )
