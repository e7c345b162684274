"""The default profile's workflow: an entrypoint whose calls are tasks, as the functional API's pages show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphBubbleUp
from langgraph.func import entrypoint, task
from langgraph.pregel import Pregel
from langgraph.types import interrupt

from kintsugi.runtime.engines.acts import Acts
from kintsugi.runtime.engines.durable import Chains, DefaultContext, Spent, carry, once_by_mark
from kintsugi.runtime.engines.langgraph_graph import retry_policy
from kintsugi.runtime.rules import Budget

__all__ = ["workflow"]

Json = Mapping[str, Any]


class _Tasks:
    """A run whose acts are tasks. LangGraph tells them apart by their order."""

    control: tuple[type[BaseException], ...] = (GraphBubbleUp,)
    side_by_side = False

    def __init__(self, run_id: str, acts: Acts | None) -> None:
        self.run_id = run_id
        self._acts = acts

    async def act(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """The result of a task; see `Engine`. Without a policy LangGraph tries it once."""
        assert self._acts is not None
        as_task: Any = task(name=act, retry_policy=retry_policy(retry) if retry else None)
        try:
            result: Json = await as_task(self._acts.perform)(act, dict(argument))
        except GraphBubbleUp:
            raise
        except Exception as error:
            raise Spent(str(error)) from error
        return result

    async def once(self, name: str, argument: Json) -> Json:
        """The result of a task that is begun at most once; see `Engine`."""
        return await once_by_mark(self, name, argument)

    async def decision(self, request_id: str) -> Json:
        """Pause until a person has decided. The worker that carries the run brings the decision."""
        decision: Json = interrupt({"request_id": request_id})
        return decision

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait in a task; after a crash the wait begins again."""
        as_task: Any = task(name="sleep")
        await as_task(asyncio.sleep)(seconds)


def workflow(
    saver: BaseCheckpointSaver[Any], chains: Chains, acts: Acts | None, time_scale: float
) -> Pregel[Any, Any, Any, Any]:
    """The entrypoint; its input is ``run_id`` and ``payload``, and it returns how the run ended.

    Without acts it is only good for looking at a run's state.
    """

    @entrypoint(checkpointer=saver)
    async def run(given: dict[str, Any]) -> dict[str, Any]:
        payload = given["payload"]
        context = DefaultContext(_Tasks(given["run_id"], acts), payload, time_scale)
        return await carry(context, payload, chains)

    return run
