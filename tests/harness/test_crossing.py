"""The doors of a trial: who is let in, how a request can be cut, held or refused, and what is left when they close."""

from __future__ import annotations

import asyncio
import copy
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientError

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Decide, Pause, Refuse
from kintsugi.harness.human import SETTLE
from kintsugi.harness.session import SECONDS_PER_HOUR

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

INVOICE = {"invoice_id": "INV-1041"}
ORDER = {"order_id": "PO-88"}
PAY = {"vendor_id": "V-207", "amount_cents": 128400, "currency": "EUR", "reference": "INV-1041"}


def port_of(world: Any, service: str) -> int:
    return int(world.session.urls[service].split("/")[2].split(":")[1])


def plain(world: Any, path: str, body: object) -> bytes:
    """A request as bytes on the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.worker.token}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


@asynccontextmanager
async def connected(
    world: Any, service: str = "tools"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, to see every byte that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(world, service))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def everything(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """What comes back until the connection ends, and whether it ends with a reset."""
    got = b""
    async with asyncio.timeout(10):
        try:
            while part := await reader.read(1000):
                got += part
        except ConnectionResetError:
            return got, True
    return got, False


def refused(port: int) -> bool:
    """Whether the kernel refuses a connection to a port now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], asyncio.Event]:
    """Has whatever sleeps for just so many seconds begin to do so only when the event that is returned is set."""
    plain = asyncio.sleep
    begins: dict[float, asyncio.Event] = {}

    async def sleep(seconds: float, result: Any = None) -> Any:
        if seconds in begins:
            await begins[seconds].wait()
        return await plain(seconds, result)

    def held(seconds: float) -> asyncio.Event:
        return begins.setdefault(seconds, asyncio.Event())

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return held


# --- who is let in ------------------------------------------------------------------------------------------


async def test_only_this_machine_can_connect(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        names = [s.getsockname() for listener in world.doors._listeners.values() for s in listener.sockets]
        names += [held.getsockname() for held in world.doors._held.values()]
        assert {name[0] for name in names} == {"127.0.0.1"}
        assert {name[1] for name in names} == {port_of(world, service) for service in ("tools", "model", "human")}
        assert len({name[1] for name in names}) == 3


@pytest.mark.parametrize("service", ["tools", "model", "human"])
async def test_an_unknown_token_is_turned_away(open_doors: NewDoors, service: str) -> None:
    async with open_doors() as world:
        path = {"tools": "/bank.pay", "model": "/chat/completions", "human": "/end"}[service]
        for token in ("someone else's", ""):
            answer = await world.post(service, path, {**PAY, "status": "completed", "messages": []}, token=token)
            assert answer.status == 401
        assert [event["status"] for event in world.saw("doors", "turned_away")] == [401, 401]
        assert not any(world.saw(who, *what) for who, what in (("world", ()), ("gateway", ()), ("human", ())))


async def test_an_unknown_run_is_turned_away(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        assert (await world.call("bank.pay", PAY, kintsugi_run="r1")).status == 404
        assert world.saw("world") == []


async def test_a_request_of_the_dead_is_reset_and_does_nothing(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        world.worker.dead = True
        async with connected(world) as (reader, writer):
            writer.write(plain(world, "/tools/bank.pay", PAY))
            assert await everything(reader) == (b"", True)
        (event,) = world.saw("doors", "request_of_the_dead")
        assert (event["generation"], event["tool"], event["arguments"]) == (world.worker.number, "bank.pay", PAY)
        assert world.saw("world") == []


@pytest.mark.parametrize("service", ["tools", "model", "human"])
async def test_nothing_is_at_other_paths(open_doors: NewDoors, service: str) -> None:
    async with open_doors() as world:
        port = port_of(world, service)
        async with world.http.post(
            f"http://127.0.0.1:{port}/elsewhere", headers={"Authorization": f"Bearer {world.worker.token}"}
        ) as response:
            assert response.status == 404


# --- what a SUT may get wrong -------------------------------------------------------------------------------

GARBAGE = {
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "endless nesting": b"[" * 100_000,
    "half a character": b'{"kind": "approval", "step": "\\ud800", "text": "\\ud800"}',
    "a number": b"5",
    "messages that are none": b'{"messages": [5], "tools": 5}',
    "calls that are none": b'{"messages": [{"tool_calls": [{"function": 1}]}], "response_format": 3}',
    "an answer to a list": b'{"messages": [{"role": "tool", "tool_call_id": ["x"]}]}',
    "a question of no kind": b'{"kind": 5}',
    "a question about a list": b'{"kind": "approval", "tool": ["bank.pay"], "arguments": {}}',
    "an item that is none": b'{"kind": "approval", "step": "pay", "item": "first"}',
    "arguments that are none": b'{"kind": "in_doubt", "arguments": [1]}',
    "an end of no kind": b'{"status": "fine"}',
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_from_a_sut_is_answered_and_breaks_no_trial(open_doors: NewDoors, body: bytes) -> None:
    paths = [("tools", "/bank.pay"), ("tools", "/bank.pay/find"), ("tools", "/nothing"), ("tools", "/")]
    paths += [("model", "/chat/completions"), ("human", "/requests"), ("human", "/requests/x"), ("human", "/end")]
    async with open_doors() as world:
        headers = {"Authorization": f"Bearer {world.worker.token}"}
        for service, path in paths:
            async with world.http.post(world.session.urls[service] + path, data=body, headers=headers) as response:
                # Half a character is text like any other, where text is asked for.
                assert response.status in ({200, 400, 404, 422} if b"ud800" in body else {400, 404, 422})
        assert not world.session.runs["r0"].ended.is_set()


async def test_a_body_that_breaks_off_breaks_no_trial(open_doors: NewDoors) -> None:
    async with open_doors() as world:
        async with connected(world) as (_, writer):
            head = f"POST /tools/bank.pay HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.worker.token}\r\n"
            writer.write(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
            await writer.drain()
        async with connected(world) as (reader, writer):
            writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\nnot a length\r\n".encode())
            assert b" 400 " in (await everything(reader))[0]
        assert (await world.call("erp.get_invoice", INVOICE)).status == 200


async def test_a_long_transcript_is_no_error_of_the_harness(open_doors: NewDoors) -> None:
    """aiohttp takes no more than 1 MiB unless told otherwise, and said so by an exception that broke the trial."""
    async with open_doors() as world:
        long = {"messages": [{"role": "user", "content": "x" * 2**21}]}
        assert (await world.post("model", "/chat/completions", long)).status == 200
        longer = {"messages": [{"role": "user", "content": "x" * 2**24}]}
        assert (await world.post("model", "/chat/completions", longer)).status == 413


async def test_a_response_is_sent_once(open_doors: NewDoors) -> None:
    """Two requests on one connection have two responses, and nothing else comes."""
    async with open_doors() as world, connected(world) as (reader, writer):
        for _ in range(2):
            writer.write(plain(world, "/tools/erp.get_invoice", INVOICE))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["result"]["vendor_id"] == "V-207"
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await everything(reader))[0].count(b"HTTP/1.") == 1


# --- what the nemesis does to a request ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strike", "ends_with_reset"),
    [
        ("partial_side_effect.reset", True),
        ("partial_side_effect.empty", False),
        ("partial_side_effect.killed", False),
        ("network_failure.reset_committed", True),
    ],
)
async def test_no_byte_of_a_response_follows_a_committed_effect(
    open_doors: NewDoors, strike: str, ends_with_reset: bool
) -> None:
    async with open_doors("finance/invoice_payment", f"{strike}@tool:pay[0]#1@committed") as world:
        world.workers.reaped.set()
        async with connected(world) as (reader, writer):
            writer.write(plain(world, "/tools/bank.pay", PAY))
            assert await everything(reader) == (b"", ends_with_reset)
        order = [
            event["what"] for event in world.saw("world", "effect") + world.saw("nemesis", "injected", "witnessed")
        ]
        assert order == ["effect", "injected", "witnessed"]
        assert world.saw("world", "answer", "delivered") == []


async def test_a_worker_struck_while_another_is_not_yet_reaped_is_told_from_it(open_doors: NewDoors) -> None:
    """A node that sees at once that another is gone may bring the run to its boundary before its end is reported."""
    async with open_doors("finance/invoice_payment", "poison_workflow.two_nodes@tool:invoice[0]#1@before") as world:
        workers = [world.worker, world.new_worker()]
        async with AsyncExitStack() as stack:
            for number, world.worker in enumerate(workers, start=1):
                _, writer = await stack.enter_async_context(connected(world))
                writer.write(plain(world, "/tools/erp.get_invoice", INVOICE))
                await world.until("nemesis", "injected", number)
            assert world.saw("nemesis", "witnessed") == []
            world.workers.reaped.set()
            await world.until("nemesis", "witnessed", 2)
        asked = {event["request"]: event["generation"] for event in world.saw("world", "request")}
        seen = {event["request"]: event["generation"] for event in world.saw("nemesis", "witnessed")}
        assert seen == asked
        assert sorted(seen.values()) == [worker.number for worker in workers]


async def test_an_error_after_the_effect_hides_it(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "partial_side_effect.error_500@tool:pay[0]#1@committed") as world:
        failed = await world.call("bank.pay", PAY, idempotency_key="k")
        assert (failed.status, "payment_id" in str(failed.body)) == (500, False)
        again = await world.call("bank.pay", PAY, idempotency_key="k")
        assert (again.status, len(world.saw("world", "effect"))) == (200, 1)


@pytest.mark.parametrize(("form", "phase", "effects"), [("not_applied", "before", 0), ("applied", "committed", 1)])
async def test_a_held_request_is_witnessed_when_its_client_leaves(
    open_doors: NewDoors, form: str, phase: str, effects: int
) -> None:
    async with open_doors("finance/invoice_payment", f"tool_timeout.{form}@tool:pay[0]#1@{phase}") as world:
        async with connected(world) as (_, writer):
            writer.write(plain(world, "/tools/bank.pay", PAY))
            await world.until("nemesis", "injected")
            assert world.saw("nemesis", "witnessed") == []
        witnessed = await world.until("nemesis", "witnessed")
        assert witnessed["held_seconds"] >= 0
        assert len(world.saw("world", "effect")) == effects


async def test_a_request_held_at_the_end_of_the_trial_is_no_client_that_gave_up(open_doors: NewDoors) -> None:
    """The runner kills the workers when a trial is over, which closes their connections too."""
    async with open_doors("finance/invoice_payment", "tool_timeout.not_applied@tool:pay[0]#1@before") as world:
        async with connected(world) as (_, writer):
            writer.write(plain(world, "/tools/bank.pay", PAY))
            await world.until("nemesis", "injected")
            world.session.closing = True
        assert (await world.until("nemesis", "missed"))["why"] == "the trial ended first"
        assert world.saw("nemesis", "witnessed") == []


async def test_a_refusing_port_refuses_and_comes_back(
    open_doors: NewDoors, held_back: Callable[[float], asyncio.Event]
) -> None:
    looked = held_back(Refuse().seconds)
    async with open_doors("finance/invoice_payment", "network_failure.refused@tool:invoice[0]#1@before") as world:
        port = port_of(world, "tools")
        assert not refused(port)
        async with connected(world) as (reader, writer):
            writer.write(plain(world, "/tools/erp.get_invoice", INVOICE))
            assert await everything(reader) == (b"", True)
        assert world.saw("nemesis", "witnessed") == []
        assert refused(port)
        assert not refused(port_of(world, "model"))
        looked.set()
        evidence = (await world.until("nemesis", "witnessed"))["evidence"]
        assert float(evidence.split()[-2]) >= Refuse().seconds
        assert not refused(port)
        assert (await world.call("erp.get_invoice", INVOICE)).status == 200


async def test_a_port_that_refused_does_not_open_again_after_the_trial(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", "network_failure.refused@tool:invoice[0]#1@before") as world:
        port = port_of(world, "tools")
        with pytest.raises((ClientError, ConnectionError)):
            await world.call("erp.get_invoice", INVOICE)
    assert refused(port)
    # Nothing is left that could still listen again.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_connection_that_nobody_closes_does_not_keep_the_trial(open_doors: NewDoors) -> None:
    """A shutdown with a limit of 0 seconds is one without a limit."""
    async with open_doors() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(world, "tools"))
        writer.write(plain(world, "/tools/erp.get_invoice", INVOICE))
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(5):
            await world.doors.close()
        await everything(reader)
        writer.close()


# --- the gate: a kill after a response ----------------------------------------------------------------------


def slowed(world: Any, tool: str) -> float:
    """Give a tool of this trial a latency that no other has; in seconds."""
    workflow = world.session.workflow = copy.copy(world.session.workflow)
    workflow.tools = {**workflow.tools, tool: workflow.tools[tool].model_copy(update={"latency_ms": 125})}
    return 0.125


AFTER = "worker_kill.after_0ms@tool:invoice[0]#1@after"


async def test_nothing_is_served_between_a_response_and_the_death_that_follows_it(
    open_doors: NewDoors, held_back: Callable[[float], asyncio.Event]
) -> None:
    async with open_doors("finance/invoice_payment", AFTER, copies=2) as world:
        slow_seconds = slowed(world, "bank.pay")
        answered = held_back(slow_seconds)
        # In flight already, in the tool's latency, when the response goes out.
        underway = asyncio.create_task(world.call("bank.pay", PAY, kintsugi_run="r1"))
        await world.until("world", "request")
        first = await world.call("erp.get_invoice", INVOICE)
        assert first.status == 200
        await world.workers.asked_to_kill.wait()
        answered.set()
        # On other connections, of other runs, to other services.
        later = [
            asyncio.create_task(world.call("erp.get_order", ORDER, kintsugi_run="r1")),
            asyncio.create_task(world.post("model", "/chat/completions", {"messages": []})),
            asyncio.create_task(world.post("human", "/end", {"status": "completed"})),
        ]
        await asyncio.wait([underway, *later], timeout=2 * slow_seconds)
        assert not any(task.done() for task in [underway, *later])
        assert world.saw("world", "effect") == world.saw("gateway") == world.saw("human") == []
        world.workers.reaped.set()
        for task in [underway, *later]:
            with pytest.raises((ClientError, ConnectionError)):
                await task
        served = [event["what"] for event in world.session.history.events]
        assert served.count("request_of_the_dead") == len(later)
        assert world.saw("world", "effect") == world.saw("gateway") == world.saw("human") == []
        assert [e["request"] for e in world.saw("world", "delivered") if e["delivered"]] == [2]
        # The next worker finds the gate open.
        world.worker = world.new_worker()
        assert (await world.call("erp.get_invoice", INVOICE)).status == 200


async def test_a_response_that_reached_nobody_is_followed_by_no_kill(
    open_doors: NewDoors, held_back: Callable[[float], asyncio.Event]
) -> None:
    async with open_doors("finance/invoice_payment", AFTER) as world:
        left = held_back(slowed(world, "erp.get_invoice"))
        async with connected(world) as (_, writer):
            writer.write(plain(world, "/tools/erp.get_invoice", INVOICE))
            await world.until("world", "request")
        async with asyncio.timeout(20):
            while world.session.in_flight:
                await asyncio.sleep(0)
        left.set()
        assert not (await world.until("world", "delivered"))["delivered"]
        assert world.saw("nemesis", "injected") == []
        answered = asyncio.create_task(world.call("erp.get_invoice", INVOICE))
        await world.workers.asked_to_kill.wait()
        world.workers.reaped.set()
        assert (await answered).status == 200
        assert (await world.until("nemesis", "witnessed"))["generation"] == world.worker.number


async def test_a_worker_that_is_dead_already_is_not_killed_again(
    open_doors: NewDoors, held_back: Callable[[float], asyncio.Event]
) -> None:
    """Its wait status of signal 9 is an earlier strike's, and would witness this one as well."""
    strikes = ("worker_kill.at_boundary@tool:pay[0]#1@before", "worker_kill.at_boundary@human:pay[0]#1@waiting")
    parked = held_back(Decide().delay_hours * SECONDS_PER_HOUR * SETTLE)
    async with open_doors("finance/invoice_payment", *strikes) as world:
        world.workers.reaped.set()
        asked = {"kind": "approval", "request_id": "q", "tool": "bank.pay", "arguments": PAY}
        assert (await world.post("human", "/requests", asked)).status == 200
        with pytest.raises((ClientError, ConnectionError)):
            await world.call("bank.pay", PAY)
        parked.set()
        await world.until("nemesis", "missed")
        assert [event["strike"] for event in world.saw("nemesis", "witnessed")] == [0]


# --- a worker that stands still -----------------------------------------------------------------------------

ZOMBIE = "zombie_worker.in_flight@tool:pay[0]#1@before"


async def test_a_stopped_worker_s_request_is_served_and_it_goes_on_once_another_has_taken_over(
    open_doors: NewDoors,
) -> None:
    async with open_doors("finance/invoice_payment", ZOMBIE) as world:
        zombie = world.worker
        assert (await world.call("bank.pay", PAY)).status == 200
        assert zombie.stopped
        # What it sends itself, or others for other runs, is no take-over.
        assert (await world.call("erp.get_order", ORDER)).status == 200
        assert world.saw("nemesis", "continued") == []
        world.worker = world.new_worker()
        assert (await world.call("erp.get_order", ORDER)).status == 200
        witnessed = await world.until("nemesis", "witnessed")
        assert (witnessed["generation"], witnessed["successor"]) == (zombie.number, world.worker.number)
        assert (zombie.stopped, zombie.woken, zombie.heard) == (False, True, False)
        assert [event["what"] for event in world.saw("nemesis")][1:] == [
            "injected",
            "stopped",
            "continued",
            "witnessed",
        ]


async def test_where_nobody_takes_over_there_was_no_zombie(
    open_doors: NewDoors, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS["zombie_worker"]
    brief_seconds = 0.05
    actions = (Pause(seconds_max=brief_seconds),)
    brief = replace(fault, forms=tuple(replace(form, actions=actions) for form in fault.forms))
    monkeypatch.setitem(FAULTS, "zombie_worker", brief)
    async with open_doors("finance/invoice_payment", ZOMBIE) as world:
        assert (await world.call("bank.pay", PAY)).status == 200
        why, _, seconds = (await world.until("nemesis", "missed"))["why"].rpartition(" after ")
        assert why == "nobody had taken the run over"
        assert float(seconds.removesuffix(" s")) >= brief_seconds
        assert len(world.saw("nemesis", "continued")) == 1
        assert world.saw("nemesis", "witnessed") == []
        assert not world.worker.stopped


async def test_a_worker_that_ends_while_it_stands_still_is_no_zombie(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", ZOMBIE) as world:
        assert (await world.call("bank.pay", PAY)).status == 200
        world.workers.reaped.set()
        world.worker = world.new_worker()
        assert (await world.call("erp.get_order", ORDER)).status == 200
        assert (await world.until("nemesis", "missed"))["why"] == "the worker did not live on after it was stopped"
        assert world.saw("nemesis", "witnessed") == []


async def test_a_worker_that_can_t_be_stopped_is_left_alone(open_doors: NewDoors) -> None:
    async with open_doors("finance/invoice_payment", ZOMBIE) as world:
        world.workers.reaped.set()
        assert (await world.call("bank.pay", PAY)).status == 200
        assert (await world.until("nemesis", "missed"))["why"] == "no worker that could be stopped"
        assert world.saw("nemesis", "stopped") == []
