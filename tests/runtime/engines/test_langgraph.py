"""LangGraph in one process: what is in its store when, and what is done again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from kintsugi.runtime.engines import langgraph_graph
from kintsugi.runtime.engines.acts import Acts, TryAgain
from kintsugi.runtime.engines.durable import dated
from kintsugi.runtime.engines.langgraph import DEFAULT, TUNED
from kintsugi.runtime.engines.langgraph_stores import SqliteStore
from kintsugi.runtime.protocol import DurableContext, Question
from kintsugi.runtime.rules import Budget

pytestmark = pytest.mark.engines

PLAN = {"tools": {}, "model": "m", "steps": [], "policy": {}}
GIVEN = {"run_id": "r0", "payload": dated({"chain": "clocks", "plan": PLAN})}
CONFIG: Any = {"configurable": {"thread_id": "r0"}}
QUICK = Budget(attempts=3, base_seconds=0.0, cap_seconds=0.0)


class Crash(BaseException):
    """Ends an invocation as the end of its process would: nothing of it goes on."""


class NotedActs(Acts):
    """Acts that only note that they were carried out, and fail as often as they are told to."""

    def __init__(self, failures: int = 0, retry_after_seconds: float | None = None) -> None:
        self.done: list[str] = []
        self.tries = 0
        self.failures, self.retry_after_seconds = failures, retry_after_seconds

    async def perform(self, act: str, argument: Mapping[str, Any], *, repeat: bool | None = None) -> dict[str, Any]:
        self.tries += 1
        if self.tries <= self.failures:
            raise TryAgain("not now", self.retry_after_seconds)
        self.done.append(act)
        return {"unix_seconds": float(len(self.done)), "status": argument.get("status")}


async def clocks(ctx: DurableContext, plan: Mapping[str, Any]) -> str:
    first = await ctx.now("first")
    await ctx.sleep("pause", 0.01)
    return f"{first:g} {await ctx.now('second'):g}"


async def persons(ctx: DurableContext, plan: Mapping[str, Any]) -> str:
    answers = [await ctx.ask_human(f"question {n}", Question("approval", "step")) for n in range(2)]
    return " ".join(answer.decision for answer in answers)


CHAINS = {"clocks": clocks, "persons": persons}


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    store = SqliteStore(tuned=True)
    store.make(str(tmp_path))
    async with store.writer(str(tmp_path)) as found:
        yield found


def tuned(saver: BaseCheckpointSaver[Any], acts: Acts) -> Any:
    return langgraph_graph.workflow(saver, CHAINS, acts, 1.0, QUICK)


def decision(text: str) -> dict[str, str]:
    return {"decision_id": text, "decision": text}


async def test_a_result_is_in_the_store_when_the_next_call_begins(
    tmp_path: Path, saver: BaseCheckpointSaver[Any]
) -> None:
    stored: list[set[str]] = []

    class Looking(NotedActs):
        async def perform(self, act: str, argument: Mapping[str, Any], *, repeat: bool | None = None) -> dict[str, Any]:
            async with SqliteStore(tuned=True).writer(str(tmp_path)) as other:
                saved = await other.aget_tuple(CONFIG)
            assert saved is not None
            stored.append(set(saved.checkpoint["channel_values"].get("results", {})))
            return await super().perform(act, argument, repeat=repeat)

    result = await tuned(saver, Looking()).ainvoke(GIVEN, CONFIG, durability="sync")
    assert result["ended"] == {"status": "completed", "detail": "1 2"}
    assert stored == [set(), {"act first", "sleep pause"}, {"act first", "sleep pause", "act second"}]


@pytest.mark.parametrize("number", range(1, 7))
async def test_a_crash_between_a_nodes_writes_and_its_checkpoint_repeats_nothing_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, saver: BaseCheckpointSaver[Any], number: int
) -> None:
    """In that moment nothing is `next` in the thread's state, though the run has not ended."""
    acts, saves = NotedActs(), 0
    put = AsyncSqliteSaver.aput

    async def crashing(self: AsyncSqliteSaver, *arguments: Any) -> Any:
        nonlocal saves
        saves += 1
        if saves == number + 1:
            # What the node has written is saved beside this; LangGraph ends only when that is done.
            raise Crash
        return await put(self, *arguments)

    monkeypatch.setattr(AsyncSqliteSaver, "aput", crashing)
    with pytest.raises(Crash):
        await tuned(saver, acts).ainvoke(GIVEN, CONFIG, durability="sync")
    result = await tuned(saver, acts).ainvoke(None, CONFIG, durability="sync")
    assert result["ended"] == {"status": "completed", "detail": "1 2"}
    assert acts.done == ["look_at_clock", "look_at_clock", "report_end"]


@pytest.mark.parametrize("side", [TUNED, DEFAULT])
async def test_a_thread_that_has_ended_does_nothing_when_it_is_invoked_again(
    saver: BaseCheckpointSaver[Any], side: Any
) -> None:
    first, second = NotedActs(), NotedActs()
    await side.workflow(saver, CHAINS, first, 1.0, PLAN).ainvoke(GIVEN, CONFIG)
    await side.workflow(saver, CHAINS, second, 1.0, PLAN).ainvoke(None, CONFIG)
    assert (len(first.done), second.done) == (3, [])


@pytest.mark.parametrize("failures", [2, 3])
async def test_an_act_is_tried_as_often_as_the_budget_says(saver: BaseCheckpointSaver[Any], failures: int) -> None:
    """After the third failure the clock has none, and the chain, which does not deal with that, ends."""
    acts = NotedActs(failures)
    result = await tuned(saver, acts).ainvoke(GIVEN, CONFIG, durability="sync")
    spent = {"status": "failed", "detail": "Spent: not now"}
    assert result["ended"] == ({"status": "completed", "detail": "1 2"} if failures == 2 else spent)
    assert acts.tries == failures + (3 if failures == 2 else 1)


async def test_retry_after_is_waited_for(saver: BaseCheckpointSaver[Any]) -> None:
    acts = NotedActs(failures=1, retry_after_seconds=0.2)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await tuned(saver, acts).ainvoke(GIVEN, CONFIG, durability="sync")
    assert loop.time() - begun >= 0.2


SHARED = "an entrypoint's second interrupt takes the first's answer; langchain-ai/langgraph issue 7780"


@pytest.mark.parametrize("side", [TUNED, pytest.param(DEFAULT, marks=pytest.mark.xfail(strict=True, reason=SHARED))])
async def test_each_question_gets_its_own_answer_though_the_thread_is_invoked_again_in_between(
    saver: BaseCheckpointSaver[Any], side: Any
) -> None:
    workflow = side.workflow(saver, CHAINS, NotedActs(), 1.0, PLAN)
    result = await workflow.ainvoke({"run_id": "r0", "payload": dated({"chain": "persons", "plan": PLAN})}, CONFIG)
    for answer in ("reject", "approve"):
        request = result["__interrupt__"][0].value
        again = await workflow.ainvoke(None, CONFIG)
        assert [pause.value for pause in again.get("__interrupt__", [])] == [request]
        result = await workflow.ainvoke(Command(resume=decision(answer)), CONFIG)
    assert side.ended(result)["detail"] == "reject approve"


@pytest.mark.process
@pytest.mark.parametrize("side", [TUNED, DEFAULT])
def test_status_tells_what_has_become_of_a_run(tmp_path: Path, side: Any) -> None:
    """In a process without an event loop, as clients are."""
    side.provision(str(tmp_path))
    assert side.status(str(tmp_path), "r0") == {"state": "unknown"}
    side.submit(str(tmp_path), "r0", {"chain": "persons", "plan": PLAN})
    assert side.status(str(tmp_path), "r0") == {"state": "running"}

    async def carry(given: Any) -> None:
        async with SqliteStore(tuned=True).writer(str(tmp_path)) as saver:
            workflow = side.workflow(saver, CHAINS, NotedActs(), 1.0, PLAN)
            await workflow.ainvoke(given, CONFIG, durability=side.durability)

    asyncio.run(carry({"run_id": "r0", "payload": dated({"chain": "persons", "plan": PLAN})}))
    assert side.status(str(tmp_path), "r0") == {"state": "waiting"}
    for _ in range(2):
        asyncio.run(carry(Command(resume=decision("approve"))))
    assert side.status(str(tmp_path), "r0") == {"state": "completed"}
