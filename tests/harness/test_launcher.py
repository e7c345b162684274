"""The launcher and its workers, as real processes: what is started, killed, reaped, and what never outlives whom."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from kintsugi.harness import processes
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.adapters.adapter import versions
from kintsugi.harness.processes import Exit, Launcher, LauncherGone, Process, VerbFailed, VerbSilent

pytestmark = pytest.mark.process

SIDE = '''
"""A SUT's side whose workers tell of themselves on a socket, which also tells of their death."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time

CHAINS = {}
print("a SUT may print when it is loaded")


def told(where="", **data):
    line = socket.socket(socket.AF_UNIX)
    line.connect(where or os.environ["PROBE_SOCKET"])
    line.sendall(json.dumps({"id": os.environ.get("PROBE_ID"), "pid": os.getpid(), **data}).encode() + b"\\n")
    return line


async def work(environment, chains):
    line = told(environment=dict(os.environ), folder=os.getcwd(), session=os.getsid(0),
                input=sys.stdin.read(), modules=sorted(sys.modules))
    what, _, number = environment["PROBE_DO"].partition(" ")
    print("what a worker prints")
    sys.stdout.flush()
    if what == "exit":
        os._exit(int(number))
    if what == "burn":
        until = time.process_time() + float(number)
        while time.process_time() < until:
            pass
        return
    if what == "have":
        # A child that neither its parent's end nor a closed terminal would end.
        child = subprocess.Popen(["sleep", "60"])
        told(child=child.pid)
        what = number
    if what == "wait":
        line.recv(1)


def echo(*arguments):
    return list(arguments)


def refuse():
    raise ValueError("not today")


def reach_nobody():
    try:
        raise ConnectionRefusedError("nobody is there")
    except OSError as error:
        raise RuntimeError("the server can't be reached") from error


def nonsense():
    return object()


def block(where=""):
    line = told(where) if where else None
    time.sleep(60)


def die():
    os._exit(7)
'''

WRAPPED = """
import importlib, os
side = importlib.import_module(os.environ["PROBED"])
from probe_side import CHAINS, work
"""

HARNESS = """
import asyncio, json, sys
from pathlib import Path
from kintsugi.harness.processes import Launcher

async def main():
    launcher = Launcher("probe_side", "probe_side:CHAINS")
    await launcher.start()
    environment, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    for cold in (False, True):
        launcher.go(await launcher.spawn(environment, folder, folder / "log", cold=cold))
    await launcher.spawn(environment, folder, folder / "log", cold=False)
    stuck = Launcher("probe_side", "probe_side:CHAINS")
    await stuck.start()
    blocked = asyncio.ensure_future(stuck.call("block", environment["PROBE_SOCKET"]))
    print(launcher._process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Heard:
    """The other end of the workers' socket: what each has told, and its connection, which ends when it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._connections: dict[int, asyncio.StreamReader] = {}
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._listen, self.path, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = json.loads(await reader.readline())
        # The writer is kept, or the connection would be closed from this end.
        self._connections[told["pid"]] = reader
        self._writers.append(writer)
        self.told.put_nowait(told)

    async def next(self) -> dict[str, Any]:
        """What the next worker tells."""
        return await asyncio.wait_for(self.told.get(), 20)

    async def death(self, pid: int) -> None:
        """Wait until a worker's connection has ended."""
        assert await asyncio.wait_for(self._connections[pid].read(), 20) == b""


async def gone(pid: int) -> None:
    """Wait until a process that is no child of ours has ended, though perhaps not been reaped by its parent."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the SUT's side, where a launcher finds it."""
    folder = tmp_path / "side"
    folder.mkdir()
    (folder / "probe_side.py").write_text(SIDE)
    (folder / "probe_wrapped.py").write_text(WRAPPED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path[1:]]))
    return folder


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    async with Heard(tmp_path / "socket") as listening:
        yield listening


@pytest.fixture
async def launcher(side: Path) -> AsyncIterator[Launcher]:
    launched = Launcher("probe_side", "probe_side:CHAINS")
    await launched.start()
    yield launched
    await launched.close()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def start(launcher: Launcher, heard: Heard, tmp_path: Path) -> Start:
    """Starts a worker: ``await start("exit 3")``; it is let go unless told otherwise."""

    async def started(do: str, name: str = "w", *, cold: bool = False, go: bool = True) -> Process:
        environment = environment_of(heard, do, name)
        process = await launcher.spawn(environment, tmp_path, tmp_path / f"{name}.log", cold=cold)
        if go:
            launcher.go(process)
        return process

    return started


def environment_of(heard: Heard, do: str, name: str = "w") -> dict[str, str]:
    paths = os.environ["PYTHONPATH"]
    return {"PROBE_SOCKET": str(heard.path), "PROBE_DO": do, "PROBE_ID": name, "PYTHONPATH": paths}


def pid_of(launcher: Launcher) -> int:
    assert launcher._process is not None
    return launcher._process.pid


# --- a worker's life ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "cold"])
async def test_a_worker_is_what_it_was_told_to_be(heard: Heard, start: Start, tmp_path: Path, cold: bool) -> None:
    process = await start("exit 0", "this one", cold=cold)
    told = await heard.next()
    assert (await process.ended).code == 0
    assert (told["id"], told["pid"]) == ("this one", process.pid)
    # Nothing of the harness's own environment: PATH, HOME, proxies, keys.
    interpreter_s_own = {"LC_CTYPE"}
    assert set(told["environment"]) - interpreter_s_own == set(environment_of(heard, ""))
    assert (told["folder"], told["input"]) == (str(tmp_path), "")
    # A session of its own, so that Ctrl-C at the terminal does not reach it.
    assert told["session"] == process.pid
    assert (tmp_path / "this one.log").read_text().splitlines()[-1] == "what a worker prints"


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "cold"])
@pytest.mark.parametrize(
    "sut", [pytest.param(name, marks=[pytest.mark.engines] if one.extra else []) for name, one in ADAPTERS.items()]
)
async def test_a_worker_carries_nothing_of_the_harness(
    side: Path, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sut: str, cold: bool
) -> None:
    try:
        versions(ADAPTERS[sut])
    except Unavailable as missing:
        pytest.skip(str(missing))
    module = ADAPTERS[sut].side.split(":")[0]
    monkeypatch.setenv("PROBED", module)
    launcher = Launcher("probe_wrapped", ADAPTERS[sut].chains)
    await launcher.start()
    environment = {**environment_of(heard, "exit 0"), "PROBED": module}
    launcher.go(await launcher.spawn(environment, tmp_path, tmp_path / "log", cold=cold))
    modules = set((await heard.next())["modules"])
    await launcher.close()
    assert {module, ADAPTERS[sut].chains.split(":")[0]} <= modules
    ours = {name.split(".")[1] for name in modules if name.startswith("kintsugi.")}
    assert ours == {"runtime", "golden_workflows"}
    # What only the harness and its reports need would be paid for by every worker; an engine may need some of it.
    assert ADAPTERS[sut].extra or not modules & {"click", "rich", "pandas", "matplotlib", "scipy", "litellm", "docker"}


async def test_a_worker_waits_for_its_go(heard: Heard, launcher: Launcher, start: Start) -> None:
    waiting = await start("exit 4", "waiting", go=False)
    await (await start("exit 0", "other")).ended
    assert (await heard.next())["id"] == "other"
    assert waiting.alive
    launcher.go(waiting)
    assert (await heard.next())["id"] == "waiting"
    assert (await waiting.ended).code == 4


async def test_a_kill_is_over_when_the_worker_has_been_reaped(heard: Heard, launcher: Launcher, start: Start) -> None:
    process = await start("wait")
    pid = (await heard.next())["pid"]
    ended = await launcher.kill(process)
    assert (ended.code, ended.signal) == (-9, 9)
    assert not Path(f"/proc/{pid}").exists()
    # Killed again, it has still ended as it did.
    assert await launcher.kill(process) == ended


def states(pid: int) -> set[str]:
    """How the kernel has the threads of a process: T where they stand still."""
    return {path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}


async def test_a_worker_that_is_stopped_stands_still_with_all_it_has_started_until_it_goes_on(
    heard: Heard, launcher: Launcher, start: Start
) -> None:
    process = await start("have wait")
    child = next(told["child"] for told in (await heard.next(), await heard.next()) if "child" in told)
    assert await launcher.stop(process)
    assert states(process.pid) == {"T"}
    # The signal is on its way to the child; only its parent is told when it has arrived.
    while states(child) != {"T"}:
        await asyncio.sleep(0)
    assert await launcher.stop(process), "it stands still already"
    assert await launcher.resume(process)
    assert "T" not in states(process.pid) | states(child)
    assert await launcher.resume(process), "it goes on already"
    assert (await launcher.kill(process)).signal == 9


async def test_a_worker_that_stands_still_can_be_killed(heard: Heard, launcher: Launcher, start: Start) -> None:
    process = await start("wait")
    await heard.next()
    assert await launcher.stop(process)
    assert (await launcher.kill(process)).signal == 9
    assert not await launcher.resume(process)


async def test_a_worker_that_has_ended_can_t_be_stopped(heard: Heard, launcher: Launcher, start: Start) -> None:
    process = await start("exit 0")
    await heard.death((await heard.next())["pid"])
    assert not await launcher.stop(process)
    assert not await launcher.resume(process)


async def test_a_worker_that_does_not_stop_in_time_is_let_go_again(
    heard: Heard, launcher: Launcher, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would wake it: the launcher is halted, so that the stop comes to pass only after it was given up."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.05)
    process = await start("wait")
    await heard.next()
    os.kill(pid_of(launcher), signal.SIGSTOP)
    assert not await launcher.stop(process)
    os.kill(pid_of(launcher), signal.SIGCONT)
    await launcher.call("echo")
    assert "T" not in states(process.pid)


async def test_a_worker_that_ended_by_itself_was_not_killed(heard: Heard, launcher: Launcher, start: Start) -> None:
    process = await start("exit 3")
    await heard.death((await heard.next())["pid"])
    ended = await launcher.kill(process)
    assert (ended.code, ended.signal) == (3, 0)


async def test_a_worker_that_ended_a_moment_before_its_kill_was_not_killed(
    heard: Heard, launcher: Launcher, start: Start
) -> None:
    """The signal meets a process that is dead but not reaped, and must not be taken for its end."""
    process = await start("exit 3", go=False)
    launcher.go(process)
    await launcher.call("echo")
    os.kill(pid_of(launcher), signal.SIGSTOP)
    await heard.death((await heard.next())["pid"])
    killed = asyncio.ensure_future(launcher.kill(process))
    os.kill(pid_of(launcher), signal.SIGCONT)
    assert ((await killed).code, (await killed).signal) == (3, 0)


async def test_a_worker_that_dies_before_its_go_harms_nobody(launcher: Launcher, start: Start) -> None:
    """The launcher wrote to a gate that it had closed, and died of it with every other worker."""
    process = await start("exit 0", go=False)
    os.kill(process.pid, signal.SIGKILL)
    assert (await process.ended).signal == 9
    launcher.go(process)
    assert (await (await start("exit 5")).ended).code == 5


async def test_cpu_seconds_are_the_worker_s_own(start: Start) -> None:
    busy, idle = await start("burn 0.3", "busy"), await start("exit 0", "idle")
    assert 0.3 <= (await busy.ended).cpu_seconds < 1.0
    assert (await idle.ended).cpu_seconds < 0.2


async def test_each_worker_of_many_has_its_own_end(launcher: Launcher, start: Start) -> None:
    before = len(os.listdir(f"/proc/{pid_of(launcher)}/fd"))
    workers = await asyncio.gather(*(start(f"exit {number}", str(number)) for number in range(24)))
    ends = await asyncio.gather(*(worker.ended for worker in workers))
    assert [end.code for end in ends] == list(range(24))
    assert len(os.listdir(f"/proc/{pid_of(launcher)}/fd")) == before


async def test_a_cancelled_start_leaves_no_worker(launcher: Launcher, start: Start) -> None:
    """A trial that was over while a worker was being started left it waiting for its go for ever."""
    os.kill(pid_of(launcher), signal.SIGSTOP)
    starting = asyncio.ensure_future(start("wait"))
    await asyncio.sleep(0)
    starting.cancel()
    os.kill(pid_of(launcher), signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await starting
    await launcher.call("echo")
    assert children(pid_of(launcher)) == []


# --- client verbs -------------------------------------------------------------------------------------------


async def test_a_verb_s_result_or_error_comes_back(launcher: Launcher) -> None:
    assert await launcher.call("echo", 1, {"two": [3]}) == [1, {"two": [3]}]
    with pytest.raises(RuntimeError, match="ValueError: not today"):
        await launcher.call("refuse")
    with pytest.raises(RuntimeError, match="TypeError"):
        await launcher.call("nonsense")
    with pytest.raises(RuntimeError, match="AttributeError"):
        await launcher.call("unheard_of")
    assert await asyncio.gather(*(launcher.call("echo", n) for n in range(9))) == [[n] for n in range(9)]


async def test_a_client_that_got_no_answer_is_told_from_one_that_was_turned_down(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VerbFailed, match="not today") as turned_down:
        await launcher.call("refuse")
    assert not isinstance(turned_down.value, VerbSilent)
    with pytest.raises(VerbSilent, match="the server can't be reached"):
        await launcher.call("reach_nobody")
    monkeypatch.setattr(processes, "CALL_SECONDS", 0.0)
    with pytest.raises(VerbSilent, match="block gave no answer within 0 s"):
        await launcher.call("block")


async def test_a_call_that_is_cancelled_as_its_answer_comes_is_cancelled(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on, and with it a run of trials that had been interrupted."""
    answer = asyncio.get_running_loop().create_future()

    async def ask(name: str, **command: Any) -> Any:
        return await answer

    monkeypatch.setattr(launcher, "_ask", ask)
    calling = asyncio.ensure_future(launcher.call("status"))
    while not answer._callbacks:
        await asyncio.sleep(0)
    answer.set_result("the answer")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_verb_that_has_to_wait_holds_up_no_other(
    heard: Heard, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one trial's slow store would delay the decisions of all the others."""
    blocked = asyncio.ensure_future(launcher.call("block", str(heard.path)))
    await heard.next()
    assert await launcher.call("echo", 1) == [1]
    blocked.cancel()


async def test_a_verb_that_ends_the_launcher_is_said_to(launcher: Launcher) -> None:
    with pytest.raises(LauncherGone, match="probe_side ended with 7"):
        await launcher.call("die")
    with pytest.raises(LauncherGone):
        await launcher.call("echo")


async def test_a_verb_that_never_returns_does_not_keep_the_harness(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.2)
    blocked = asyncio.ensure_future(launcher.call("block"))
    await asyncio.sleep(0)
    await asyncio.wait_for(launcher.close(), 10)
    with pytest.raises(LauncherGone):
        await blocked


# --- who outlives whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "cold"])
async def test_a_worker_dies_with_its_launcher(heard: Heard, launcher: Launcher, start: Start, cold: bool) -> None:
    process = await start("wait", cold=cold)
    told = await heard.next()
    os.kill(pid_of(launcher), signal.SIGKILL)
    await heard.death(told["pid"])
    await gone(told["pid"])
    with pytest.raises(LauncherGone, match="ended with -9"):
        await process.ended
    with pytest.raises(LauncherGone):
        await start("wait")
    with pytest.raises(LauncherGone):
        await launcher.kill(process)


@pytest.mark.parametrize("how", ["wait", "return", "close"])
async def test_what_a_worker_has_started_ends_with_it(heard: Heard, launcher: Launcher, start: Start, how: str) -> None:
    """A wrapper's real program would otherwise go on acting after the kill of its worker had been witnessed."""
    process = await start(f"have {how if how == 'return' else 'wait'}")
    told = [await heard.next(), await heard.next()]
    (child,) = [one["child"] for one in told if "child" in one]
    if how == "wait":
        await launcher.kill(process)
    elif how == "close":
        await launcher.close()
    else:
        assert (await process.ended).code == 0
    await gone(child)


async def test_closing_ends_every_worker(heard: Heard, launcher: Launcher, start: Start) -> None:
    workers = [await start("wait", str(number)) for number in range(3)]
    waiting = await start("wait", "before its go", go=False)
    for _ in workers:
        await heard.next()
    await launcher.close()
    for process in [*workers, waiting]:
        assert not Path(f"/proc/{process.pid}").exists()
    await launcher.close()


async def test_nothing_outlives_a_harness_that_is_killed(side: Path, heard: Heard, tmp_path: Path) -> None:
    environment = json.dumps(environment_of(heard, "wait"))
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HARNESS, environment, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert harness.stdout is not None
    pid = int(await asyncio.wait_for(harness.stdout.readline(), 30))
    # Two workers, and a launcher that is busy and hears nothing.
    told = {(await heard.next())["pid"] for _ in range(3)}
    (stuck,) = told - set(children(pid))
    everyone = [pid, stuck, *children(pid)]
    assert len(everyone) == 5
    assert set(children(harness.pid)) == {pid, stuck}
    harness.kill()
    await harness.wait()
    for process in everyone:
        await gone(process)


async def test_a_sut_that_can_t_be_loaded_is_said_to_be(side: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (side / "broken_side.py").write_text("raise RuntimeError('no such engine')")
    launcher = Launcher("broken_side", "probe_side:CHAINS")
    with pytest.raises(LauncherGone, match="broken_side ended with 1; see its output above"):
        await launcher.start()
    await launcher.close()
    assert "no such engine" in capfd.readouterr().err


async def test_a_sut_that_takes_for_ever_to_load_is_given_up(side: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_SECONDS", 0.2)
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.2)
    (side / "slow_side.py").write_text("import time; time.sleep(60)")
    launcher = Launcher("slow_side", "probe_side:CHAINS")
    with pytest.raises(LauncherGone, match=r"not ready after 0\.2 s"):
        await launcher.start()
    pid = pid_of(launcher)
    await launcher.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_sut_that_is_ready_for_no_one_any_more_is_closed_in_peace(side: Path) -> None:
    """An interrupted run left a traceback: who had waited for it was gone."""
    go_on = side / "go_on"
    os.mkfifo(go_on)
    (side / "waiting_side.py").write_text(f"open({str(go_on)!r}).read()\nCHAINS = {{}}\n")
    launcher = Launcher("waiting_side", "probe_side:CHAINS")
    starting = asyncio.create_task(launcher.start())
    # It is open for writing as soon as the launcher, which is loading the SUT, has opened it for reading.
    held = await asyncio.wait_for(asyncio.to_thread(open, go_on, "w"), 30)
    while launcher._reader is None:
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    held.close()
    await launcher.close()
    assert launcher._reader.exception() is None


async def test_what_a_sut_prints_when_it_is_loaded_is_no_answer(side: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It went to the pipe of the answers, and the harness waited for ever."""
    launcher = Launcher("probe_side", "probe_side:CHAINS")
    await launcher.start()
    assert await launcher.call("echo", "heard") == ["heard"]
    await launcher.close()
    assert "a SUT may print" in capfd.readouterr().err


def test_an_end_is_plain_data() -> None:
    assert Exit(0, 0, 0.5) == Exit(code=0, signal=0, cpu_seconds=0.5)
