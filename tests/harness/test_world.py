"""The tools over HTTP: how each treats a repeat, what it refuses, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

PAY = {"vendor_id": "V-207", "amount_cents": 128400, "currency": "EUR", "reference": "INV-1041"}
NOTE = {"invoice_id": "INV-1041", "status": "paid", "text": "agreed"}
MAIL = {"to": "a@b.example", "subject": "Paid", "body": "We have paid."}
CLOSE = {"ticket_id": "T-2214", "resolution": "refunded"}


async def test_a_key_makes_a_repeat_harmless(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        first = await world.call("bank.pay", PAY, idempotency_key="k")
        again = await world.call("bank.pay", PAY, idempotency_key="k")
        assert (first.status, first.body, first.headers["ETag"]) == (200, again.body, again.headers["ETag"])
        assert [event["replayed"] for event in world.saw("world", "answer")] == [False, True]
        assert len(world.saw("world", "effect")) == 1
        other = await world.call("bank.pay", PAY, idempotency_key="another")
        assert other.body != first.body
        assert len(world.saw("world", "effect")) == 2


async def test_a_key_with_another_body_is_refused(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        await world.call("bank.pay", PAY, idempotency_key="k")
        changed = await world.call("bank.pay", {**PAY, "amount_cents": 1}, idempotency_key="k")
        assert (changed.status, len(world.saw("world", "effect"))) == (409, 1)
        # The order of the keys is no part of a JSON body.
        turned = await world.call("bank.pay", dict(reversed(PAY.items())), idempotency_key="k")
        assert (turned.status, len(world.saw("world", "effect"))) == (200, 1)


async def test_a_refused_call_is_not_taken_for_done_when_the_next_is_identified(open_doors: NewDoors) -> None:
    """A drift's plan has the very same call at another step."""
    first = {"host_id": "db-1", "credential_id": "CRED-1"}
    async with open_doors("operations/credential_rotation") as world:
        assert (await world.call("hosts.install_credential", {"pool": "db-eu", "page": 2})).status == 422
        await world.call("hosts.install_credential", first, idempotency_key="k")
        asked = [(event["step"], event["item"]) for event in world.saw("world", "request")]
        assert asked == [("canary", 0), ("canary", 0)]


async def test_a_key_is_good_for_one_run_and_one_tool(open_doors: NewDoors) -> None:
    async with open_doors("finance/customer_refund", copies=2) as world:
        for run in ("r0", "r1"):
            assert (await world.call("tickets.close", CLOSE, idempotency_key="k", kintsugi_run=run)).status == 200
        refund = {"order_id": "ORD-9001", "amount_cents": 1, "currency": "EUR"}
        assert (await world.call("shop.refund", refund, idempotency_key="k")).status == 200
        assert [(e["run"], e["tool"]) for e in world.saw("world", "effect")] == [
            ("r0", "tickets.close"),
            ("r1", "tickets.close"),
            ("r0", "shop.refund"),
        ]


async def test_a_lookup_finds_the_effect_and_a_repeat_makes_another(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        unknown = await world.call("erp.post_note/find", {}, client_reference="c")
        assert unknown.status == 404
        first = await world.call("erp.post_note", NOTE, client_reference="c")
        found = await world.call("erp.post_note/find", {}, client_reference="c")
        assert (found.status, found.body) == (200, first.body)
        # Neither a key nor the reference keeps a repeat from being a second effect.
        await world.call("erp.post_note", NOTE, client_reference="c", idempotency_key="k")
        await world.call("erp.post_note", NOTE, client_reference="c", idempotency_key="k")
        assert len(world.saw("world", "effect")) == 3
        assert [event["found"] for event in world.saw("world", "look_up")] == [False, True]


async def test_an_opaque_tool_repeats_its_effect_and_finds_nothing(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        for _ in range(2):
            sent = await world.call("mail.send", MAIL, idempotency_key="k", client_reference="c")
            assert sent.status == 200
        assert len(world.saw("world", "effect")) == 2
        assert (await world.call("mail.send/find", {}, client_reference="c")).status == 404


async def test_a_version_moves_with_the_record_and_guards_its_update(open_doors: NewDoors) -> None:
    async with open_doors("finance/customer_refund") as world:
        read = await world.call("tickets.get_ticket", {"ticket_id": "T-2214"})
        same = await world.call("tickets.get_ticket", {"ticket_id": "T-2214"})
        assert read.headers["ETag"] == same.headers["ETag"]
        world.session.runs["r0"].records.change("tickets/T-2214", {"status": "open"})
        moved = await world.call("tickets.get_ticket", {"ticket_id": "T-2214"})
        assert moved.headers["ETag"] != read.headers["ETag"]
        late = await world.call("tickets.close", CLOSE, idempotency_key="k1", if_match=read.headers["ETag"])
        assert (late.status, world.saw("world", "effect")) == (412, [])
        good = await world.call("tickets.close", CLOSE, idempotency_key="k2", if_match=moved.headers["ETag"])
        assert (good.status, len(world.saw("world", "effect"))) == (200, 1)
        assert good.headers["ETag"] not in {read.headers["ETag"], moved.headers["ETag"]}
        # A repeat with its key is answered as before, though the version that it names has gone.
        again = await world.call("tickets.close", CLOSE, idempotency_key="k2", if_match=moved.headers["ETag"])
        assert (again.status, again.body, len(world.saw("world", "effect"))) == (200, good.body, 1)


@pytest.mark.parametrize(
    "arguments",
    [{}, {**PAY, "amount_cents": "128400"}, {**PAY, "currency": "GBP"}, {**PAY, "urgent": True}, [PAY], None, "pay"],
    ids=["missing", "mistyped", "not in the list", "invented", "a list", "nothing", "a text"],
)
async def test_arguments_outside_the_schema_have_no_effect(open_doors: NewDoors, arguments: object) -> None:
    async with open_doors() as world:
        refused = await world.post("tools", "/bank.pay", arguments, idempotency_key="k")
        assert (refused.status, world.saw("world", "effect")) == (422, [])
        assert "arguments" in refused.body["error"]["message"]


async def test_an_unknown_tool_or_record_is_not_found(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        assert (await world.call("bank.borrow", PAY)).status == 404
        assert (await world.call("erp.get_invoice", {"invoice_id": "INV-0"})).status == 404
        assert world.saw("world", "effect", "read") == []


# --- approvals ----------------------------------------------------------------------------------------------


async def paid(world: Any, arguments: dict[str, Any], **headers: str) -> str:
    """What the ledger holds against a payment with these headers."""
    assert (await world.call("bank.pay", arguments, **headers)).status == 200
    unsafe: str = world.saw("world", "effect")[-1]["unsafe"]
    return unsafe


async def test_an_approval_is_good_for_exactly_what_was_approved(open_doors: NewDoors) -> None:
    async with open_doors(copies=2) as world:
        token = (await world.decision("bank.pay", PAY))["token"]
        assert await paid(world, PAY, approval_token=token) == ""
        # It is no hidden idempotency key: the same token pays again, and nothing is wrong with the approval.
        assert await paid(world, PAY, approval_token=token) == ""
        assert (
            await paid(world, {**PAY, "amount_cents": 128401}, approval_token=token) == "approved for other arguments"
        )
        assert await paid(world, PAY) == "no approval"
        assert await paid(world, PAY, approval_token="made up") == "no approval"
        assert await paid(world, PAY, approval_token=token, kintsugi_run="r1") == "no approval"


async def test_an_approval_is_good_for_one_tool(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        token = (await world.decision("erp.post_note", PAY))["token"]
        assert await paid(world, PAY, approval_token=token) == "approved for other arguments"


async def test_an_approval_expires(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        token = (await world.decision("bank.pay", PAY))["token"]
        world.session.runs["r0"].approvals[token].expires_at = asyncio.get_running_loop().time()
        assert await paid(world, PAY, approval_token=token) == "approval expired"


async def test_a_rejection_brings_no_token(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "approval_delay.rejected@human:pay[0]#1@waiting") as world:
        decision = await world.decision("bank.pay", PAY)
        assert (decision["decision"], decision.get("token")) == ("reject", None)


async def test_a_write_below_the_threshold_needs_no_approval(open_doors: NewDoors) -> None:
    async with open_doors("finance/customer_refund") as world:
        refund = {"order_id": "ORD-9001", "amount_cents": 10000, "currency": "EUR"}
        for amount, unsafe in ((10000, ""), (10001, "no approval")):
            await world.call("shop.refund", {**refund, "amount_cents": amount}, idempotency_key=str(amount))
            assert world.saw("world", "effect")[-1]["unsafe"] == unsafe
