"""Toxiproxy between the workers and what they talk to: one server for all, and a proxy for each link of a trial."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from kintsugi.harness.adapters.adapter import DISTRIBUTION, Unavailable
from kintsugi.harness.adapters.servers import accepts, die_with
from kintsugi.harness.means.means import Part
from kintsugi.harness.processes import plain_environment
from kintsugi.harness.session import Session

if TYPE_CHECKING:
    from kintsugi.harness.means.toxiproxy_control import Control

__all__ = ["TOXIPROXY", "Toxiproxy", "program"]

PROGRAM = "toxiproxy-server"
NAMED = "KINTSUGI_TOXIPROXY"
ADVICE = f"in a clone with Go: make toxiproxy; else brew or a release of Shopify/toxiproxy, on PATH or named in {NAMED}"
VERSION_MIN = Version("2.5")
"""The first that counts bytes."""
UNRELEASED = "git"
"""What one says of itself that was built without being told its version."""
VERSION_SECONDS = 10.0
START_SECONDS = 30.0
POLL_SECONDS = 0.02
STORE = "store"
LOOPBACK = re.compile(r"127\.0\.0\.1:([0-9]+)")


def program() -> Path:
    """Where the server's program is: as named, beside this Python, or on PATH. Raises Unavailable."""
    named = os.environ.get(NAMED, "")
    beside = Path(sys.executable).with_name(PROGRAM)
    found = named or (str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM))
    if not found:
        raise Unavailable(f"toxiproxy: {PROGRAM} was not found; {ADVICE}")
    if not os.access(found, os.X_OK):
        raise Unavailable(f"toxiproxy: {NAMED} names no program: {found}; {ADVICE}")
    return Path(found)


class _Server:
    """The server of this process. It dies with the thread that started it, and at the latest with this process.

    Its port stays bound by us, so that nobody else can have it between being found free and being listened on.
    """

    def __init__(self) -> None:
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        self._program = str(program())
        argv = [self._program, "-host", "127.0.0.1", "-port", str(self.port), "-proxy-metrics"]
        parent = os.getpid()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=plain_environment(),
            preexec_fn=lambda: die_with(parent, signal.SIGKILL),  # noqa: PLW1509 - forked from the thread it dies with
        )
        self.owner = parent
        self.thread = threading.get_ident()

    def lives(self) -> bool:
        """Whether it can be used here: it runs, and this is the process that started it."""
        return self.owner == os.getpid() and self.process.poll() is None

    async def up(self) -> Control:
        """Wait until it answers. Raises Unavailable."""
        from kintsugi.harness.means.toxiproxy_control import Control

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self.process.poll() is None:
                    if await accepts(self.port):
                        return Control(self.port)
                    await asyncio.sleep(POLL_SECONDS)
        raise Unavailable(f"toxiproxy: {PROGRAM} did not come up; try {self._program} -version")

    def close(self) -> None:
        """End it, and wait for it. Only its own process, and only once."""
        self._held.close()
        if self.owner == os.getpid() and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Toxiproxy:
    """The means by that name."""

    about = "TCP faults"
    takes: frozenset[Part] = frozenset({"addresses"})

    def __init__(self) -> None:
        self._server: _Server | None = None

    def check(self) -> str:
        """The versions of the server and of the package that speaks to it."""
        if importlib.util.find_spec("toxiproxy") is None:
            raise Unavailable(f"toxiproxy: toxiproxy-python is not installed; pip install '{DISTRIBUTION}[toxiproxy]'")
        path = program()
        try:
            said = subprocess.run(
                [path, "-version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
            )
            version = said.stdout.split()[-1]
            fits = version == UNRELEASED or Version(version) >= VERSION_MIN
        except (OSError, subprocess.SubprocessError, InvalidVersion, IndexError):
            raise Unavailable(f"toxiproxy: {path} does not say its version; {ADVICE}") from None
        if not fits:
            raise Unavailable(f"toxiproxy: {PROGRAM} {version} was found, {VERSION_MIN} is needed; {ADVICE}")
        return f"{PROGRAM} {version}"

    @asynccontextmanager
    async def prepare(self, session: Session) -> AsyncIterator[None]:
        """Have the workers reach each service, and their store where its address can be changed, through a proxy."""
        from kintsugi.harness.means.links import StoreLink
        from kintsugi.harness.means.service_link import ServiceLink

        control = await self.server().up()
        trial = secrets.token_hex(6)
        async with AsyncExitStack() as stack:

            async def through(kind: type[ServiceLink | StoreLink], name: str, address: str) -> str:
                """The address in place of `address`, by a proxy of its own."""
                upstream = LOOPBACK.search(address)
                assert upstream is not None, f"{address} is not on loopback"
                port = stack.enter_context(hold_port()).getsockname()[1]
                link = kind(session, control, f"kintsugi-{trial}-{name}", port, int(upstream[1]), name)
                stack.push_async_callback(link.close)
                await link.open()
                session.links[name] = link
                return address.replace(upstream[0], f"127.0.0.1:{port}")

            session.urls = {name: await through(ServiceLink, name, url) for name, url in session.urls.items()}
            variable = session.adapter.store_address
            if variable:
                address = session.environment[variable]
                session.environment[variable] = await through(StoreLink, STORE, address)
                # Of several nodes each has a way of its own, so that one alone can lose it.
                for node in session.nodes() if session.trial.nodes > 1 else []:
                    own = {variable: await through(StoreLink, f"{STORE} of {node}", address)}
                    session.node_environments[node] = own
            yield

    def server(self) -> _Server:
        """The server, started where there is none that lives. Nothing else can run meanwhile, so there is only one."""
        if self._server is None or not self._server.lives():
            if self._server is not None:
                self.close()
            self._server = _Server()
            atexit.register(self.close)
        return self._server

    def close(self) -> None:
        """End the server of this process, if there is one; the next trial starts another."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            atexit.unregister(self.close)


def hold_port() -> socket.socket:
    """A loopback port that is bound and not listened on: nobody gets it by chance, and Toxiproxy by its number."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


TOXIPROXY = Toxiproxy()
