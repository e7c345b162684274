from __future__ import annotations

import asyncio
import os
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kintsugi.harness.adapters import adapter as module
from kintsugi.harness.adapters import servers
from kintsugi.harness.adapters.adapter import Adapter, Unavailable, versions
from kintsugi.harness.adapters.servers import ServerProcess, accepts, answers, free_ports
from kintsugi.harness.processes import plain_environment

LISTENER = """
import http.server, sys
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.process
async def test_a_server_is_ready_when_start_returns_and_gone_when_close_does(tmp_path: Path) -> None:
    server, (port,) = ServerProcess("listener"), free_ports(1)
    await server.start([sys.executable, "-c", LISTENER, str(port)], tmp_path / "server", lambda: accepts(port))
    pid = server.pid
    assert await answers(f"http://127.0.0.1:{port}/")
    assert server.cpu_seconds() > 0
    await server.close()
    assert not alive(pid)
    assert not await accepts(port)
    assert server.cpu_seconds() > 0, "what it used is still known"
    await server.close()


@pytest.mark.process
async def test_a_server_that_was_killed_comes_back_at_the_same_place(tmp_path: Path) -> None:
    server, (port,) = ServerProcess("listener"), free_ports(1)
    await server.start([sys.executable, "-c", LISTENER, str(port)], tmp_path / "server", lambda: accepts(port))
    first, used = server.pid, server.cpu_seconds()
    assert await server.kill() == first
    assert not alive(first)
    assert not await accepts(port)
    await server.restart()
    assert server.pid != first
    assert await answers(f"http://127.0.0.1:{port}/")
    assert server.cpu_seconds() > used, "what the first one used is counted with it"
    await server.close()
    assert not await accepts(port)


@pytest.mark.process
async def test_a_server_that_is_killed_takes_its_children_with_it(tmp_path: Path) -> None:
    """Those of PostgreSQL are sessions of their own, and would keep its data from being opened again."""
    child = tmp_path / "child"
    family = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(999)"], start_new_session=True)
open({str(child)!r}, "w").write(f"{{child.pid}}.")
time.sleep(999)
"""

    async def ready() -> bool:
        return child.is_file() and child.read_text().endswith(".")

    server = ServerProcess("family")
    await server.start([sys.executable, "-c", family], tmp_path, ready)
    pid = int(child.read_text().rstrip("."))
    assert servers._lives(pid)
    await server.kill()
    assert not servers._lives(pid)


@pytest.mark.process
async def test_a_server_that_had_ended_can_not_be_killed(tmp_path: Path) -> None:
    server = ServerProcess("listener")

    async def ready() -> bool:
        return True

    await server.start([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, ready)
    assert server._process is not None
    await server._process.wait()
    with pytest.raises(Unavailable, match="listener: the server had ended with 3"):
        await server.kill()


@pytest.mark.process
async def test_a_server_that_ends_says_its_last_words(tmp_path: Path) -> None:
    server = ServerProcess("listener")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def never() -> bool:
            return False

        with pytest.raises(Unavailable, match=r"listener: the server ended with 1: .*Address already in use"):
            await server.start([sys.executable, "-c", LISTENER, str(port)], tmp_path, never)


@pytest.mark.process
async def test_a_server_that_never_comes_up_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_SECONDS", 0.3)
    pids = tmp_path / "pid"
    code = f"import os,pathlib,time; pathlib.Path({str(pids)!r}).write_text(str(os.getpid())); time.sleep(60)"

    async def never() -> bool:
        return False

    with pytest.raises(Unavailable, match=r"did not come up in 0\.3 s"):
        await ServerProcess("slow").start([sys.executable, "-c", code], tmp_path, never)
    assert not pids.exists() or not alive(int(pids.read_text()))


async def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(Unavailable, match="nowhere: no-such-program can't be started: No such file"):
        await ServerProcess("nowhere").start(["no-such-program"], tmp_path, never)


@pytest.mark.process
async def test_a_server_dies_with_the_harness(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, pathlib, signal, sys
from kintsugi.harness.adapters.servers import ServerProcess
async def ready():
    return True
async def main():
    server = ServerProcess("sleeper")
    await server.start([sys.executable, "-c", "import time; time.sleep(60)"], pathlib.Path({str(tmp_path)!r}), ready)
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    said, _ = await process.communicate()
    pid = int(said)
    while alive(pid):
        await asyncio.sleep(0.01)


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


# --- what an adapter needs ------------------------------------------------------------------------------------


def needing(extra: str) -> Adapter:
    return Adapter("mine", "", "side", "push", fails_over=False, extra=extra)


def asked_for(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["aiohttp>=3", *requirements])


def test_an_adapter_without_an_extra_needs_nothing() -> None:
    assert needing("").must_be_there() == ""


def test_the_versions_are_those_of_the_extras_own_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for(monkeypatch, "pytest>=1; extra == 'x'", "nowhere>=1; extra == 'y'", "kintsugi-bench[z]; extra == 'x'")
    assert versions(needing("x")) == {"pytest": metadata.version("pytest")}


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("no-such-thing>=1; extra == 'x'", "no-such-thing is not installed"),
        ("pytest>=9999; extra == 'x'", f"pytest {metadata.version('pytest')} is installed, >=9999 is needed"),
    ],
)
def test_what_is_missing_or_too_old_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, requirement: str, problem: str
) -> None:
    asked_for(monkeypatch, requirement)
    with pytest.raises(Unavailable) as raised:
        versions(needing("x"))
    assert str(raised.value) == f"mine: {problem}; pip install 'kintsugi-bench[x]', or in a clone: make engines"


def test_a_requirement_for_another_kind_of_machine_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for(monkeypatch, "no-such-thing; sys_platform == 'plan9' and extra == 'x'")
    assert versions(needing("x")) == {}
    assert module.DISTRIBUTION == "kintsugi-bench"


def test_what_a_user_has_set_for_an_engine_and_secrets_go_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESTATE_WORKER__X", "DBOS__APPVERSION", "LANGSMITH_TRACING_V2", "MY_API_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "set")
        assert name not in plain_environment()
    assert plain_environment()["PATH"] == os.environ["PATH"]
