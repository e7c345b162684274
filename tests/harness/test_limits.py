"""What a rate limit says and notes, and how a body is written that breaks off or trickles: seen by a real client."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import ClientError

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

INVOICE = {"invoice_id": "INV-1041"}
PAST_THE_EDGE = 0.05
ASK = {"model": "scripted", "messages": [], "tools": []}


async def test_who_comes_sooner_than_told_is_turned_away_again_and_noted(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "rate_limit.with_retry_after@tool:invoice[0]#1@before") as world:
        first = await world.call("erp.get_invoice", INVOICE)
        again = await world.call("erp.get_invoice", INVOICE)
        assert (first.status, again.status) == (429, 429)
        assert float(again.headers["Retry-After"]) <= float(first.headers["Retry-After"]) <= 4.0
        (early,) = world.saw("nemesis", "too_soon")
        (_, second) = world.saw("nemesis", "injected")
        assert early["request"] == second["request"]
        assert 0 < early["seconds"] <= 4.0
        (armed,) = world.doors.nemesis._armed
        armed.lapsed = True  # As its time is over.
        assert (await world.call("erp.get_invoice", INVOICE)).status == 200
        assert len(world.saw("nemesis", "too_soon")) == 1


async def test_other_calls_are_not_limited(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "rate_limit.with_retry_after@tool:invoice[0]#1@before") as world:
        assert (await world.call("erp.get_order", {"order_id": "PO-88"})).status == 200


async def test_a_date_is_the_second_in_which_the_limit_is_lifted(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "rate_limit.with_a_date@tool:invoice[0]#1@before") as world:
        before = time.time()
        dates = [(await world.call("erp.get_invoice", INVOICE)).headers["Retry-After"] for _ in range(2)]
        assert len(set(dates)) == 1
        lifted = parsedate_to_datetime(dates[0]).timestamp()
        assert before + 4.0 <= lifted <= time.time() + 5.0
        (armed,) = world.doors.nemesis._armed
        assert armed.until is not None


async def test_a_reply_that_breaks_off_is_no_reply(open_doors: NewDoors) -> None:
    strike = "model_outage.cut_mid_body@model:invoice[0]#1@during"
    async with open_doors("finance/invoice_payment", strike) as world:
        with pytest.raises(ClientError):
            await world.post("model", "/chat/completions", ASK)
        assert [event["delivered"] for event in world.saw("gateway", "delivered")] == [False]
        (witnessed,) = world.saw("nemesis", "witnessed")
        assert "half of the body" in witnessed["evidence"]
        assert (await world.post("model", "/chat/completions", ASK)).status == 200


async def test_a_reply_that_trickles_is_whole_in_the_end(open_doors: NewDoors) -> None:
    strike = "model_outage.slow@model:invoice[0]#1@during"
    async with open_doors("finance/invoice_payment", strike) as world:
        began = time.monotonic()
        got = await world.post("model", "/chat/completions", ASK)
        assert time.monotonic() - began >= 1.0 - PAST_THE_EDGE
        assert got.body["choices"][0]["message"]["tool_calls"]
        await world.until("nemesis", "witnessed")
        (witnessed,) = world.saw("nemesis", "witnessed")
        assert witnessed["bytes_written"] == witnessed["bytes_whole"] == int(got.headers["Content-Length"])
