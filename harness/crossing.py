"""The doors of a trial: its three listening sockets on loopback, and the path that every request takes through them.

Each service (tools, model, human) has a port of its own, held for as long as the trial lives, so that connections to
one of them can really be refused, and so that a late request can never reach another trial.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kintsugi.harness.deeds.blow import Crossing, Directive, Manner
from kintsugi.harness.nemesis import Nemesis
from kintsugi.harness.session import Generation, Run, Session
from kintsugi.harness.wire import WireServer, parse

__all__ = ["Doors", "Incoming", "Service"]

SERVICES = ("tools", "model", "human")
PREFIXES = {"tools": "/tools", "model": "/v1", "human": "/human"}
LISTEN_BACKLOG = 1024
"""Beyond what 500 workflows that begin at once can have waiting."""
BODY_BYTES_MAX = 2**24
CLOSE_SECONDS = 0.1
"""How long a connection that nobody closes, once every worker is dead, keeps its trial."""

Service = Callable[["Incoming"], Awaitable[None]]
"""A service answers an incoming request; one that it does not answer is dropped."""

_LOG = logging.getLogger("kintsugi.doors")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class Incoming:
    """One request on its way: who sent it, what it holds, and the only ways in which it may be answered."""

    def __init__(self, session: Session, nemesis: Nemesis, request: web.BaseRequest, gone: asyncio.Event) -> None:
        self.session, self.nemesis = session, nemesis
        self.request = request
        self.gone = gone
        self.path: list[str] = []
        self.body: Any = None
        self.run: Run
        self.generation: Generation
        self.number = 0
        self.node = ""
        """Of its worker, once that is known."""
        self.answered = False
        self.sent: web.StreamResponse | None = None
        self.service = ""
        """Which service it is for; empty before that is known."""

    @property
    def lost_by(self) -> BaseException | None:
        """What ended its connection, where that was no orderly close."""
        return getattr(self.request.protocol, "lost_by", None)

    def header(self, name: str) -> str | None:
        """A header's value, None where it is not there."""
        return self.request.headers.get(name)

    def crossing(self, kind: str, step: str, item: int) -> Crossing:
        """Name the boundary that this request crosses."""
        occurrence = self.run.delivered[kind, step, item] + 1
        self.session.taken_up(self.run, self.generation)
        return Crossing(self.number, self.run, self.generation, kind, step, item, occurrence, self.gone)

    async def struck(self, crossing: Crossing, phase: str) -> bool:
        """Let the nemesis strike; whether the request's ordinary course ends here."""
        if await self._of_the_dead():
            return True
        directive = await self.nemesis.at(crossing, phase)
        if directive is None:
            return self.generation.dead
        await self._carry_out(directive)
        return True

    async def _of_the_dead(self) -> bool:
        """Wait where all requests are held, though this one came earlier; whether its worker was killed meanwhile."""
        await self.session.open_gate.wait()
        return self.generation.dead

    async def _carry_out(self, directive: Directive) -> None:
        if directive.what == "answer":
            headers = {"Retry-After": directive.retry_after} if directive.retry_after else {}
            done = await self.send(directive.status, {"error": {"message": f"status {directive.status}"}}, headers)
        else:
            done = self.cut(reset=directive.what == "reset")
        if directive.done is not None:
            directive.done(done)

    async def kept(self) -> bool:
        """Whether its node is cut off, so that nothing is to be heard here until it is healed, and then a reset."""
        cut_off = self.session.cut_off.get(self.node)
        if cut_off is None:
            return False
        await cut_off.over(self.gone)
        self.cut(reset=True)
        return True

    def cut(self, *, reset: bool) -> bool:
        """End the connection without a byte, with a TCP reset or closed; whether the client was still there."""
        self.answered = True
        transport = self.request.transport
        if transport is None or self.gone.is_set():
            return False
        if reset:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        return True

    async def answer(
        self, crossing: Crossing, status: int, body: Any, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Send the answer of a boundary, then let the nemesis strike after it; whether the answer was delivered.

        Where a kill follows, all of the trial's requests are held from here until the worker is dead. It follows only
        an answer that was delivered: where the client had gone, the point has not been reached yet.
        """
        if await self._of_the_dead():
            return False
        with self.session.holding(wanted=self.nemesis.will_strike(crossing.point("after"))):
            delivered = await self.send(status, body, headers, crossing.manner)
            if delivered and status < 500 and status != 429:
                self.run.delivered[crossing.kind, crossing.step, crossing.item] += 1
                if crossing.kind == "tool" and status == HTTPStatus.OK:
                    self.run.done[crossing.step, crossing.item] += 1
                self.nemesis.timer_begins(crossing)
                await self.nemesis.at(crossing, "after")
        return delivered

    async def send(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None, manner: Manner | None = None
    ) -> bool:
        """Write a JSON response; whether all of it could be written to a client that was still there."""
        self.answered = True
        if await self.kept() or self.gone.is_set() or self.request.transport is None:
            return False
        kind = "text/event-stream" if isinstance(body, bytes) else "application/json"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if manner is not None:
            part = web.StreamResponse(status=status, headers=headers)
            part.content_type, part.content_length = kind, len(content)
            delivered = await manner(self, part, content)
            self.sent = part if delivered else None
            return delivered
        self.sent = response = web.Response(status=status, body=content, content_type=kind, headers=headers)
        link = self.session.links.get(self.service)
        if link is not None:
            await link.before(response, len(content))
        try:
            await response.prepare(self.request)
            await response.write_eof()
        except (ConnectionError, RuntimeError):
            return False
        if link is not None:
            return await link.came_through(self, len(content))
        return not self.gone.is_set()

    def close(self) -> None:
        """Close the connection once all is written, without a word of it in the response."""
        if self.request.transport is not None:
            self.request.transport.close()


class Doors:
    """The listening sockets of one trial."""

    def __init__(self, session: Session, services: Mapping[str, Service]) -> None:
        self._session = session
        self._services = services
        self.nemesis = Nemesis(session, self.refuse)
        self._server = WireServer(
            self._handle,
            arrived=self._arrived,
            ended=self._ended,
            access_log=None,
            handler_cancellation=True,
            logger=_LOG,
            request_factory=_request,
        )
        self._held: dict[str, socket.socket] = {}
        self._listeners: dict[str, asyncio.Server] = {}

    async def open(self) -> None:
        """Bind a port for each service and listen."""
        for name in SERVICES:
            self._held[name] = _bound(0)
            await self._listen(name)
        self._session.urls = {
            name: f"http://127.0.0.1:{held.getsockname()[1]}{PREFIXES[name]}" for name, held in self._held.items()
        }

    async def _listen(self, name: str) -> None:
        listening = _bound(self._held[name].getsockname()[1])
        loop = asyncio.get_running_loop()
        # Known before it listens, so that it is closed even where this is cancelled.
        self._listeners[name] = listener = await loop.create_server(
            self._server, sock=listening, backlog=LISTEN_BACKLOG, start_serving=False
        )
        await listener.start_serving()

    def refuse(self, kind: str, seconds: float) -> Awaitable[float]:
        """Stop listening for a service for some seconds; the awaitable gives the time it was really down.

        The port stays bound meanwhile, without listening, so that the kernel refuses every connection to it.
        """
        name = {"tool": "tools", "model": "model"}.get(kind, "human")
        self._listeners[name].close()
        return self._session.spawn(self._listen_again(name, seconds))

    async def _listen_again(self, name: str, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.sleep(seconds)
        await self._listen(name)
        return loop.time() - started

    async def close(self) -> None:
        """Close every connection and give the ports back. What runs beside the trial must have ended."""
        for listener in self._listeners.values():
            listener.close()
        # Not 0, which aiohttp takes for no limit: a client that no longer is a worker's would keep the trial for ever.
        await self._server.shutdown(CLOSE_SECONDS)
        for held in self._held.values():
            held.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request in a task of its own, so that a client that leaves does not end what is being done."""
        gone = asyncio.Event()
        self._server.begun(request)
        incoming = Incoming(self._session, self.nemesis, request, gone)
        task = self._session.spawn(self._serve(incoming))
        self._session.in_flight += 1
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            raise
        finally:
            self._session.in_flight -= 1
        # What was sent already is not sent again; and nothing goes out on a connection that was cut.
        return incoming.sent or web.Response()

    def _arrived(self, data: bytes) -> None:
        """Note a request that was on its way in when its worker died, and that was never begun."""
        path, headers, body = parse(data)
        generation = self._session.generations.get(_token(headers.get("authorization")))
        run = self._session.runs.get(headers.get("kintsugi-run") or "r0")
        if generation is not None and run is not None and not self._session.closing:
            self._never_served("request_of_the_dead", run, generation, path, body)

    def _never_served(self, what: str, run: Run, generation: Generation, path: str, body: Any) -> None:
        self._session.history.add(
            "doors",
            what,
            run=run.id,
            generation=generation.number,
            tool=path.removeprefix(f"{PREFIXES['tools']}/"),
            arguments=body,
        )

    def _ended(self, port: int, received: int) -> None:
        """Count the bytes of a connection that has ended."""
        self._session.received[port] += received

    async def _serve(self, incoming: Incoming) -> None:
        session, request = self._session, incoming.request
        try:
            incoming.body = json.loads(await request.read() or b"null")
        except (ValueError, RecursionError, ConnectionError, web.RequestPayloadError):
            await incoming.send(400, {"error": {"message": "the body is not JSON"}})
            return
        except web.HTTPRequestEntityTooLarge:
            await incoming.send(413, {"error": {"message": f"the body is longer than {BODY_BYTES_MAX} bytes"}})
            return
        await session.open_gate.wait()
        generation = session.generations.get(_token(request.headers.get("Authorization")))
        run = session.runs.get(request.headers.get("Kintsugi-Run") or "r0")
        if generation is None or run is None:
            status, message = (401, "unknown token") if generation is None else (404, "unknown run")
            session.history.add("doors", "turned_away", path=request.path, status=status)
            await incoming.send(status, {"error": {"message": message}})
            return
        incoming.number = session.next_request()
        incoming.run, incoming.generation, incoming.node = run, generation, generation.node
        generation.heard = True
        if generation.dead:
            self._never_served("request_of_the_dead", run, generation, request.path, incoming.body)
            incoming.cut(reset=True)
            return
        if generation.node in session.cut_off:
            self._never_served("cut_off", run, generation, request.path, incoming.body)
            session.cut_off[generation.node].met()
            await incoming.kept()
            return
        for name, prefix in PREFIXES.items():
            if request.path.startswith(f"{prefix}/"):
                incoming.service = name
                incoming.path = request.path.removeprefix(f"{prefix}/").split("/")
                await self._services[name](incoming)
                break
        if generation.dead and not incoming.answered:
            incoming.cut(reset=True)
        elif not incoming.answered:
            await incoming.send(404, {"error": {"message": f"there is nothing at {request.path}"}})


def _token(authorization: str | None) -> str:
    return (authorization or "").removeprefix("Bearer ")


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)


def _bound(port: int) -> socket.socket:
    """A socket bound to a loopback port (0: a free one) that others of ours may bind as well."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    bound.setblocking(False)  # noqa: FBT003 - the socket's own signature
    return bound
