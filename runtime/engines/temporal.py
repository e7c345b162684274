"""The durable context on Temporal: workflows that replay, activities for what is done outside, signals, timers.

One workflow type carries any chain. Every act is an activity of the same name; a decision is a signal, and a wait is a
durable timer. `TUNED` is set up as the documentation advises, `DEFAULT` as the money-transfer tutorial does it, and
`LOCAL` is the tuned profile with local activities for what may be repeated.

A server serves many state directories: each has a task queue of its own, and its workflows' ids begin with its name.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorAutoscaling, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from kintsugi.runtime.engines.acts import ACTS, Acts, TryAgain
from kintsugi.runtime.engines.durable import Chains, dated
from kintsugi.runtime.engines.temporal_workflow import (
    CARRIER,
    PASSED_THROUGH,
    Carried,
    Carrier,
    Execute,
    local_act,
    tuned_act,
    tutorial_act,
)

__all__ = ["ADDRESS", "DEFAULT", "LOCAL", "TUNED", "Profile"]

Json = Mapping[str, Any]
Answer = TypeVar("Answer")

ADDRESS = "KINTSUGI_TEMPORAL_ADDRESS"
"""The environment variable that says where the server is, as ``host:port``."""
NAMESPACE = "default"

HEARTBEAT_SECONDS = 0.5
STICKY_TIMEOUT = timedelta(seconds=1)
"""How long a workflow task waits for the worker that has the workflow cached. After the death of a worker that was at
an activity, the result's task waits so once more; to be wrong about it costs a replay, and nothing else."""
ACTIVITIES_AT_ONCE = 10
"""In one worker. What it has taken is on the clock of a time-out, until the server has heard of its end; what it leaves
in the task queue is not."""
TASK_TIMEOUT = timedelta(seconds=2)
"""How long a worker may take over a workflow task, and so how long one that a dead worker had taken is waited for."""


# --- activities ---------------------------------------------------------------------------------------------


def _activities(acts: Acts, profile: Profile) -> list[Callable[..., Any]]:
    """An activity for each act, under its name."""
    return [_as_activity(acts, name, profile) for name in ACTS]


def _as_activity(acts: Acts, name: str, profile: Profile) -> Callable[..., Any]:
    @activity.defn(name=name)
    async def perform(argument: dict[str, Any]) -> dict[str, Any]:
        info = activity.info()
        # The server counts an attempt before a worker has it, so that a first one has nothing before it. A local
        # activity's count begins anew when its worker dies.
        repeat = None if info.is_local else info.attempt > 1
        if not profile.tuned:
            return await acts.perform(name, argument, repeat=repeat)
        beating = asyncio.create_task(_keep_beating())
        try:
            return await acts.perform(name, argument, repeat=repeat)
        except TryAgain as error:
            later = error.retry_after_seconds
            delay = timedelta(seconds=later) if later else None
            raise ApplicationError(str(error), type="TryAgain", next_retry_delay=delay) from error
        finally:
            beating.cancel()

    return perform


async def _keep_beating() -> None:
    """The time-out runs from the activity's start, so that a short one needs no heartbeat at all."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        activity.heartbeat()


# --- clients and workers ------------------------------------------------------------------------------------


@dataclass
class _Connection:
    """The one connection of this process to the server, on an event loop of its own; made when it is first used."""

    _loop: asyncio.AbstractEventLoop | None = None
    _client: asyncio.Task[Client] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    submitted: dict[str, set[str]] = field(default_factory=dict)
    """The workflow ids of each state directory, for its end."""

    def run(self, verb: Callable[[Client], Coroutine[Any, Any, Answer]]) -> Answer:
        """What a verb returns, or raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="temporal-client", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(self._call(verb), self._loop).result()

    async def _call(self, verb: Callable[[Client], Coroutine[Any, Any, Answer]]) -> Answer:
        if self._client is None or (self._client.done() and self._client.exception() is not None):
            # A task, so that of several first calls one connects and all wait for it.
            self._client = asyncio.create_task(Client.connect(os.environ[ADDRESS], namespace=NAMESPACE))
        return await verb(await asyncio.shield(self._client))


_CONNECTION = _Connection()


@dataclass(frozen=True)
class Profile:
    """One way to use Temporal: the verbs of a SUT. `execute` does an act that may be repeated."""

    tuned: bool
    execute: Execute

    def provision(self, state_dir: str) -> None:
        """Nothing is to be set up: a task queue is there as soon as it is named."""

    def submit(self, state_dir: str, run_id: str, payload: Json) -> None:
        """Start a run's workflow; the same again changes nothing."""
        _CONNECTION.submitted.setdefault(state_dir, set()).add(_workflow_id(state_dir, run_id))
        _CONNECTION.run(lambda client: self._start(client, state_dir, run_id, payload))

    async def _start(self, client: Client, state_dir: str, run_id: str, payload: Json) -> None:
        settings: dict[str, Any] = {}
        if self.tuned:
            settings["task_timeout"] = TASK_TIMEOUT
            settings["id_reuse_policy"] = WorkflowIDReusePolicy.REJECT_DUPLICATE
            settings["id_conflict_policy"] = WorkflowIDConflictPolicy.USE_EXISTING
        with suppress(WorkflowAlreadyStartedError):
            await client.start_workflow(
                Carried.run,
                args=[run_id, dated(payload)],
                id=_workflow_id(state_dir, run_id),
                task_queue=_queue(state_dir),
                **settings,
            )

    def decide(self, state_dir: str, run_id: str, request_id: str, decision: Json) -> None:
        """Signal a decision; when this returns it is in the workflow's history. A run that has ended needs none."""
        _CONNECTION.run(lambda client: _signal(client, _workflow_id(state_dir, run_id), request_id, decision))

    def status(self, state_dir: str, run_id: str) -> dict[str, Any]:
        """``state``: completed, failed, running, waiting or unknown."""
        return {"state": _CONNECTION.run(lambda client: _state(client, _workflow_id(state_dir, run_id)))}

    def retire(self, state_dir: str) -> None:
        """Terminate what is still open."""
        submitted = _CONNECTION.submitted.pop(state_dir, set())
        _CONNECTION.run(lambda client: _terminate(client, submitted))

    async def work(self, environment: Mapping[str, str], chains: Chains) -> None:
        """Be a worker until killed. Raises RuntimeError or RPCError where the server can't be used."""
        time_scale = float(environment.get("KINTSUGI_TIME_SCALE", "1"))
        CARRIER[:] = [Carrier(self.tuned, self.execute, chains, time_scale)]
        client = await Client.connect(environment[ADDRESS], namespace=NAMESPACE, identity=_identity(environment))
        acts = Acts(environment)
        settings: dict[str, Any] = {}
        if self.tuned:
            settings["sticky_queue_schedule_to_start_timeout"] = STICKY_TIMEOUT
            settings["max_heartbeat_throttle_interval"] = timedelta(seconds=HEARTBEAT_SECONDS)
            settings["max_concurrent_activities"] = ACTIVITIES_AT_ONCE
            settings["workflow_task_poller_behavior"] = PollerBehaviorAutoscaling()
            settings["activity_task_poller_behavior"] = PollerBehaviorAutoscaling()
        worker = Worker(
            client,
            task_queue=_queue(environment["KINTSUGI_STATE_DIR"]),
            workflows=[Carried],
            activities=_activities(acts, self),
            workflow_runner=SandboxedWorkflowRunner(
                restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
            ),
            **settings,
        )
        try:
            await worker.run()
        finally:
            await acts.close()


def _queue(state_dir: str) -> str:
    return f"kintsugi-{hashlib.sha256(state_dir.encode()).hexdigest()[:16]}"


def _workflow_id(state_dir: str, run_id: str) -> str:
    return f"{_queue(state_dir)}-{run_id}"


def _identity(environment: Mapping[str, str]) -> str:
    return f"{environment.get('KINTSUGI_WORKER_ID', 'worker')}-{os.getpid()}"


async def _signal(client: Client, workflow_id: str, request_id: str, decision: Json) -> None:
    handle = client.get_workflow_handle(workflow_id)
    try:
        await handle.signal(Carried.decide, args=[request_id, dict(decision)])
    except RPCError as error:
        # Not found is also what a workflow that has ended says.
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        await handle.describe()


async def _state(client: Client, workflow_id: str) -> str:
    handle: WorkflowHandle[Any, dict[str, Any]] = client.get_workflow_handle(workflow_id)
    try:
        told = await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return "unknown"
        raise
    if told.status is WorkflowExecutionStatus.RUNNING:
        raw = told.raw_description
        return "running" if raw.pending_activities or raw.HasField("pending_workflow_task") else "waiting"
    if told.status is WorkflowExecutionStatus.COMPLETED:
        return str((await handle.result())["status"])
    return "failed"


async def _terminate(client: Client, workflow_ids: Iterable[str]) -> None:
    for workflow_id in workflow_ids:
        try:
            await client.get_workflow_handle(workflow_id).terminate("nobody waits for it any more")
        except RPCError as error:
            # So it says of one that has ended.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


TUNED = Profile(tuned=True, execute=tuned_act)
DEFAULT = Profile(tuned=False, execute=tutorial_act)
LOCAL = Profile(tuned=True, execute=local_act)
