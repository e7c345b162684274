"""Toxiproxy for real: its server, what our module checks of it, and what each toxic does to an answer of a door."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.means.links import established, least_seconds, refuses
from kintsugi.harness.means.service_link import head_bytes
from kintsugi.harness.means.toxiproxy import TOXIPROXY, Toxiproxy, hold_port

METRICS = """\
# TYPE toxiproxy_proxy_received_bytes_total counter
toxiproxy_proxy_received_bytes_total{direction="downstream",listener="127.0.0.1:1",proxy="a",upstream="127.0.0.1:2"} 400
toxiproxy_proxy_received_bytes_total{direction="upstream",listener="127.0.0.1:1",proxy="a",upstream="a:2"} 1.5e+03
toxiproxy_proxy_received_bytes_total{direction="downstream",listener="127.0.0.1:3",proxy="b",upstream="127.0.0.1:2"} 9
toxiproxy_proxy_sent_bytes_total{direction="downstream",listener="127.0.0.1:1",proxy="a",upstream="127.0.0.1:2"} 230
"""


# --- without a server ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attributes", "size", "seconds"),
    [
        ("latency", {"latency": 300, "jitter": 100}, 5000, 0.2),
        ("latency", {"latency": 300}, 1, 0.3),
        ("latency", {"latency": 50, "jitter": 80}, 1, 0.0),
        ("bandwidth", {"rate": 2}, 400, 0.2),
        ("slicer", {"average_size": 32, "size_variation": 8, "delay": 10_000}, 400, 0.09),
        ("slicer", {"average_size": 32, "size_variation": 8, "delay": 10_000}, 401, 0.1),
        ("slicer", {"average_size": 32, "delay": 10_000}, 32, 0.0),
        ("timeout", {"timeout": 0}, 400, 0.0),
    ],
)
def test_how_long_a_toxic_keeps_an_answer_back(
    kind: str, attributes: dict[str, int], size: int, seconds: float
) -> None:
    assert least_seconds(kind, attributes, size) == pytest.approx(seconds)


def test_what_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Unavailable, match=r"^toxiproxy: .*pip install 'kintsugi-bench\[toxiproxy\]'$"):
        TOXIPROXY.check()
    monkeypatch.undo()
    monkeypatch.delenv("KINTSUGI_TOXIPROXY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Unavailable, match=r"^toxiproxy: toxiproxy-server was not found; .*make toxiproxy") as missing:
        TOXIPROXY.check()
    assert "\n" not in str(missing.value)
    monkeypatch.setenv("KINTSUGI_TOXIPROXY", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="KINTSUGI_TOXIPROXY names no program"):
        TOXIPROXY.check()


def test_a_store_is_reached_through_a_proxy_where_its_address_can_be_changed() -> None:
    """Restate's server calls the workers, so there is no address of it that would lead elsewhere."""
    reached = {name for name, adapter in ADAPTERS.items() if "store_link" not in adapter.lacks()}
    served = {name for name, adapter in ADAPTERS.items() if "own_server" not in adapter.lacks()}
    assert served - reached == {"restate", "restate_default"}
    assert reached <= served


@pytest.mark.parametrize(
    ("says", "what"),
    [
        ("echo toxiproxy-server version 2.4.0", "2.5 is needed"),
        ("echo hello", "does not say"),
        ("exit 1", "does not say"),
    ],
)
def test_a_server_that_does_not_fit_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, what: str
) -> None:
    program = tmp_path / "toxiproxy-server"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("KINTSUGI_TOXIPROXY", str(program))
    with pytest.raises(Unavailable, match=what):
        TOXIPROXY.check()


def test_a_held_port_refuses_and_goes_to_nobody_by_chance() -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
        assert refuses(port)
        assert established(port) == 0
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            assert not refuses(port)
            # What is accepted is established at this end too.
            with socket.create_connection(("127.0.0.1", port)), other.accept()[0]:
                assert established(port) == 1
        assert refuses(port)


# --- with the server ----------------------------------------------------------------------------------------


@pytest.fixture
def there() -> None:
    try:
        TOXIPROXY.check()
    except Unavailable as problem:
        pytest.skip(str(problem))


@pytest.fixture
def own(there: None) -> Iterator[Toxiproxy]:
    """A server of the test's own."""
    found = Toxiproxy()
    yield found
    found.close()


def test_bytes_are_counted_by_proxy_and_direction(there: None) -> None:
    from kintsugi.harness.means.toxiproxy_control import lost_bytes, taken_bytes

    assert (lost_bytes(METRICS, "a"), taken_bytes(METRICS, "a")) == (170, 1500)
    assert (lost_bytes(METRICS, "b"), taken_bytes(METRICS, "b")) == (9, 0)
    assert (lost_bytes("", "a"), taken_bytes("", "a")) == (0, 0)


@pytest.mark.process
def test_one_server_serves_many_event_loops_and_is_gone_when_closed(own: Toxiproxy) -> None:
    async def served() -> tuple[int, int]:
        server = own.server()
        await server.up()
        return server.process.pid, server.port

    pid, port = asyncio.run(served())
    assert asyncio.run(served()) == (pid, port)
    own.close()
    assert not Path(f"/proc/{pid}").exists()
    assert refuses(port)
    own.close()
    another, _ = asyncio.run(served())
    assert another != pid


@pytest.mark.process
def test_a_server_that_has_died_is_replaced(own: Toxiproxy) -> None:
    first = own.server()
    first.process.kill()
    first.process.wait()
    second = own.server()
    asyncio.run(second.up())
    assert second.process.pid != first.process.pid


@pytest.mark.process
def test_the_server_dies_with_the_harness(there: None) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from kintsugi.harness.means.toxiproxy import TOXIPROXY\n"
        "server = TOXIPROXY.server()\n"
        "asyncio.run(server.up())\n"
        "print(server.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == -9, said.stderr
    gone_by = 200
    for _ in range(gone_by):
        stat = Path(f"/proc/{int(said.stdout)}/stat")
        try:
            if stat.read_text().rpartition(") ")[2][0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        asyncio.run(asyncio.sleep(0.05))
    pytest.fail("the server outlived the harness")


@pytest.mark.process
def test_what_toxiproxy_python_does_not_check_is_checked(own: Toxiproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.harness.means.toxiproxy_control import ToxiproxyProblem

    # The environment's proxy is not asked.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    control = asyncio.run(own.server().up())
    with hold_port() as far, hold_port() as near:
        port = near.getsockname()[1]
        proxy = control.create("a", port, far.getsockname()[1])
        with pytest.raises(ToxiproxyProblem, match="ProxyExists"):
            control.create("a", port, 1)
        with pytest.raises(ToxiproxyProblem, match=r"500.*address already in use"):
            control.create("b", port, 1)
        with pytest.raises(ToxiproxyProblem, match="InvalidToxic"):
            control.add(proxy, "latency", {"latency": 0.5})  # type: ignore[dict-item]
        with pytest.raises(ToxiproxyProblem, match="InvalidToxic"):
            control.add(proxy, "no_such_toxic", {})
        control.add(proxy, "latency", {"latency": 5})
        control.remove(proxy, "latency")
        with pytest.raises(ToxiproxyProblem, match="NotFound"):
            control.remove(proxy, "latency")
        control.switch(proxy, on=False)
        assert refuses(port)
        control.switch(proxy, on=True)
        assert not refuses(port)
        control.destroy(proxy)
        assert refuses(port)
    own.close()
    with pytest.raises(ToxiproxyProblem, match="ConnectionError"):
        control.metrics()


@pytest.mark.process
async def test_a_head_is_as_long_as_it_is_said_to_be() -> None:
    said: list[int] = []
    body = b"x" * 123

    async def answer(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=body, content_type="application/json", headers={"ETag": '"v1"'})
        said.append(head_bytes(response, len(body)))
        return response

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1])
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert said == [len(head)]
    writer.close()
    listener.close()
    await server.shutdown(0.1)
