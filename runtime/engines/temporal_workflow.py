"""The workflow that carries any chain on Temporal, and how each of its acts is done: as an activity, local or not.

Chains and rules are deterministic. This module is passed through the workflow sandbox, and with it everything that
they import: to import that anew for each run would cost more than the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, CancelledError, is_cancelled_exception

from kintsugi.runtime.engines.durable import Chains, DefaultContext, Spent, TunedContext, carry
from kintsugi.runtime.rules import Budget

__all__ = [
    "CARRIER",
    "HEARTBEAT_TIMEOUT",
    "PASSED_THROUGH",
    "TUTORIAL_RETRY",
    "TUTORIAL_TIMEOUT",
    "Carried",
    "Carrier",
    "Execute",
    "local_act",
    "tuned_act",
    "tutorial_act",
]

Json = Mapping[str, Any]
Execute = Callable[[str, str, Json, Budget | None], Awaitable[Json]]
"""Does an act that may be repeated, by its name in the run, the act's name, its argument and its retries."""

PASSED_THROUGH = ("kintsugi", "attr", "attrs", "jinja2", "jsonschema", "markupsafe", "referencing", "rpds")
HEARTBEAT_TIMEOUT = timedelta(seconds=2)
"""An activity whose worker has not been heard of for this long is tried again, by whoever is there."""
MARGIN = timedelta(seconds=2)
"""By how much an activity's time-out exceeds what its requests may take by their own."""
TUTORIAL_TIMEOUT = timedelta(seconds=5)
TUTORIAL_RETRY = RetryPolicy(maximum_attempts=3, maximum_interval=timedelta(seconds=2))
"""Both are the money-transfer tutorial's. What it does not try again, a refusal, is an answer here and no error."""


@dataclass
class Carrier:
    """What the workflows of a worker process need to know."""

    tuned: bool
    execute: Execute
    chains: Chains
    time_scale: float


CARRIER: list[Carrier] = []
"""This process's, set before its worker starts."""


@workflow.defn(name="kintsugi")
class Carried:
    """One run of a chain."""

    def __init__(self) -> None:
        self._decisions: dict[str, dict[str, Any]] = {}

    @workflow.run
    async def run(self, run_id: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Carry the run to its end: ``status`` and ``detail``."""
        carrier = CARRIER[0]
        engine = _Engine(run_id, self._decisions, carrier.execute)
        context: TunedContext | DefaultContext
        if carrier.tuned:
            context = TunedContext(engine, payload, carrier.time_scale)
        else:
            context = DefaultContext(engine, payload, carrier.time_scale, stable_keys=True)
        return await carry(context, payload, carrier.chains)

    @workflow.signal
    def decide(self, request_id: str, decision: dict[str, Any]) -> None:
        """Keep a person's decision; one that is delivered again changes nothing."""
        self._decisions.setdefault(request_id, decision)


class _Engine:
    """One run's primitives, called from within its workflow."""

    control: tuple[type[BaseException], ...] = (asyncio.CancelledError, CancelledError)
    side_by_side = True

    def __init__(self, run_id: str, decisions: Mapping[str, Json], execute: Execute) -> None:
        self.run_id = run_id
        self._decisions = decisions
        self._execute = execute

    async def act(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """An activity, which the server has tried again as the policy says, also after a worker's death."""
        try:
            return await self._execute(name, act, argument, retry)
        except ActivityError as error:
            raise Spent(_problem(error)) from error

    async def once(self, name: str, argument: Json) -> Json:
        """An activity of one attempt: the server hands it out once, and a time-out leaves it in doubt."""
        try:
            return await _activity(name, "call_tool_once", argument, RetryPolicy(maximum_attempts=1))
        except ActivityError as error:
            return {"in_doubt": _problem(error)}

    async def decision(self, request_id: str) -> Json:
        """Wait for the signal that brings it."""
        await workflow.wait_condition(lambda: request_id in self._decisions)
        return self._decisions[request_id]

    async def sleep(self, name: str, seconds: float) -> None:
        """A durable timer."""
        await workflow.sleep(seconds, summary=name)


def _problem(error: ActivityError) -> str:
    """Why an activity has come to nothing. Raises CancelledError where that is because its workflow was cancelled."""
    if is_cancelled_exception(error):
        raise CancelledError("the workflow was cancelled") from error
    return str(error.cause or error)


def _longest(argument: Json) -> timedelta:
    """Longer than an act may take: a tool is asked at most twice in one, the model once."""
    longest = max(2 * float(argument["tool_timeout_seconds"]), float(argument["model_timeout_seconds"]))
    return timedelta(seconds=longest) + MARGIN


def _policy(retry: Budget | None) -> RetryPolicy:
    if retry is None:
        return RetryPolicy()
    return RetryPolicy(
        initial_interval=timedelta(seconds=retry.base_seconds),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=retry.cap_seconds),
        maximum_attempts=retry.attempts,
    )


async def _activity(name: str, act: str, argument: Json, policy: RetryPolicy) -> Json:
    result: Json = await workflow.execute_activity(
        act,
        dict(argument),
        result_type=dict[str, Any],
        start_to_close_timeout=_longest(argument),
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=policy,
        summary=name,
    )
    return result


async def tuned_act(name: str, act: str, argument: Json, retry: Budget | None) -> Json:
    """Do an act as an activity that heartbeats."""
    return await _activity(name, act, argument, _policy(retry))


async def local_act(name: str, act: str, argument: Json, retry: Budget | None) -> Json:
    """Do an act as a local activity, in this worker's own process.

    Its result is recorded with the workflow task that it belongs to. What the model says is another thing each time,
    and so has to be recorded before anything rests on it.
    """
    if act == "ask_model":
        return await tuned_act(name, act, argument, retry)
    result: Json = await workflow.execute_local_activity(
        act,
        dict(argument),
        result_type=dict[str, Any],
        start_to_close_timeout=_longest(argument),
        retry_policy=_policy(retry),
        summary=name,
    )
    return result


async def tutorial_act(_name: str, act: str, argument: Json, retry: Budget | None) -> Json:
    """Do an act as an activity with the tutorial's options."""
    result: Json = await workflow.execute_activity(
        act,
        dict(argument),
        result_type=dict[str, Any],
        start_to_close_timeout=TUTORIAL_TIMEOUT,
        retry_policy=TUTORIAL_RETRY if retry is None else _policy(retry),
    )
    return result
