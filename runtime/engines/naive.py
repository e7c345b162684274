"""The SUT without a durable runtime: a plain script that keeps its state in memory.

Written as a competent engineer writes one: every call has a time-out and is tried a few times with backoff and
Retry-After, a keyed API gets a fresh key that is reused for the retries of that call (as payment SDKs do by
themselves), and a business error ends the run with a report. What it can't do is remember: restarted by its
supervisor after a crash, it begins again at the top.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kintsugi.runtime.gathering import side_by_side
from kintsugi.runtime.protocol import (
    Decision,
    ModelRequest,
    PolicyStop,
    Question,
    ToolCall,
    ToolReply,
    WorkflowFailed,
)
from kintsugi.runtime.rules import Budget, Rejected, accept_reply, backoff_seconds, repair_messages
from kintsugi.runtime.services import Endpoints, Services, Unanswered

__all__ = ["ScriptContext", "decide", "provision", "status", "submit", "work"]

Chains = Mapping[str, Callable[[Any, Mapping[str, Any]], Awaitable[str]]]

Answer = TypeVar("Answer")

POLL_SECONDS = 0.05
END_ATTEMPTS = 20


class ScriptContext:
    """The durable context's calls, made directly; nothing is remembered across a restart."""

    def __init__(self, run_id: str, plan: Mapping[str, Any], services: Services, time_scale: float) -> None:
        self.run_id = run_id
        self._plan = plan
        self._services = services
        self._time_scale = time_scale
        self._model_calls = 0
        policy = plan["policy"]
        self._budget = Budget(policy["attempts"], policy["backoff_base_seconds"], policy["backoff_cap_seconds"])

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        """Ask the model until a reply is accepted or the budget is spent."""
        messages = list(request.messages)
        failures = malformed = 0
        while True:
            self._model_calls += 1
            if self._model_calls > self._plan["policy"]["model_calls_max"]:
                raise WorkflowFailed(f"{name}: the model was asked too often")
            try:
                choice = await self._services.model(self.run_id, request, messages, self._plan["model"])
                return accept_reply(request, choice)
            except Rejected as error:
                malformed += 1
                if malformed >= self._plan["policy"]["malformed_attempts"]:
                    raise WorkflowFailed(f"{name}: {error}") from error
                messages = repair_messages(request, str(error))
            except Unanswered as error:
                failures += 1
                if failures >= self._budget.attempts:
                    raise WorkflowFailed(f"{name}: {error}") from error
                await self._back_off(failures, error.retry_after_seconds)

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        """Call a tool, a few times if need be, with one idempotency key for all tries."""
        spec = self._plan["tools"].get(call.tool, {})
        key = str(uuid.uuid4())
        failures = 0
        while True:
            outcome = await self._services.tool(
                self.run_id,
                call,
                key=key if spec.get("idempotency") == "key" else None,
                reference=key if spec.get("idempotency") == "lookup" else None,
            )
            if not outcome.retryable:
                return outcome.reply
            failures += 1
            if failures >= self._budget.attempts:
                raise WorkflowFailed(f"{step}: {call.tool}: {outcome.reply.error}")
            await self._back_off(failures, outcome.retry_after_seconds)

    async def ask_human(self, name: str, question: Question) -> Decision:
        """Post a question and poll for its answer for as long as it takes."""
        request_id = str(uuid.uuid4())
        await self._persist(lambda: self._services.ask(self.run_id, request_id, question))
        while True:
            decision = await self._persist(lambda: self._services.decision(self.run_id, request_id))
            if decision is not None:
                return decision
            await asyncio.sleep(POLL_SECONDS)

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait in memory."""
        await asyncio.sleep(seconds * self._time_scale)

    async def now(self, name: str) -> float:
        """The wall clock."""
        return time.time()

    async def gather(self, *calls: Awaitable[Answer]) -> list[Answer]:
        """Side by side, in this process."""
        return await side_by_side(calls)

    async def report_end(self, status: str, detail: str) -> None:
        """Tell how the run ended, trying for a while."""
        await self._persist(lambda: self._services.report_end(self.run_id, status, detail), attempts=END_ATTEMPTS)

    async def _persist(self, attempt: Callable[[], Awaitable[Answer]], attempts: int = END_ATTEMPTS) -> Answer:
        for failures in range(1, attempts):
            try:
                return await attempt()
            except Unanswered as error:
                await self._back_off(failures, error.retry_after_seconds)
        return await attempt()

    async def _back_off(self, failures: int, retry_after_seconds: float | None) -> None:
        await asyncio.sleep(backoff_seconds(self._budget, failures, retry_after_seconds, 1.0))


def provision(state_dir: str) -> None:
    """Make the folder from which the script reads what it is to do."""
    Path(state_dir, "inbox").mkdir(parents=True, exist_ok=True)


def submit(state_dir: str, run_id: str, payload: Mapping[str, Any]) -> None:
    """Leave a run's plan where the script finds it when it starts."""
    path = Path(state_dir, "inbox", f"{run_id}.json")
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(payload), encoding="utf-8")
    partial.replace(path)


def decide(*_: Any) -> None:
    """Not how a script hears of decisions; it polls for them."""
    raise NotImplementedError("the naive script polls for decisions")


def status(*_: str) -> Mapping[str, Any]:
    """A script keeps no record of its runs."""
    return {"state": "unknown"}


async def work(environment: Mapping[str, str], chains: Chains) -> None:
    """Do every run in the inbox, all at once, from the top; return when all have ended.

    They share a process but no fate: where one raises, the others still come to their end.
    """
    endpoints = Endpoints.from_environment(environment)
    time_scale = float(environment.get("KINTSUGI_TIME_SCALE", "1"))
    runs = [_one(*run, chains, endpoints, time_scale) for run in _inbox(environment["KINTSUGI_STATE_DIR"])]
    for outcome in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _inbox(state_dir: str) -> list[tuple[str, Mapping[str, Any]]]:
    paths = sorted(Path(state_dir, "inbox").glob("*.json"))
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


async def _one(
    run_id: str, payload: Mapping[str, Any], chains: Chains, endpoints: Endpoints, time_scale: float
) -> None:
    plan = payload["plan"]
    policy = plan["policy"]
    services = Services(
        endpoints,
        tool_timeout_seconds=policy["tool_timeout_seconds"],
        model_timeout_seconds=policy["model_timeout_seconds"],
    )
    try:
        context = ScriptContext(run_id, plan, services, time_scale)
        try:
            ended = ("completed", await chains[payload["chain"]](context, plan))
        except PolicyStop as stop:
            ended = ("completed", str(stop))
        except WorkflowFailed as failure:
            ended = ("failed", str(failure))
        await context.report_end(*ended)
    finally:
        await services.close()
