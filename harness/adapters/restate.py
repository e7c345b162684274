"""Restate: its server keeps the journals and calls the workers; the workflow's steps are the SDK's durable steps."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from kintsugi.harness.adapters.adapter import Adapter, Unavailable
from kintsugi.harness.adapters.servers import LocalServer, answers, on_free_ports

__all__ = ["ADAPTERS", "RestateServer", "found_server"]

SERVER = "restate-server"
ADMIN, INGRESS = "KINTSUGI_RESTATE_ADMIN", "KINTSUGI_RESTATE_INGRESS"
"""The variables in which the SUT's side finds the server's two addresses, URLs."""
VERSIONS = SpecifierSet("~=1.7.12")
ADVICE = "make engines, npm install @restatedev/restate-server, or KINTSUGI_RESTATE_SERVER=/path/to/restate-server"
VERSION_SECONDS = 10.0
STARTS = 3
"""How often the server is started where a port was taken between choosing and binding it."""

PLACE = """\
node-name = "kintsugi"
bind-ip = "127.0.0.1"
bind-port = {fabric}
advertised-address = "http://127.0.0.1:{fabric}/"
listen-mode = "tcp"
disable-telemetry = true
log-disable-ansi-codes = true
"""
"""Where it is, and what it says; the same in both profiles, and all that differs from the server's defaults in one."""

PORTS = """
[admin]
bind-port = {admin}

[ingress]
bind-port = {ingress}
"""

SIZE = """\
default-num-partitions = 4
rocksdb-total-memory-size = "256.0 MiB"
"""
DETECTION = """
[default-retry-policy]
initial-interval = "100ms"
exponentiation-factor = 2.0
max-interval = "500ms"
max-attempts = "unlimited"

[worker.invoker]
connect-timeout = "1s"
http2-keep-alive-interval = "800ms"
http2-keep-alive-timeout = "1s"
"""


def server_path() -> Path:
    """Where the server's program is. Raises Unavailable."""
    named = os.environ.get("KINTSUGI_RESTATE_SERVER", "")
    if named:
        if not os.access(named, os.X_OK):
            raise Unavailable(f"restate: KINTSUGI_RESTATE_SERVER names no program: {named}")
        return Path(named)
    on_path = shutil.which(SERVER)
    if on_path:
        return Path(on_path)
    # The platform's package holds the program itself; the one beside it is a wrapper that needs node.
    for found in sorted(Path(sys.prefix, "npm", "node_modules", "@restatedev").glob(f"{SERVER}-*/bin/{SERVER}")):
        return found
    raise Unavailable(f"restate: {SERVER} was not found; {ADVICE}")


def found_server() -> str:
    """The server's program and its version, as one line. Raises Unavailable."""
    path = server_path()
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True)
        version = Version(said.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, InvalidVersion, IndexError):
        raise Unavailable(f"restate: {path} does not say its version; {ADVICE}") from None
    if version not in VERSIONS:
        raise Unavailable(f"restate: {SERVER} {version} was found, {VERSIONS} is needed; {ADVICE}")
    return f"{SERVER} {version}"


class RestateServer(LocalServer):
    """One Restate server, with its data below a folder. `first` and `last` are what its configuration says of it."""

    def __init__(self, first: str = "", last: str = "") -> None:
        super().__init__(SERVER)
        self._first, self._last = first, last

    async def start(self, folder: Path) -> Mapping[str, str]:
        """Start it on free ports; its addresses. Raises Unavailable."""
        path = server_path()

        async def start(fabric: int, admin: int, ingress: int) -> None:
            text = PLACE.format(fabric=fabric) + self._first + PORTS.format(admin=admin, ingress=ingress) + self._last
            file = await asyncio.to_thread(_written, folder / "server.toml", text)
            # Data of its own, so that one that was given up for its ports leaves nothing to the next; and what it
            # writes for the moment beside them, as it never takes that away when it is killed.
            words = [str(path), "--config-file", "server.toml", "--base-dir", f"data{fabric}", "--no-logo"]
            passing = {"TMPDIR": str(file.parent)}
            await self._process.start(words, folder, partial(_ready, admin, ingress), environment=passing)

        _, admin, ingress = await on_free_ports(3, start, "in use", STARTS)
        self._port = ingress
        return {ADMIN: f"http://127.0.0.1:{admin}", INGRESS: f"http://127.0.0.1:{ingress}"}


def _written(path: Path, text: str) -> Path:
    """Write a file, and its folder; its absolute path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path.absolute()


async def _ready(admin: int, ingress: int) -> bool:
    """Whether it takes requests, and every partition has its leader, which is later."""
    import aiohttp

    if not await answers(f"http://127.0.0.1:{ingress}/restate/health"):
        return False
    query = {"query": "SELECT count(1) FROM sys_invocation"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(1)) as session,
            session.post(f"http://127.0.0.1:{admin}/query", json=query) as response,
        ):
            return response.status == HTTPStatus.OK
    except (aiohttp.ClientError, TimeoutError):
        return False


SIDE = "kintsugi.runtime.engines.restate"
SAME = {
    "server": "one node; what it acknowledges is fsynced (default)",
    "idempotency keys": "from the run and the call, the same at every attempt",
    "fail-over": "workers share the deployment's port, where a load balancer would stand",
}

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="restate",
        about="Restate: workflows, durable steps and promises; its server notices a dead or hung worker within 2 s.",
        side=f"{SIDE}:TUNED",
        decisions="push",
        fails_over=True,
        profile="tuned",
        extra="restate",
        settings={
            **SAME,
            "invocation retry": "100 ms doubling to 500 ms, unlimited",
            "step retry": "the policy's budget (RunOptions), Retry-After honoured (RetryableError)",
            "HTTP/2 keep-alive": "every 0.8 s, to be answered within 1 s",
            "inactivity and abort time-out": "1 min and 10 min (default)",
            "before a repeat": "looked for where it can be found; at most once and a person where it can't",
        },
        retires=True,
        server=lambda: RestateServer(SIZE, DETECTION),
        check=found_server,
    ),
    Adapter(
        name="restate_default",
        about="Restate as its quick-start has it, with the server's default settings.",
        side=f"{SIDE}:DEFAULT",
        decisions="push",
        fails_over=True,
        profile="default",
        extra="restate",
        settings={
            **SAME,
            "invocation retry": "500 ms doubling to 1 min, 70 attempts, then paused (default)",
            "step retry": "the invocation's (default)",
            "HTTP/2 keep-alive": "every 40 s, to be answered within 20 s (default)",
            "inactivity and abort time-out": "1 min and 10 min (default)",
            "before a repeat": "nothing",
        },
        retires=True,
        server=RestateServer,
        check=found_server,
    ),
)
