"""What arrived and was never begun is known all the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from kintsugi.harness.wire import WireServer, parse

BODY = {"to": "a@b.example"}
SENT = (
    b"POST /tools/mail.send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n"
    b"Kintsugi-Run: r3\r\nContent-Length: %d\r\n\r\n"
)


def sent(body: bytes) -> bytes:
    return SENT % len(body) + body


def test_a_whole_request() -> None:
    path, headers, body = parse(sent(json.dumps(BODY).encode()))
    assert (path, headers["authorization"], headers["kintsugi-run"], body) == (
        "/tools/mail.send",
        "Bearer t",
        "r3",
        BODY,
    )


def test_a_body_that_is_cut_short_is_no_body() -> None:
    assert parse(sent(b'{"to": "a@b'))[2] is None
    assert parse(b"POST")[0] == ""


class _NoTransport(asyncio.Transport):
    """A connection's other side, of which only its own address is asked."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "sockname" else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def test_a_request_whose_sender_died_before_it_was_begun_was_once_unseen() -> None:
    """Its bytes and the end of the connection came in one turn of the loop, and the server let go of both."""
    arrived: list[bytes] = []
    begun: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        server.begun(request)
        begun.append(request.path)
        return web.Response()

    server = WireServer(handle, arrived=arrived.append, ended=lambda *_: None, handler_cancellation=True)
    connection = server()
    connection.connection_made(_NoTransport())
    data = sent(json.dumps(BODY).encode())
    connection.data_received(data)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert (arrived, begun) == ([data], [])
    await server.shutdown(0)
