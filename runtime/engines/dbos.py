"""The durable context on DBOS Transact: a run is a workflow on a durable queue, every act one of its steps.

DBOS is a library inside the worker, with its state in a SQLite file or a PostgreSQL database. Runs and decisions come
in through a `DBOSClient`. A worker that is started again recovers its own runs: that is DBOS. The runs of a worker that
does not come back are resumed by another one, which the plain supervisor tells it to do: that is what its users write
who do not have its Conductor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kintsugi.runtime.engines.acts import Acts, TryAgain
from kintsugi.runtime.engines.dbos_store import Postgres, Sqlite, Store
from kintsugi.runtime.engines.durable import (
    Chains,
    DefaultContext,
    Spent,
    TunedContext,
    carry,
    dated,
    once_by_mark,
)
from kintsugi.runtime.engines.supervisor import BEAT_SECONDS, DETECTION_SECONDS, Supervisor
from kintsugi.runtime.rules import Budget

# After `dbos_store`, which finds it a SQLite that is new enough.
from dbos import DBOS, DBOSClient, DBOSConfig, StepOptions, error  # isort: skip
from sqlalchemy.exc import SQLAlchemyError  # isort: skip

__all__ = ["DEFAULT", "POSTGRES", "TUNED", "Engine", "Side", "step_options"]

Json = Mapping[str, Any]
Workflow = Callable[[Json], Awaitable[Json]]

APPLICATION = "kintsugi"
VERSION = "1"
"""Pinned: it is a hash of the workflows' code otherwise, and a worker only recovers runs of its own version."""
WORKFLOW = "carry"
QUEUE = "runs"
POLL_SECONDS = 0.1
"""How often a tuned worker looks for runs and messages; by default once a second."""
PERSON_SECONDS = 30 * 24 * 3600.0
"""How long a tuned run waits for a message before it waits again; by default a minute, and then there is none."""
STATES = {"SUCCESS": "completed", "ERROR": "failed", "CANCELLED": "failed", "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed"}


class Engine:
    """One run: a DBOS workflow that is being executed."""

    control: tuple[type[BaseException], ...] = (
        error.DBOSWorkflowCancelledError,
        error.DBOSWorkflowConflictIDError,
        # Its system database failed it. Whether the workflow has failed too is DBOS's to say.
        SQLAlchemyError,
    )
    side_by_side = False

    def __init__(self, acts: Acts, person_seconds: float | None) -> None:
        self.run_id = str(DBOS.workflow_id)
        self._acts = acts
        self._person_seconds = person_seconds

    async def act(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """A step, retried by DBOS; see `durable.Engine`."""
        try:
            return await DBOS.run_step_async(step_options(name, retry), self._perform, act, argument)
        except (TryAgain, error.DBOSMaxStepRetriesExceeded) as problem:
            raise Spent(str(problem)) from problem

    async def _perform(self, act: str, argument: Json) -> Json:
        """One attempt. DBOS knows no Retry-After, so the attempt that was told to wait does, before it fails."""
        try:
            return await self._acts.perform(act, argument)
        except TryAgain as problem:
            status = DBOS.step_status
            attempts = (status.max_attempts if status else None) or 1
            if problem.retry_after_seconds and status is not None and (status.current_attempt or 0) + 1 < attempts:
                await asyncio.sleep(problem.retry_after_seconds)
            raise

    async def once(self, name: str, argument: Json) -> Json:
        """Steps are tried at least once, so a recorded mark it is; see `durable.Engine`."""
        return await once_by_mark(self, name, argument)

    async def decision(self, request_id: str) -> Json:
        """A message whose topic is the request; see `durable.Engine`."""
        if self._person_seconds is None:
            message = await DBOS.recv_async(request_id)
            if message is None:
                raise Spent("nobody answered within DBOS's default of 60 s")
            return dict(message)
        while (message := await DBOS.recv_async(request_id, self._person_seconds)) is None:
            pass
        return dict(message)

    async def sleep(self, name: str, seconds: float) -> None:
        """A durable sleep; see `durable.Engine`."""
        await DBOS.sleep_async(seconds)


def step_options(name: str, retry: Budget | None) -> StepOptions:
    """How DBOS is to try a step again: not at all where nothing is said, as it does by default.

    Its waits grow by a factor up to an hour, which can't be set. Where they would grow past the budget's cap, they are
    the same each time.
    """
    if retry is None:
        return {"name": name}
    doubles = retry.base_seconds * 2.0 ** min(retry.attempts - 2, 60) <= retry.cap_seconds
    return {
        "name": name,
        "retries_allowed": True,
        "max_attempts": retry.attempts,
        "interval_seconds": retry.base_seconds if doubles else retry.cap_seconds / 4,
        "backoff_rate": 2.0 if doubles else 1.0,
    }


class Side:
    """The verbs and the worker. `tuned` is the profile; `store` is where the system databases are."""

    def __init__(self, store: Store, *, tuned: bool) -> None:
        self._store = store
        self._tuned = tuned

    # --- what other processes do ----------------------------------------------------------------------------

    def provision(self, state_dir: str) -> None:
        """Make the system database."""
        self._store.make(state_dir, _register_queue if self._tuned else _leave)

    def retire(self, state_dir: str) -> None:
        """Remove the system database from its server."""
        self._store.drop(state_dir)

    def submit(self, state_dir: str, run_id: str, payload: Json) -> None:
        """Enqueue a workflow whose id is the run's; the same id again is no second one."""
        with self._client(state_dir) as client:
            client.enqueue({"queue_name": QUEUE, "workflow_name": WORKFLOW, "workflow_id": run_id}, dated(payload))

    def decide(self, state_dir: str, run_id: str, request_id: str, decision: Json) -> None:
        """Send a message; it is in the database when this returns, and is so once for each decision's id."""
        with self._client(state_dir) as client:
            client.send(run_id, dict(decision), topic=request_id, idempotency_key=decision["decision_id"])

    def status(self, state_dir: str, run_id: str) -> dict[str, Any]:
        """The workflow's state, as DBOS has recorded it."""
        with self._client(state_dir) as client:
            found = client.list_workflows(workflow_ids=[run_id], load_input=False)
        if not found:
            return {"state": "unknown"}
        if found[0].status == "SUCCESS" and (found[0].output or {}).get("status") == "failed":
            return {"state": "failed"}
        return {"state": STATES.get(found[0].status, "running")}

    @contextmanager
    def _client(self, state_dir: str) -> Iterator[DBOSClient]:
        client = DBOSClient(system_database_url=self._store.url(state_dir, os.environ), application_name=APPLICATION)
        try:
            yield client
        finally:
            client.destroy()

    # --- the worker -----------------------------------------------------------------------------------------

    async def work(self, environment: Mapping[str, str], chains: Chains) -> None:
        """Carry runs until killed. Raises whatever keeps DBOS from running here."""
        state_dir, node = environment["KINTSUGI_STATE_DIR"], environment["KINTSUGI_WORKER_ID"]
        config: DBOSConfig = {
            "name": APPLICATION,
            "application_version": VERSION,
            "system_database_url": self._store.url(state_dir, environment),
        }
        if self._tuned:
            config |= {
                "executor_id": node,
                "notification_listener_polling_interval_sec": POLL_SECONDS,
                "sys_db_idle_transaction_timeout_sec": DETECTION_SECONDS,
                "enable_otlp": False,
                "log_level": "WARNING",
            }
        DBOS(config=config)
        DBOS.workflow(name=WORKFLOW)(self.workflow(environment, chains))
        if self._tuned:
            await _supervised(Supervisor(state_dir, node))
        else:
            await asyncio.to_thread(DBOS.launch)
            await DBOS.register_queue_async(QUEUE)
            await asyncio.Event().wait()

    def workflow(self, environment: Mapping[str, str], chains: Chains) -> Workflow:
        """What a run is: a coroutine from its payload to how it ended."""
        acts = Acts(environment)
        time_scale = float(environment.get("KINTSUGI_TIME_SCALE", "1"))

        async def run(payload: Json) -> Json:
            if self._tuned:
                engine = Engine(acts, PERSON_SECONDS)
                return await carry(TunedContext(engine, payload, time_scale), payload, chains)
            engine = Engine(acts, None)
            return await carry(DefaultContext(engine, payload, time_scale), payload, chains)

        return run


def _register_queue(url: str) -> None:
    client = DBOSClient(system_database_url=url, application_name=APPLICATION)
    try:
        client.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS)
    finally:
        client.destroy()


def _leave(_: str) -> None:
    """Leave a migrated database as it is: the worker registers its queue, as in the quick-start."""


async def _supervised(supervisor: Supervisor) -> None:
    """Let DBOS work, show that this worker lives, and resume the runs of those that have died."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.keep_beating())
        await asyncio.to_thread(DBOS.launch)
        while True:
            for node in supervisor.lost():
                supervisor.adopt(node)
                await _resume_runs_of(node, supervisor)
            await asyncio.sleep(BEAT_SECONDS)


async def _resume_runs_of(node: str, supervisor: Supervisor) -> None:
    """Resume what a lost worker had under way; of several workers that see it lost, one resumes each run.

    DBOS does not ask who resumes a run, so the claim does: on this run as it was last taken off the queue.
    """
    for found in await DBOS.list_workflows_async(status="PENDING", executor_id=node, load_input=False):
        if supervisor.claim(f"{found.workflow_id}@{found.dequeued_at}"):
            await DBOS.resume_workflow_async(found.workflow_id, queue_name=QUEUE)


TUNED = Side(Sqlite(journal="wal"), tuned=True)
DEFAULT = Side(Sqlite(), tuned=False)
POSTGRES = Side(Postgres(), tuned=True)
