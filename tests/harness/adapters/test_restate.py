"""Restate's server: what is said where it can't be had, and that nothing of it stays."""

from __future__ import annotations

import os
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kintsugi.harness.adapters import ADAPTERS, Unavailable, servers
from kintsugi.harness.adapters.restate import ADMIN, RestateServer, found_server, server_path
from kintsugi.harness.adapters.servers import free_ports


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where npm would have installed the server's program; there is none yet, and none is named or on PATH."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KINTSUGI_RESTATE_SERVER", raising=False)
    return tmp_path / "npm/node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"


def write(program: Path, *lines: str) -> None:
    program.parent.mkdir(parents=True)
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)


def test_a_missing_program_is_one_line_that_says_what_to_do(program: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        found_server()
    assert str(caught.value) == (
        "restate: restate-server was not found; make engines, npm install @restatedev/restate-server, "
        "or KINTSUGI_RESTATE_SERVER=/path/to/restate-server"
    )


def test_a_program_that_is_named_and_not_there_is_not_looked_for_elsewhere(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(program, "echo restate-server 1.7.12")
    monkeypatch.setenv("KINTSUGI_RESTATE_SERVER", "/nowhere/restate-server")
    with pytest.raises(Unavailable, match="KINTSUGI_RESTATE_SERVER names no program: /nowhere/restate-server"):
        found_server()


def test_the_program_that_npm_has_installed_is_found(program: Path) -> None:
    write(program, "echo restate-server 1.7.12")
    assert server_path() == program
    assert found_server() == "restate-server 1.7.12"


def test_another_version_is_not_used(program: Path) -> None:
    write(program, "echo restate-server 1.5.0")
    with pytest.raises(Unavailable, match=r"restate-server 1\.5\.0 was found, ~=1\.7\.12 is needed; make engines"):
        found_server()


@pytest.mark.parametrize("line", ["exit 3", "echo", "echo pottery"])
def test_a_program_that_does_not_say_its_version_is_not_used(program: Path, line: str) -> None:
    write(program, line)
    with pytest.raises(Unavailable, match="does not say its version"):
        found_server()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "restate-sdk":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS["restate"].must_be_there()
    assert str(caught.value).startswith("restate: restate-sdk is not installed; pip install 'kintsugi-bench[restate]'")


async def test_a_server_that_does_not_start_says_why(program: Path, tmp_path: Path) -> None:
    write(program, "echo 'no such partition' >&2; exit 2")
    with pytest.raises(Unavailable, match="restate-server: the server ended with 2: no such partition"):
        await RestateServer().start(tmp_path / "server")


@pytest.mark.engines
@pytest.mark.process
async def test_a_port_that_was_taken_meanwhile_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        found_server()
    except Unavailable as problem:
        pytest.skip(str(problem))
    choices: list[list[int]] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def chosen(count: int) -> list[int]:
            ports = free_ports(count) if choices else [taken.getsockname()[1], *free_ports(count - 1)]
            choices.append(ports)
            return ports

        monkeypatch.setattr(servers, "free_ports", chosen)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        server = RestateServer()
        addresses = await server.start(tmp_path / "server")
        pid = server._process.pid
        try:
            assert len(choices) == 2
            assert addresses[ADMIN] == f"http://127.0.0.1:{choices[1][1]}"
            assert server.cpu_seconds() > 0
        finally:
            await server.close()
    await server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    # What it writes for the moment is gone with its folder.
    assert [path.name for path in tmp_path.iterdir()] == ["server"]
