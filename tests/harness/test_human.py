"""The person over HTTP: questions, decisions, halts answered from the ledger, end reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from kintsugi.harness import human
from kintsugi.harness import session as session_module
from kintsugi.harness.session import SECONDS_PER_HOUR

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

PAY = {"vendor_id": "V-207", "amount_cents": 128400, "currency": "EUR", "reference": "INV-1041"}
MAIL = {"to": "a@b.example", "subject": "Paid", "body": "We have paid."}
APPROVAL = {"kind": "approval", "request_id": "q1", "tool": "bank.pay", "arguments": PAY}


async def test_a_question_posted_again_is_one_question(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        for _ in range(2):
            asked = await world.post("human", "/requests", APPROVAL)
            assert (asked.status, asked.body) == (200, {"request_id": "q1", "status": "pending"})
        await world.until("human", "decided")
        first = await world.post("human", "/requests/q1")
        second = await world.post("human", "/requests/q1")
        assert first.body["decision"]["decision"] == "approve"
        assert first.body == second.body
        assert len(world.saw("human", "asked")) == len(world.saw("human", "decided")) == 1


async def test_a_live_question_asked_under_another_name_is_asked_again(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        for request_id in ("q1", "q2"):
            await world.post("human", "/requests", {**APPROVAL, "request_id": request_id})
        other = {**APPROVAL, "request_id": "q3", "arguments": {**PAY, "amount_cents": 1}}
        await world.post("human", "/requests", other)
        assert [event["re_asked"] for event in world.saw("human", "asked")] == [False, True, False]


async def test_there_is_no_decision_before_the_person_has_taken_the_time(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "approval_delay.late@human:pay[0]#1@waiting") as world:
        await world.post("human", "/requests", APPROVAL)
        assert (await world.post("human", "/requests/q1")).body == {"decision": None}
        decided = await world.until("human", "decided")
        (asked,) = world.saw("human", "asked")
        assert decided["t"] - asked["t"] >= 24 * SECONDS_PER_HOUR
        # Said as planned, but nobody has heard of it yet.
        assert world.saw("nemesis", "witnessed") == []
        await world.post("human", "/requests/q1")
        assert len(world.saw("nemesis", "witnessed")) == 1


async def test_a_decision_that_is_to_come_after_a_restart_waits_for_it(
    open_doors: NewDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that was slow to start the worker again, it came while nobody was there."""
    monkeypatch.setattr(human, "SECONDS_PER_HOUR", 0.0)
    monkeypatch.setattr(session_module, "SUCCESSOR_SECONDS", 60.0)
    strike = "approval_delay.rejected_after_restart@human:pay[0]#1@waiting"
    async with open_doors("finance/invoice_payment", strike) as world:
        await world.post("human", "/requests", APPROVAL)
        await world.workers.asked_to_kill.wait()
        world.workers.reaped.set()
        await world.until("nemesis", "witnessed")
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.saw("human", "decided") == []
        world.worker = world.new_worker()
        world.session.let_go(world.worker, world.workers)
        assert (await world.until("human", "decided"))["decision"] == "reject"
        await world.post("human", "/requests/q1")
        assert "1 worker(s) since the question" in (await world.until("nemesis", "witnessed", 2))["evidence"]


async def test_a_question_that_was_never_asked_is_not_found(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        assert (await world.post("human", "/requests/q9")).status == 404


@pytest.mark.parametrize("happened", [True, False])
async def test_a_halt_in_doubt_is_answered_from_the_ledger(open_doors: NewDoors, happened: bool) -> None:
    async with open_doors() as world:
        sent = (await world.call("mail.send", MAIL)).body["result"] if happened else None
        # The ledger is asked for exactly this call.
        await world.call("mail.send", {**MAIL, "to": "else@b.example"})
        halt = {"kind": "in_doubt", "request_id": "h", "step": "tell", "tool": "mail.send", "arguments": MAIL}
        await world.post("human", "/requests", halt)
        await world.until("human", "decided")
        decision = (await world.post("human", "/requests/h")).body["decision"]
        assert (decision["decision"], decision["result"]) == ("happened" if happened else "not_happened", sent)


async def test_a_spent_budget_ends_what_is_being_done_to_the_run(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "tool_timeout.beyond_budget@tool:invoice[0]#1@before") as world:
        read = {"invoice_id": "INV-1041"}
        held = asyncio.create_task(world.call("erp.get_invoice", read))
        await world.until("nemesis", "injected")
        held.cancel()
        await world.until("nemesis", "witnessed")
        await world.post("human", "/requests", {"kind": "budget", "request_id": "h", "tool": "erp.get_invoice"})
        await world.until("human", "decided")
        assert (await world.call("erp.get_invoice", read)).status == 200


async def test_the_end_is_reported_once_and_repeated_harmlessly(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        for _ in range(2):
            report = {"status": "completed", "detail": "all steps done"}
            assert (await world.post("human", "/end", report)).body == {"status": "noted"}
        assert [event["status"] for event in world.saw("human", "end_report")] == ["completed"] * 2
        assert world.session.runs["r0"].ended.is_set()
