"""Restate for real: its server, its workers, and the faults that an engine has to deal with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from kintsugi.faults.points import Point
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.runtime.protocol import DurableContext, Question
from kintsugi.runtime.rules import idempotency_key
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = [pytest.mark.engines, pytest.mark.process]

WORKFLOW = "finance/invoice_payment"


def struck(sut: str, fault: str, form: str, point: str, nodes: int = 1) -> Trial:
    return Trial("fault", sut, "naive", WORKFLOW, (Strike(fault, form, Point.parse(point)),), seed=7, nodes=nodes)


CLEAN = {sut: Trial("baseline", sut, "naive", WORKFLOW, seed=7) for sut in ("restate", "restate_default")}
KILLED = struck("restate", "worker_kill", "at_boundary", "tool:pay[0]#1@committed")
OPAQUE = struck("restate", "worker_kill", "at_boundary", "tool:tell[0]#1@committed")
APPROVED_LATE = struck("restate", "approval_delay", "late_after_restart", "human:pay[0]#1@waiting")
NODE_LOST = struck("restate", "node_loss", "process", "tool:order[0]#1@before", nodes=2)
TRIALS = [*CLEAN.values(), KILLED, OPAQUE, APPROVED_LATE, NODE_LOST]


def must_be_there(sut: str) -> None:
    try:
        ADAPTERS[sut].must_be_there()
    except Unavailable as problem:
        pytest.skip(str(problem))


def outcome(results: Results, trial: Trial) -> TrialResult:
    found: Mapping[str, TrialResult] = results.trials()
    return found[trial.id]


@pytest.mark.parametrize("sut", CLEAN)
def test_a_clean_run_is_correct(results: Results, sut: str) -> None:
    result = outcome(results, CLEAN[sut])
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")


def test_a_payment_is_made_once_though_its_worker_was_killed_before_it_heard(results: Results) -> None:
    result = outcome(results, KILLED)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert result.generations == 2


def test_an_opaque_call_is_not_made_again_by_itself(results: Results) -> None:
    result = outcome(results, OPAQUE)
    assert (result.injection, result.verdict) == ("witnessed", "correct_halt")
    sent = [e for e in of(results.history(OPAQUE.id), "world", "request") if e["step"] == "tell"]
    assert len(sent) == 1


def test_an_approval_that_comes_after_a_restart_is_found(results: Results) -> None:
    result = outcome(results, APPROVED_LATE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert (result.generations, result.human.checkpoints, result.human.re_asked) == (2, 1, 0)


def test_another_node_takes_over_what_a_lost_one_had(results: Results) -> None:
    result = outcome(results, NODE_LOST)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    by = {e["generation"] for e in of(results.history(NODE_LOST.id), "world", "effect")}
    assert len(by) == 1


def test_nothing_of_a_trial_is_left(results: Results) -> None:
    for trial in TRIALS:
        assert of(results.history(trial.id), "runner", "not_retired") == []
    marks = str(results.state_folder).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert marks not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # It ended meanwhile.


# --- the client verbs, on a server of their own -------------------------------------------------------------


@asynccontextmanager
async def outside() -> AsyncIterator[str]:
    """A human who takes every question and report in; its address."""

    async def taken(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    runner = web.ServerRunner(web.Server(taken))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A server of the tuned profile, known to this process; the address of its admin interface."""
    make = ADAPTERS["restate"].server
    assert make is not None
    server = make()
    try:
        addresses = await server.start(folder)
        for name, value in addresses.items():
            monkeypatch.setenv(name, value)
        yield addresses["KINTSUGI_RESTATE_ADMIN"]
    finally:
        await server.close()


async def test_verbs_may_be_repeated_and_a_new_worker_needs_no_registration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_be_there("restate")
    from kintsugi.runtime.engines.restate import TUNED, _invocations

    begun: list[str] = []
    decided: list[str] = []

    async def chain(ctx: DurableContext, _: Mapping[str, Any]) -> str:
        begun.append(ctx.run_id)
        decision = await ctx.ask_human("ask", Question("approval", "pay"))
        decided.append(decision.decision)
        return "done"

    async def until(state: str, run_id: str) -> None:
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(TUNED.status, str(tmp_path), run_id))["state"] != state:
                await asyncio.sleep(0.02)

    async def deployments() -> list[Any]:
        async with ClientSession() as session, session.get(f"{admin}/deployments") as answer:
            return list((await answer.json())["deployments"])

    async with outside() as human, served(tmp_path / "server", monkeypatch) as admin:
        TUNED.provision(str(tmp_path))
        environment = {f"KINTSUGI_{name}_URL": human for name in ("TOOLS", "MODEL", "HUMAN")}
        environment |= {"KINTSUGI_TOKEN": "t", "KINTSUGI_STATE_DIR": str(tmp_path), "KINTSUGI_TIME_SCALE": "1"}
        first = asyncio.ensure_future(TUNED.work(environment, {"mine": chain}))
        payload = {"chain": "mine", "plan": {"policy": {}, "tools": {}, "model": "m"}}
        assert TUNED.status(str(tmp_path), "r0") == {"state": "unknown"}
        for _ in range(2):
            await asyncio.to_thread(TUNED.submit, str(tmp_path), "r0", payload)
            # As if this process had ended between the registration and its note.
            (tmp_path / "deployment").unlink()
        await until("running", "r0")
        request = idempotency_key("r0", "ask")
        for number, answer in enumerate(("approve", "reject")):
            decision = {"decision_id": f"d{number}", "decision": answer}
            await asyncio.to_thread(TUNED.decide, str(tmp_path), "r0", request, decision)
        await until("completed", "r0")
        # It was begun once, though an attempt that waited for long is replayed.
        carried = [found for found in _invocations(str(tmp_path)) if found["target_handler_name"] == "run"]
        assert (len(carried), set(begun), set(decided)) == (1, {"r0"}, {"approve"})

        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.ensure_future(TUNED.work(environment, {"mine": chain}))
        await asyncio.to_thread(TUNED.submit, str(tmp_path), "r1", payload)
        await until("running", "r1")
        assert len(await deployments()) == 1

        await asyncio.to_thread(TUNED.retire, str(tmp_path))
        assert await deployments() == []
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
