"""What a workflow does outside, as acts over plain JSON: the body of every engine's step, task, activity or run.

An act may be carried out in another process than the one that asked for it, and again after a crash. It never retries
by itself: it raises `TryAgain`, and trying again is the engine's affair.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from kintsugi.runtime.clock import Moment, RunClock
from kintsugi.runtime.protocol import ModelRequest, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import Outcome, Rejected, accept_reply, refusal, unexpected_result
from kintsugi.runtime.services import Endpoints, Services, Unanswered

__all__ = ["ACTS", "Acts", "TryAgain"]

Json = Mapping[str, Any]

ACTS = ("ask_model", "call_tool", "mark", "call_tool_once", "ask_person", "report_end", "look_at_clock")
"""The acts by their names; each is a method of `Acts` from a JSON object to a JSON object."""


class TryAgain(Exception):
    """An attempt came to nothing, and another one may be made, after `retry_after_seconds` where that was asked for."""

    def __init__(self, problem: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_seconds = retry_after_seconds


class Acts:
    """The acts of one worker process. Make it in the process and event loop that uses it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._endpoints = Endpoints.from_environment(environment)
        self._services: dict[tuple[float, float], Services] = {}
        self._incarnation = uuid.uuid4().hex
        self._begun: set[str] = set()

    async def close(self) -> None:
        """Close every connection."""
        for services in self._services.values():
            await services.close()

    async def perform(self, act: str, argument: Json, *, repeat: bool | None = None) -> dict[str, Any]:
        """Carry out an act by its name. Raises TryAgain.

        `repeat` says whether an earlier attempt of the same may have been begun; None where the engine can't tell.
        """
        if act == "call_tool":
            return await self.call_tool(argument, repeat=repeat)
        method: Callable[[Json], Awaitable[dict[str, Any]]] = getattr(self, act)
        return await method(argument)

    def _to(self, argument: Json) -> Services:
        timeouts = (float(argument["tool_timeout_seconds"]), float(argument["model_timeout_seconds"]))
        if timeouts not in self._services:
            self._services[timeouts] = Services(
                self._endpoints, tool_timeout_seconds=timeouts[0], model_timeout_seconds=timeouts[1]
            )
        return self._services[timeouts]

    async def ask_model(self, argument: Json) -> dict[str, Any]:
        """``message``: a reply fit to be recorded; or ``rejected``: why it was turned down. Raises TryAgain."""
        request = ModelRequest(**argument["request"])
        try:
            choice = await self._to(argument).model(
                argument["run_id"], request, list(argument["messages"]), argument["model"]
            )
            return {"message": accept_reply(request, choice)}
        except Rejected as error:
            return {"rejected": str(error)}
        except Unanswered as error:
            raise TryAgain(str(error), error.retry_after_seconds) from error

    async def call_tool(self, argument: Json, *, repeat: bool | None) -> dict[str, Any]:
        """``reply``: what came of a call that may be made again. Raises TryAgain.

        With a stable key a repeat is harmless. One that can be looked for is looked for before it is sent, unless
        this is known to be the first attempt.
        """
        call, spec = ToolCall(**argument["call"]), argument["spec"]
        services, key = self._to(argument), argument["key"] or uuid.uuid4().hex
        if argument["look"] and repeat is not False:
            try:
                found = await services.find_effect(argument["run_id"], call.tool, key)
            except Unanswered as error:
                raise TryAgain(str(error), error.retry_after_seconds) from error
            if found is not None and not unexpected_result(spec, found.result):
                return {"reply": asdict(found)}
        refused = refusal(spec, call, _now(argument)) if argument["checked"] else ""
        if refused:
            return {"reply": asdict(ToolReply(ok=False, status=0, error=refused, by="policy"))}
        outcome = await self._send(services, argument["run_id"], call, spec, key)
        if outcome.retryable:
            raise TryAgain(outcome.reply.error, outcome.retry_after_seconds)
        return {"reply": asdict(outcome.reply)}

    async def mark(self, argument: Json) -> dict[str, Any]:
        """``incarnation``: recorded before a call that must not be made twice, it tells later who was to make it."""
        return {"incarnation": self._incarnation}

    async def call_tool_once(self, argument: Json) -> dict[str, Any]:
        """What came of a call that must not be made twice.

        ``reply``; or ``in_doubt``: it may or may not have happened; or ``again``: it surely has not, with
        ``retry_after_seconds``. Where `argument` holds the ``incarnation`` of a mark, only that process sends it, once.
        """
        call, spec = ToolCall(**argument["call"]), argument["spec"]
        marked = argument.get("incarnation")
        if marked is not None:
            if marked != self._incarnation or argument["key"] in self._begun:
                return {"in_doubt": "the worker that was to send it died, or was cut off"}
            self._begun.add(argument["key"])
        refused = refusal(spec, call, _now(argument))
        if refused:
            return {"reply": asdict(ToolReply(ok=False, status=0, error=refused, by="policy"))}
        outcome = await self._send(self._to(argument), argument["run_id"], call, spec, argument["key"])
        if outcome.kind == "unknown":
            return {"in_doubt": outcome.reply.error}
        if outcome.retryable:
            return {"again": outcome.reply.error, "retry_after_seconds": outcome.retry_after_seconds}
        return {"reply": asdict(outcome.reply)}

    @staticmethod
    async def _send(services: Services, run_id: str, call: ToolCall, spec: Json, key: str) -> Outcome:
        kind = spec.get("idempotency") if spec.get("effect") == "write" else ""
        outcome = await services.tool(
            run_id, call, key=key if kind == "key" else None, reference=key if kind == "lookup" else None
        )
        problem = unexpected_result(spec, outcome.reply.result) if outcome.kind == "done" else ""
        if problem:
            return Outcome("unknown", replace(outcome.reply, ok=False, error=problem), retryable=True)
        return outcome

    async def ask_person(self, argument: Json) -> dict[str, Any]:
        """Post a question; the same `request_id` again is no new one. Raises TryAgain."""
        question = Question(**argument["question"])
        try:
            await self._to(argument).ask(argument["run_id"], argument["request_id"], question)
        except Unanswered as error:
            raise TryAgain(str(error), error.retry_after_seconds) from error
        return {}

    async def report_end(self, argument: Json) -> dict[str, Any]:
        """Say how the run ended. Raises TryAgain."""
        try:
            await self._to(argument).report_end(argument["run_id"], argument["status"], argument["detail"])
        except Unanswered as error:
            raise TryAgain(str(error), error.retry_after_seconds) from error
        return {}

    async def look_at_clock(self, argument: Json) -> dict[str, Any]:
        """``unix_seconds``: the time."""
        return {"unix_seconds": _now(argument)}


def _now(argument: Json) -> float:
    return RunClock(Moment(**argument["born"])).now()
