"""LangGraph as a system under test: what a user writes around it to run workflows as a service.

LangGraph is a library. It keeps a checkpoint of each thread, and goes on from there when somebody invokes the thread
again; it has no queue, no lease, no timers and no inbox. So runs are left with the plain supervisor, which also finds
out that a worker is lost, and decisions are kept in files until the worker that carries the run resumes it with them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from kintsugi.runtime.engines import decisions, langgraph_graph, langgraph_tasks
from kintsugi.runtime.engines.acts import Acts
from kintsugi.runtime.engines.durable import Chains, dated
from kintsugi.runtime.engines.langgraph_stores import PostgresStore, SqliteStore, Store
from kintsugi.runtime.engines.supervisor import Supervisor, leave, submitted
from kintsugi.runtime.policy import Policy

__all__ = ["DEFAULT", "TUNED", "TUNED_POSTGRES"]

Json = Mapping[str, Any]
Saver = BaseCheckpointSaver[Any]
Workflow = Pregel[Any, Any, Any, Any]

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.05
"""How often a worker looks for runs that it should carry."""
DECISION_POLL_SECONDS = 0.02
AGAIN_SECONDS = 0.25
"""After how long a run that could not be carried on, because the store failed, is taken up again."""


class _Side(ABC):
    """A profile on a store: the verbs that clients call, and the worker."""

    def __init__(self, store: Store, durability: Literal["sync"] | None) -> None:
        self._store = store
        self.durability = durability
        """None leaves it to LangGraph, which takes ``async``."""

    @abstractmethod
    def workflow(self, saver: Saver, chains: Chains, acts: Acts | None, time_scale: float, plan: Json) -> Workflow:
        """The workflow on a saver; without acts it is only good for looking at a run's state."""

    @abstractmethod
    def ended(self, values: Any) -> Json | None:
        """How a run ended, from its thread's values; None where it has not."""

    def provision(self, state_dir: str) -> None:
        """Make a trial's store."""
        self._store.make(state_dir)

    def retire(self, state_dir: str) -> None:
        """Remove what a trial has left outside its state directory."""
        self._store.drop(state_dir)

    def submit(self, state_dir: str, run_id: str, payload: Json) -> None:
        """Leave a run for the workers."""
        leave(state_dir, run_id, dated(payload))

    def decide(self, state_dir: str, run_id: str, request_id: str, decision: Json) -> None:
        """Keep a decision for the worker that carries the run."""
        decisions.keep(state_dir, run_id, request_id, decision)

    def status(self, state_dir: str, run_id: str) -> Json:
        """The state of a run's thread."""
        with self._store.reader(state_dir) as saver:
            snapshot = self.workflow(saver, {}, None, 1.0, {}).get_state(_config(run_id))
        if not _begun(snapshot):
            return {"state": "running" if run_id in submitted(state_dir) else "unknown"}
        # That nothing is next does not tell: it is so, too, where a node's writes are saved and its checkpoint is not.
        ended = self.ended(snapshot.values)
        if ended is not None:
            return {"state": ended["status"]}
        return {"state": "waiting" if snapshot.interrupts else "running"}

    async def work(self, environment: Mapping[str, str], chains: Chains) -> None:
        """Carry runs until killed."""
        async with self._store.writer(environment["KINTSUGI_STATE_DIR"]) as saver:
            await _Worker(self, saver, environment, chains).run()


class _Tuned(_Side):
    """Each durable call a super-step of a graph."""

    def workflow(self, saver: Saver, chains: Chains, acts: Acts | None, time_scale: float, plan: Json) -> Workflow:
        """The graph, with the retry budget of the plan."""
        return langgraph_graph.workflow(saver, chains, acts, time_scale, Policy.from_plan(plan).budget)

    def ended(self, values: Any) -> Json | None:
        """What the graph's last node has recorded."""
        ended: Json | None = values.get("ended")
        return ended


class _Default(_Side):
    """Each durable call a task of an entrypoint."""

    def workflow(self, saver: Saver, chains: Chains, acts: Acts | None, time_scale: float, plan: Json) -> Workflow:
        """The entrypoint."""
        return langgraph_tasks.workflow(saver, chains, acts, time_scale)

    def ended(self, values: Any) -> Json | None:
        """What the entrypoint has returned."""
        return values if isinstance(values, dict) and "status" in values else None


TUNED = _Tuned(SqliteStore(tuned=True), "sync")
TUNED_POSTGRES = _Tuned(PostgresStore(), "sync")
DEFAULT = _Default(SqliteStore(tuned=False), None)


def _config(run_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run_id}}


def _begun(snapshot: StateSnapshot) -> bool:
    """Whether anything of a thread has been recorded."""
    return snapshot.created_at is not None


class _Worker:
    """One worker process's work."""

    def __init__(self, side: _Side, saver: Saver, environment: Mapping[str, str], chains: Chains) -> None:
        self._side = side
        self._saver = saver
        self._chains = chains
        self._state_dir = environment["KINTSUGI_STATE_DIR"]
        self._time_scale = float(environment.get("KINTSUGI_TIME_SCALE", "1"))
        self._supervisor = Supervisor(self._state_dir, environment["KINTSUGI_WORKER_ID"])
        self._acts = Acts(environment)

    async def run(self) -> None:
        """Take up the runs that are left for the workers, those of lost nodes included, until cancelled."""
        carried: set[str] = set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._supervisor.keep_beating())
                while True:
                    for run_id, path in self._supervisor.due(carried).items():
                        carried.add(run_id)
                        group.create_task(self._carry(run_id, json.loads(path.read_text(encoding="utf-8"))))
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._acts.close()

    async def _carry(self, run_id: str, payload: Json) -> None:
        """Bring a run to its end, as far as it was not brought before."""
        workflow = self._side.workflow(self._saver, self._chains, self._acts, self._time_scale, payload["plan"])
        while True:
            try:
                await self._invoke(workflow, run_id, payload)
            except Exception:
                LOG.exception("run %s was not carried to its end, and is taken up again", run_id)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def _invoke(self, workflow: Workflow, run_id: str, payload: Json) -> None:
        """Begin a thread or go on with it, and resume it with every decision that it pauses for.

        A thread that was cut off is invoked with None. It pauses again where a decision had not been recorded, and
        does nothing where it had come to its end.
        """
        config = _config(run_id)
        begun = _begun(await workflow.aget_state(config))
        given: Any = None if begun else {"run_id": run_id, "payload": payload}
        while True:
            result = await workflow.ainvoke(given, config, durability=self._side.durability)
            pauses = result.get("__interrupt__") if isinstance(result, dict) else None
            if not pauses:
                return
            given = Command(resume=await self._decision(run_id, pauses[0].value["request_id"]))

    async def _decision(self, run_id: str, request_id: str) -> Json:
        while True:
            decision = decisions.kept(self._state_dir, run_id, request_id)
            if decision is not None:
                return decision
            await asyncio.sleep(DECISION_POLL_SECONDS)
