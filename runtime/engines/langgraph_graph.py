"""The tuned profile's workflow: a graph in which every durable call is a super-step of its own.

A node does what is due, and then asks the chain what comes next: it runs the chain from its beginning on the results
that the graph's state holds, up to the first call that has none. That call is the state's next `due`, and the node
routes to the kind of node that does it. With ``durability="sync"`` the result of a call is in the store before the
next one begins. That of a task within a node, or within an entrypoint, is only on its way there.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from kintsugi.runtime.clock import Moment, RunClock
from kintsugi.runtime.engines.acts import Acts, TryAgain
from kintsugi.runtime.engines.durable import PATIENCE, Chains, Spent, TunedContext, carry, once_by_mark
from kintsugi.runtime.rules import Budget

__all__ = ["State", "retry_policy", "workflow"]

Json = Mapping[str, Any]

ATTEMPTS_MAX = 1000
"""RetryPolicy computes the factor to the power of the attempts, and a float overflows at 2 to the 1024."""


class State(TypedDict, total=False):
    """What is recorded of a run at every super-step."""

    run_id: str
    payload: dict[str, Any]
    results: Annotated[dict[str, Any], operator.or_]
    """For each durable call by its name: ``value``, or ``spent``: why it was given up."""
    due: dict[str, Any]
    ended: dict[str, Any]


def retry_policy(budget: Budget) -> RetryPolicy:
    """A budget as LangGraph has it, without its default's jitter, which adds up to a second to the shortest wait."""
    return RetryPolicy(
        initial_interval=budget.base_seconds,
        backoff_factor=2.0,
        max_interval=budget.cap_seconds,
        max_attempts=min(budget.attempts, ATTEMPTS_MAX),
        jitter=False,
        retry_on=TryAgain,
    )


class _Due(Exception):
    """The first call of a chain that has no result yet, and the node that does it."""

    def __init__(self, node: str, name: str, what: Json) -> None:
        super().__init__(name)
        self.node = node
        self.due = {"name": name, **what}


class _Replay:
    """A run on the results it has so far."""

    control: tuple[type[BaseException], ...] = (_Due,)
    side_by_side = False

    def __init__(self, run_id: str, results: Json, clock: RunClock) -> None:
        self.run_id = run_id
        self._results = results
        self._clock = clock

    async def act(self, name: str, act: str, argument: Json, retry: Budget | None) -> Json:
        """The recorded result of an act; see `Engine`."""
        node = "act_patiently" if retry is PATIENCE else "act"
        return self._result(node, f"act {name}", {"act": act, "argument": dict(argument)})

    async def once(self, name: str, argument: Json) -> Json:
        """The recorded result of an act that is carried out at most once; see `Engine`."""
        return await once_by_mark(self, name, argument)

    async def decision(self, request_id: str) -> Json:
        """The recorded decision of a person; see `Engine`."""
        return self._result("ask", f"decision {request_id}", {"request_id": request_id})

    async def sleep(self, name: str, seconds: float) -> None:
        """Pass where it has been waited for; see `Engine`."""
        self._result("sleep", f"sleep {name}", {"until": self._clock.now() + seconds})

    def _result(self, node: str, name: str, what: Json) -> Json:
        got = self._results.get(name)
        if got is None:
            raise _Due(node, name, what)
        if "spent" in got:
            raise Spent(got["spent"])
        value: Json = got["value"]
        return value


def _clock(state: State) -> RunClock:
    return RunClock(Moment(**state["payload"]["born"]))


class _Nodes:
    """The nodes of the graph, as one worker process carries them out."""

    def __init__(self, chains: Chains, acts: Acts | None, time_scale: float) -> None:
        self._chains = chains
        self._acts = acts
        self._time_scale = time_scale

    async def begin(self, state: State) -> Command[str]:
        """Ask the chain for its first call."""
        return await self._go_on(state, {})

    async def act(self, state: State) -> Command[str]:
        """Carry out the act that is due. A retry policy tries it again, which knows nothing of Retry-After."""
        assert self._acts is not None
        due = state["due"]
        try:
            value = await self._acts.perform(due["act"], due["argument"])
        except TryAgain as error:
            await asyncio.sleep(error.retry_after_seconds or 0.0)
            raise
        return await self._done(state, {"value": value})

    async def give_up(self, state: State, error: NodeError) -> Command[str]:
        """Record that an act has been tried as often as it was to; what follows is the chain's affair."""
        return await self._done(state, {"spent": str(error.error)})

    async def ask(self, state: State) -> Command[str]:
        """Pause until a person has decided. The worker that carries the run brings the decision."""
        decision = interrupt({"request_id": state["due"]["request_id"]})
        return await self._done(state, {"value": decision})

    async def sleep(self, state: State) -> Command[str]:
        """Wait until the time that was recorded when the wait began. LangGraph has no timers."""
        await asyncio.sleep(max(0.0, state["due"]["until"] - _clock(state).now()))
        return await self._done(state, {"value": {}})

    async def _done(self, state: State, result: Json) -> Command[str]:
        return await self._go_on(state, {state["due"]["name"]: result})

    async def _go_on(self, state: State, new: Json) -> Command[str]:
        """Record what is new, and go where the chain wants to go from there."""
        engine = _Replay(state["run_id"], {**state.get("results", {}), **new}, _clock(state))
        payload = state["payload"]
        try:
            ended = await carry(TunedContext(engine, payload, self._time_scale), payload, self._chains)
        except _Due as due:
            return Command(update={"results": dict(new), "due": due.due}, goto=due.node)
        return Command(update={"results": dict(new), "ended": ended}, goto=END)


def workflow(
    saver: BaseCheckpointSaver[Any], chains: Chains, acts: Acts | None, time_scale: float, budget: Budget
) -> CompiledStateGraph[State, None, State, State]:
    """The graph, whose acts are tried as often as `budget` says; its input is ``run_id`` and ``payload``.

    Without acts it is only good for looking at a run's state.
    """
    nodes = _Nodes(chains, acts, time_scale)
    builder = StateGraph(State)
    builder.add_node("begin", nodes.begin)
    builder.add_node("act", nodes.act, retry_policy=retry_policy(budget), error_handler=nodes.give_up)
    builder.add_node("act_patiently", nodes.act, retry_policy=retry_policy(PATIENCE), error_handler=nodes.give_up)
    builder.add_node("ask", nodes.ask)
    builder.add_node("sleep", nodes.sleep)
    builder.add_edge(START, "begin")
    return builder.compile(checkpointer=saver)
