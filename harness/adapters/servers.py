"""Server processes that trials share: started on loopback, watched until they answer, stopped by pid."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from kintsugi.harness.adapters.adapter import Unavailable
from kintsugi.harness.processes import plain_environment

__all__ = ["LocalServer", "ServerProcess", "accepts", "answers", "die_with", "free_ports", "on_free_ports"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
PORT_ATTEMPTS = 5
PR_SET_PDEATHSIG = 1
TAIL_CHARACTERS = 300


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on at this moment, all different."""
    with contextlib.ExitStack() as held:
        found = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
        return found


async def on_free_ports(
    count: int, start: Callable[..., Awaitable[None]], taken: str, attempts: int = PORT_ATTEMPTS
) -> list[int]:
    """The loopback ports on which `start`, which is given them one by one, has brought a server up.

    Somebody else may have taken one since it was seen to be free: where `taken` is in what Unavailable says, others are
    chosen, up to `attempts` times in all. Raises Unavailable.
    """
    for attempt in range(1, attempts + 1):
        ports = free_ports(count)
        try:
            await start(*ports)
        except Unavailable as problem:
            if attempt == attempts or taken not in str(problem):
                raise
        else:
            return ports
    raise AssertionError("unreachable")


async def accepts(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200."""
    import aiohttp

    try:
        async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout(1)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


class ServerProcess:
    """One server process, which dies with the harness. Its output goes to a log in its folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._log: Path | None = None
        self._used = self._used_before = 0.0
        self._again: Callable[[], Awaitable[None]] | None = None

    async def start(
        self,
        argv: Sequence[str],
        folder: Path,
        ready: Callable[[], Awaitable[bool]],
        *,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        at_death: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start `argv` in `folder`, as `user` (a user id) in that user's group, and wait until `ready` says so.

        `at_death` is what the kernel sends it when the harness ends without having closed it.
        Raises Unavailable, with nothing left running, where it does not come up; its last words are in the message.
        """
        self._prepare(folder)
        assert self._log is not None
        self._again = partial(self.start, argv, folder, ready, environment=environment, user=user, at_death=at_death)
        parent = os.getpid()
        try:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    cwd=folder,
                    env={**plain_environment(), **(environment or {})},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    user=user,
                    group=None if user is None else pwd.getpwuid(user).pw_gid,
                    extra_groups=None if user is None else [],
                    preexec_fn=lambda: die_with(parent, at_death),
                )
        except OSError as error:
            raise Unavailable(f"{self.name}: {argv[0]} can't be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._up(ready):  # noqa: ASYNC110 - a server tells nobody that it is up
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            words = self._last_words()
            await self.close()
            raise Unavailable(f"{self.name}: the server did not come up in {START_SECONDS:g} s: {words}") from None
        except BaseException:
            await self.close()
            raise

    def _prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{self.name}.log"

    async def _up(self, ready: Callable[[], Awaitable[bool]]) -> bool:
        """Whether it is ready. Raises Unavailable where it has ended."""
        assert self._process is not None
        if self._process.returncode is not None:
            code = self._process.returncode
            raise Unavailable(f"{self.name}: the server ended with {code}: {self._last_words()}")
        return await ready()

    def _last_words(self) -> str:
        assert self._log is not None
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return " ".join(text.split())[-TAIL_CHARACTERS:] or "it said nothing"

    @property
    def pid(self) -> int:
        """Its process id. Only after `start`."""
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> int:
        """SIGKILL it and its children, and wait until none is left; its process id.

        Raises Unavailable where it had ended by itself.
        """
        process = self._process
        assert process is not None
        self._used_before, self._used = self.cpu_seconds(), 0.0
        family = [process.pid, *_children(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = await process.wait()
        while any(map(_lives, family)):  # noqa: ASYNC110 - its children are not ours, and nobody tells of their end
            await asyncio.sleep(POLL_SECONDS)
        self._process = None
        if code != -signal.SIGKILL:
            raise Unavailable(f"{self.name}: the server had ended with {code}: {self._last_words()}")
        return process.pid

    async def restart(self) -> None:
        """Start it again as it was started, after a `kill`. Raises Unavailable."""
        assert self._again is not None
        await self._again()

    def cpu_seconds(self) -> float:
        """The CPU time of its session's processes that live, with that of the children they have reaped."""
        if self._process is not None and self._process.returncode is None:
            self._used = max(self._used, _session_cpu_seconds(self._process.pid))
        return self._used_before + self._used

    async def close(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop, kill what is left of its process group after a while, and wait for it."""
        process = self._process
        if process is None:
            return
        self.cpu_seconds()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        self._process = None


class LocalServer:
    """What every `Server` of one process does alike. Its own class starts it, and sets the port that it serves."""

    def __init__(self, name: str) -> None:
        self._process = ServerProcess(name)
        self._port = 0

    async def kill(self) -> int:
        """See `Server`."""
        return await self._process.kill()

    async def listens(self) -> bool:
        """See `Server`."""
        return await accepts(self._port)

    async def restart(self) -> None:
        """See `Server`."""
        await self._process.restart()

    def cpu_seconds(self) -> float:
        """The CPU time that it and the processes it has started have used so far."""
        return self._process.cpu_seconds()

    async def close(self) -> None:
        """Stop it."""
        await self._process.close()


def die_with(parent: int, number: signal.Signals) -> None:
    """In the child: have the kernel send it a signal when the harness ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _children(parent: int) -> list[int]:
    """The processes that a process has started itself."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    """Whether a process is there and has not ended; one that has ended may wait for its new parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _session_cpu_seconds(session: int) -> float:
    """User and system time of a server's processes, read off /proc: those of its session, and its own children.

    PostgreSQL's backends, for one, make a session of their own each.
    """
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if session in (int(fields[1]), int(fields[3])):
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
