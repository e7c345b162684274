"""Nodes as containers: what a node's first process does, what its image holds, and what is left of it by whom."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import trial as trial_module
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.crew import Crew
from kintsugi.harness.history import Event, History, of
from kintsugi.harness.means import docker as means
from kintsugi.harness.means import docker_engine, image
from kintsugi.harness.means.docker import Docker
from kintsugi.harness.processes import LAUNCHER, Exit, Process
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Strike, Trial

WORKFLOW = load_workflows()["finance/invoice_payment"]
SECONDS = 60.0


def until(true: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for something that tells nobody of its coming."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- without an engine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("unix:///nowhere/docker.sock", "no engine answers at"),
        ("tcp://127.0.0.1:1", "does not see this machine's folders"),
    ],
)
def test_where_no_engine_can_be_used_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, where: str, said: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", where)
    with pytest.raises(Unavailable, match=said) as caught:
        Docker().check()
    assert "\n" not in str(caught.value)


def test_the_image_holds_the_interpreter_and_its_libraries_and_no_packages(tmp_path: Path) -> None:
    image.write_image(tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        names = set(tar.getnames())
        assert all(member.isreg() or member.isdir() for member in tar if member.name.endswith((".so", ".py")))
    for path in (image.INTERPRETER, image.STDLIB / "asyncio" / "__init__.py", *image.libraries()):
        assert str(path).lstrip("/") in names
    assert any("libc.so" in name for name in names)
    assert not [name for name in names if "site-packages" in name]


def test_of_kintsugi_a_container_sees_what_a_worker_runs_and_no_more() -> None:
    root = Path(trial_module.__file__).resolve().parents[1]
    inside = [Path(path) for path in image.mounts() if Path(path).is_relative_to(root)]
    seen = {path.relative_to(root) for path in inside if "site-packages" not in path.parts}
    wanted = {"runtime", "golden_workflows", "harness/launcher.py", "harness/means/inside.py"}
    # In a clone also the folder with the links, whose other ends are not there.
    assert seen in ({Path(name) for name in wanted}, {Path(name) for name in (*wanted, "src")})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts the first process of a node, whose worker is a coroutine of this source, told the file `seen`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(source: str) -> subprocess.Popen[bytes]:
        (tmp_path / "side.py").write_text(
            f"import asyncio, os, signal\nCHAINS = {{}}\nasync def work(told, _):\n{source}"
        )
        (tmp_path / "log").touch()
        words = [sys.executable, *map(str, (image.INSIDE, "node", LAUNCHER, tmp_path / "log")), "side", "side:CHAINS"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SEEN": str(tmp_path / "seen")}
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"g")
    process.stdin.flush()


@pytest.mark.process
@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("    print('done')", 0),
        ("    os._exit(3)", 3),
        ("    os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_a_node_ends_as_its_worker_does(node: Any, tmp_path: Path, source: str, code: int) -> None:
    process = node(source)
    let_go(process)
    assert process.wait(SECONDS) == code
    assert (tmp_path / "log").read_text() == ("done\n" if code == 0 else "")


@pytest.mark.process
def test_a_node_that_is_never_let_go_runs_no_worker(node: Any, tmp_path: Path) -> None:
    process = node("    open(told['SEEN'], 'w').close()")
    process.stdin.close()
    assert process.wait(SECONDS) == 0
    assert not (tmp_path / "seen").exists()


@pytest.mark.process
def test_a_node_ends_when_the_harness_does(node: Any, tmp_path: Path) -> None:
    process = node("    open(told['SEEN'], 'w').write(str(os.getpid()))\n    await asyncio.sleep(1000)")
    let_go(process)
    until(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").read_text())
    process.stdin.close()
    assert process.wait(SECONDS) != 0
    # Only as the first of its own container it takes its worker with it.
    os.kill(int((tmp_path / "seen").read_text()), signal.SIGKILL)


class Engine:
    """Stands in for the client of an engine: one container, whose end nobody hears of unless it is killed."""

    def __init__(self, *refuses: str) -> None:
        self.refuses, self.asked = refuses, list[str]()
        self.killed: Callable[[], object] = lambda: None

    def _asked(self, what: str) -> dict[str, Any]:
        import docker

        self.asked.append(what)
        if what in self.refuses:
            raise docker.errors.APIError(f"no {what} today")
        return {"cpu_stats": {"cpu_usage": {"total_usage": 2e9}}}

    def stats(self, *_: object, **__: object) -> dict[str, Any]:
        return self._asked("stats")

    def kill(self, _: str) -> None:
        self._asked("kill")
        self.killed()


async def killed_by(engine: Engine) -> tuple[means.Containers, Exit]:
    """How a container ended that was killed; it does if the engine takes the kill."""
    nothing: Any = None  # Of the trial a kill needs nothing.
    containers = means.Containers(nothing, engine)
    loop = asyncio.get_running_loop()
    process = Process("c", 1, loop.create_future())
    engine.killed = lambda: loop.call_soon_threadsafe(process.ended.set_result, Exit(-9, 9, 0.0))
    try:
        return containers, await containers.kill(process)
    finally:
        containers._passages.remove()
        containers._threads.shutdown()


async def test_a_worker_is_killed_though_the_engine_does_not_say_what_it_used() -> None:
    pytest.importorskip("docker")
    for engine, used in ((Engine(), {"c": 2.0}), (Engine("stats"), {})):
        containers, ended = await killed_by(engine)
        assert (ended.signal, engine.asked, containers._cpu_seconds) == (9, ["stats", "kill"], used)


async def test_a_worker_that_the_engine_does_not_kill_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("docker")
    monkeypatch.setattr(means, "REMOVED_SECONDS_MAX", 0.01)
    with pytest.raises(RuntimeError, match="c is still there after it was killed: no kill today"):
        await killed_by(Engine("kill"))


# --- with an engine -----------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[Any]:
    try:
        Docker().check()
    except Unavailable as problem:
        pytest.skip(str(problem))
    client = docker_engine.connected()
    yield client
    client.close()


def made_by(pid: int) -> dict[str, str]:
    """Finds what a harness has made on the engine."""
    return {"label": f"{docker_engine.LABEL}={docker_engine.maker(pid)}"}


def trial(strike: str, nodes: int) -> Trial:
    named, _, point = strike.partition("@")
    fault, _, form = named.partition(".")
    schedule = (Strike(fault, form, Point.parse(point)),)
    return Trial("fault", "minimal", "optimized", WORKFLOW.name, schedule, 7, nodes=nodes)


async def played(one: Trial, folder: Path) -> list[Event]:
    crew = Crew(ADAPTERS["minimal"], folder / "crew")
    try:
        await crew.start()
        return list(await run_trial(one, WORKFLOW, crew, folder / "trial", folder / "trial.jsonl", SECONDS))
    finally:
        await crew.close()


@pytest.mark.process
def test_a_node_is_off_the_network_while_the_others_are_on_it(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: dict[str, set[str]] = {}

    class Looking(History):
        def add(self, who: str, what: str, **data: Any) -> Event:
            if who == "nemesis" and what in {"cut_off", "healed", "witnessed"}:
                (network,) = client.networks(filters=made_by(os.getpid()))
                found = client.inspect_network(network["Id"])
                assert found["Internal"]
                attached[what] = {one["Name"].split("-", 2)[2] for one in found["Containers"].values()}
            return super().add(who, what, **data)

    monkeypatch.setattr(trial_module, "History", Looking)
    one = trial("partition.container@tool:pay[0]#1@committed", 3)
    events = asyncio.run(played(one, tmp_path))
    (cut_off,) = of(events, "nemesis", "cut_off")
    node = next(e["node"] for e in of(events, "runner", "started") if e["generation"] == cut_off["generation"])
    everyone = {"gateway", "node1-1", "node2-2", "node3-3"}
    assert attached["healed"] == attached["cut_off"], "healed is told before it is connected"
    assert attached["witnessed"] == everyone
    assert {name for name in everyone - attached["cut_off"] if name.startswith(node)} == everyone - attached["cut_off"]
    assert len(attached["cut_off"]) == 3
    result = judge_trial(WORKFLOW, one, events, {}, 5.0)
    assert (result.injection, result.verdict) in {("witnessed", "correct"), ("witnessed", "correct_halt")}
    assert not client.containers(all=True, filters=made_by(os.getpid()))
    assert not client.networks(filters=made_by(os.getpid()))


KILLED_HARNESS = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, str(Path({file!r}).parent))
import test_containers as tests

async def never(_):
    await asyncio.Event().wait()

# Its nodes are there, and have nothing to do: so none of them ends before the harness does.
tests.trial_module._Stage._submit = never
asyncio.run(tests.played(tests.trial("node_loss.container@end:end[0]#1@before", 2), Path({folder!r})))
"""


@pytest.mark.process
def test_containers_end_with_a_harness_that_is_killed_and_the_next_one_tidies_up(client: Any, tmp_path: Path) -> None:
    program = KILLED_HARNESS.format(file=__file__, folder=str(tmp_path))
    harness = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    mine = made_by(harness.pid)
    history = tmp_path / "trial.jsonl"
    until(lambda: history.exists() and history.read_text().count('"started"') == 2)
    assert len(client.containers(filters=mine)) == 3
    os.killpg(harness.pid, signal.SIGKILL)
    harness.wait()
    until(lambda: not client.containers(all=True, filters=mine))
    assert client.networks(filters=mine)
    docker_engine.TIDIED.clear()
    docker_engine.tidy(client)
    assert not client.networks(filters=mine)
