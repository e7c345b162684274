"""The harness's end of a launcher: starts worker processes, kills them, and hears how each one really ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = [
    "Exit",
    "Launcher",
    "LauncherGone",
    "Process",
    "VerbFailed",
    "VerbSilent",
    "Workers",
    "plain_environment",
    "worker_environment",
]

LAUNCHER = Path(__file__).with_name("launcher.py")
START_SECONDS = 60.0
CALL_SECONDS = 30.0
"""How long a client verb may take, far beyond any time-out of a store."""
STOP_SECONDS = 5.0
"""How long a worker may take to stand still, or to run again, once it was told to."""
CLOSE_SECONDS = 5.0
"""How long a launcher may take to end by itself; one stuck in a SUT's client is killed, its workers with it."""


ENGINES_OWN = ("DBOS_", "LANGCHAIN_", "LANGGRAPH_", "LANGSMITH_", "OPENAI_", "OTEL_", "PG", "RESTATE_", "TEMPORAL_")
SECRETS = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL|JWT", re.IGNORECASE)
"""What the name of a variable holds whose value is nobody's business."""


def plain_environment() -> dict[str, str]:
    """The environment of this process for what it starts, without secrets and what a user has set for an engine.

    An engine would no longer be run with the settings that are shown.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENGINES_OWN) and not SECRETS.search(name)
    }


def worker_environment(
    urls: Mapping[str, str], token: str, state: Path, scratch: Path, worker_id: str, *, time_scale: float, cold: bool
) -> dict[str, str]:
    """What every worker is told: where ``tools``, ``model`` and ``human`` are, its token, its folders, its name.

    `time_scale` is wall seconds per second of workflow time. A `cold`-started worker finds its packages where the
    harness found them.
    """
    return {
        "KINTSUGI_TOOLS_URL": urls["tools"],
        "KINTSUGI_MODEL_URL": urls["model"],
        "KINTSUGI_HUMAN_URL": urls["human"],
        "KINTSUGI_TOKEN": token,
        "KINTSUGI_STATE_DIR": str(state),
        "KINTSUGI_SCRATCH_DIR": str(scratch),
        "KINTSUGI_WORKER_ID": worker_id,
        "KINTSUGI_TIME_SCALE": repr(time_scale),
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join(sys.path[1:]) if cold else "",
    }


class VerbFailed(RuntimeError):
    """A client verb of the SUT raised what the message says, or gave no answer in time."""


class VerbSilent(VerbFailed):
    """A client verb of the SUT gave no answer: it took too long, or its client died or reached nobody."""


class LauncherGone(RuntimeError):
    """The launcher ended, or never came up; the harness can't go on with this SUT."""


@dataclass(frozen=True)
class Exit:
    """How a process ended: its exit code (negative for a signal), the signal or 0, and the CPU seconds it used."""

    code: int
    signal: int
    cpu_seconds: float
    seen: str = ""
    """How it was seen, where not by the wait status of a launcher."""


@dataclass
class Process:
    """One worker process. `ended` holds its `Exit` once the launcher has reaped it."""

    id: str
    pid: int
    ended: asyncio.Future[Exit] = field(repr=False)
    running: bool = True
    """Whether it does not stand still, as the launcher last saw it."""
    turn: asyncio.Future[None] | None = field(default=None, repr=False)
    """Done once it has been seen to stop, or to go on, as it was last told to."""

    @property
    def alive(self) -> bool:
        """Whether it has not been reaped."""
        return not self.ended.done()


class Workers(Protocol):
    """Where the workers of a trial are started: a `Launcher`, or what runs each of them elsewhere."""

    async def spawn(self, environment: Mapping[str, str], folder: Path, log: Path, *, cold: bool) -> Process:
        """Start a worker that waits for `go`."""
        ...

    def go(self, process: Process) -> None:
        """Let a started worker run."""
        ...

    async def kill(self, process: Process) -> Exit:
        """Kill a worker and wait until it is gone; how it ended, which may be by itself, just before."""
        ...

    async def stop(self, process: Process) -> bool:
        """Have a worker stand still; whether it does."""
        ...

    async def resume(self, process: Process) -> bool:
        """Have a worker that stands still go on; whether it does."""
        ...


class Launcher:
    """A launcher process for one SUT; use `start`, then `close`."""

    def __init__(self, side: str, chains: str, environment: Mapping[str, str] | None = None) -> None:
        self._side, self._chains = side, chains
        self._environment = environment if environment is not None else {}
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._processes: dict[str, Process] = {}
        self._calls: set[asyncio.Future[Any]] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Start the launcher and wait until it has loaded the SUT. Raises LauncherGone."""
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(LAUNCHER),
            str(os.getpid()),
            self._side,
            self._chains,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**plain_environment(), **self._environment},
            start_new_session=True,
            limit=2**24,
        )
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait_for(self._ready, START_SECONDS)
        except TimeoutError:
            raise LauncherGone(f"the launcher of {self._side} was not ready after {START_SECONDS:g} s") from None

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self._hear(json.loads(line))
        finally:
            # Whoever waits is told, even where a line could not be understood.
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._give_up(await self._process.wait())

    def _give_up(self, code: int) -> None:
        gone = LauncherGone(f"the launcher of {self._side} ended with {code}; see its output above")
        waiting = [self._ready, *self._answers.values(), *(process.ended for process in self._processes.values())]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(gone)
                future.exception()

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "ready" in message:
            # Who waited for it may have been interrupted.
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "exited" in message:
            process = self._processes.pop(message["id"])
            process.ended.set_result(Exit(message["exited"], message["signal"], message["cpu_seconds"]))
        elif "running" in message:
            process = self._processes[message["id"]]
            process.running = message["running"]
            if process.turn is not None and not process.turn.done():
                process.turn.set_result(None)
        elif (future := self._answers.pop(message["id"], None)) is not None and not future.done():
            if "error" in message:
                kind = VerbSilent if message.get("silent") else RuntimeError
                future.set_exception(kind(message["error"]))
            else:
                future.set_result(message["pid"] if "pid" in message else message["result"])

    def _send(self, **command: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.stdin.is_closing() or self._process.returncode is not None:
            raise LauncherGone(f"the launcher of {self._side} has ended")
        self._process.stdin.write((json.dumps(command) + "\n").encode())

    async def _ask(self, name: str, **command: Any) -> Any:
        future = self._answers[name] = asyncio.get_running_loop().create_future()
        try:
            self._send(id=name, **command)
            return await future
        finally:
            self._answers.pop(name, None)

    async def spawn(self, environment: Mapping[str, str], folder: Path, log: Path, *, cold: bool) -> Process:
        """Start a worker that waits for `go`: forked from the warmed launcher, or executed afresh (`cold`).

        Raises LauncherGone, and RuntimeError where the system has no room for another process. Cancelled, it leaves
        no worker behind.
        """
        name = f"w{next(self._ids)}"
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        process = Process(name, 0, ended)
        self._processes[name] = process
        try:
            process.pid = await self._ask(
                name, do="start", environment=dict(environment), folder=str(folder), log=str(log), cold=cold
            )
        except asyncio.CancelledError:
            # Commands are obeyed in their order, so that this one finds the worker, which waits for its go.
            with contextlib.suppress(LauncherGone):
                self._send(do="signal", id=name, signal=int(signal.SIGKILL))
                await asyncio.wait([ended])
            raise
        except RuntimeError:
            self._processes.pop(name, None)
            raise
        return process

    def go(self, process: Process) -> None:
        """Let a started worker run."""
        self._send(do="go", id=process.id)

    async def kill(self, process: Process) -> Exit:
        """SIGKILL a worker and wait until it has been reaped; how it ended, which may be by itself, just before."""
        if process.alive:
            self._send(do="signal", id=process.id, signal=int(signal.SIGKILL))
        return await asyncio.shield(process.ended)

    async def stop(self, process: Process) -> bool:
        """SIGSTOP a worker, with all it has started, and wait until it stands still; if it does not, let it go on."""
        await self._turn(process, signal.SIGSTOP, running=False)
        if process.running and process.alive:
            self._send(do="signal", id=process.id, signal=int(signal.SIGCONT))
        return process.alive and not process.running

    async def resume(self, process: Process) -> bool:
        """SIGCONT a worker that stands still, and wait until it runs again; whether it does."""
        await self._turn(process, signal.SIGCONT, running=True)
        return process.alive and process.running

    async def _turn(self, process: Process, number: signal.Signals, *, running: bool) -> None:
        """Have a worker stop or go on, and wait for the wait status that says so, or for its end."""
        if not process.alive or process.running is running:
            return
        process.turn = asyncio.get_running_loop().create_future()
        self._send(do="signal", id=process.id, signal=int(number))
        futures: list[asyncio.Future[Any]] = [process.turn, process.ended]
        await asyncio.wait(futures, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def call(self, verb: str, *arguments: Any) -> Any:
        """Call a client verb of the SUT's side in the launcher's process.

        Raises VerbFailed with what it raised, VerbSilent where it gave no answer, and LauncherGone.
        """
        asked = asyncio.ensure_future(self._ask(f"c{next(self._ids)}", do="call", verb=verb, arguments=arguments))
        self._calls.add(asked)
        asked.add_done_callback(self._calls_end)
        try:
            # Not wait_for, which before Python 3.12 forgets that it was cancelled where the answer has just come.
            async with asyncio.timeout(CALL_SECONDS):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise VerbSilent(f"{verb} gave no answer within {CALL_SECONDS:g} s") from None
        except (LauncherGone, VerbFailed):
            raise
        except RuntimeError as error:
            raise VerbFailed(str(error)) from error

    def _calls_end(self, asked: asyncio.Future[Any]) -> None:
        self._calls.discard(asked)
        if not asked.cancelled():
            # Nobody may be left to be told.
            asked.exception()

    async def settle(self, seconds: float) -> None:
        """Wait until no client verb is under way any more, those included that nobody waits for; not for long."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)

    async def close(self) -> None:
        """End the launcher, which kills and reaps whatever still runs. Closing again does nothing."""
        if self._process is None or self._reader is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        _, late = await asyncio.wait([self._reader], timeout=CLOSE_SECONDS)
        if late and self._process.returncode is None:
            self._process.kill()
        await asyncio.wait([self._reader])
