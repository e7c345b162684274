"""Sees on the wire what a dying worker had sent: bytes that arrived though their request was never begun to be served.

A worker that is killed right after it has sent a request may be gone before the request is taken up, and the server
then lets go of both. Whether a call had left is what an in-doubt halt is judged by, so it must not be lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

__all__ = ["Arrived", "Ended", "WireServer", "parse"]

Arrived = Callable[[bytes], None]
"""Told of the bytes of each request that was never begun."""

Ended = Callable[[int, int], None]
"""Told of each connection that has ended: the port it came to, and how many bytes it brought."""


class _Connection(web.RequestHandler):
    """A connection that remembers the bytes of the request that has not been begun."""

    def __init__(self, *arguments: Any, arrived: Arrived, ended: Ended, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.arrived, self.ended = arrived, ended
        self.unbegun = b""
        self.received = 0
        self.port = 0
        self.lost_by: BaseException | None = None
        """What ended it, where that was no orderly close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.port = transport.get_extra_info("sockname")[1]
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take in bytes."""
        self.unbegun += data
        self.received += len(data)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self.lost_by = exc
        self.ended(self.port, self.received)
        if self.unbegun:
            self.arrived(self.unbegun)
        super().connection_lost(exc)


class WireServer(web.Server):
    """A server whose connections tell of what arrived and was never begun; `begun` says that a request was."""

    def __init__(self, *arguments: Any, arrived: Arrived, ended: Ended, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._arrived, self._ended = arrived, ended

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return _Connection(self, loop=self._loop, arrived=self._arrived, ended=self._ended, **self._kwargs)

    @staticmethod
    def begun(request: web.BaseRequest) -> None:
        """From here on the request's own server knows of it."""
        if isinstance(request.protocol, _Connection):
            request.protocol.unbegun = b""


def parse(data: bytes) -> tuple[str, dict[str, str], Any]:
    """Path, headers (names in lower case) and JSON body of a request's bytes; None for a body that is not whole."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = first.split(" ")
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return (words[1] if len(words) > 1 else ""), headers, value
