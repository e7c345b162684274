"""Temporal's development server: what is said where it can't be had, and that nothing of it stays."""

from __future__ import annotations

import os
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kintsugi.harness.adapters import ADAPTERS, Unavailable, servers
from kintsugi.harness.adapters.servers import free_ports
from kintsugi.harness.adapters.temporal import ADDRESS, TemporalServer, found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program called temporal is looked for, beside Python; there is none yet, and none on PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    return tmp_path / "temporal"


def write(program: Path, *lines: str) -> None:
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)


def test_a_missing_program_is_named_with_what_to_install(program: Path) -> None:
    with pytest.raises(Unavailable, match=r"no program temporal beside .* or on PATH; pip install 'kintsugi-bench"):
        found()


def test_a_program_that_is_too_old_is_not_used(program: Path) -> None:
    write(program, "echo 'temporal version 1.1.0 (Server 1.25.0, UI 2.30.0)'")
    with pytest.raises(Unavailable, match=r"is version 1\.1\.0, 1\.9 is needed"):
        found()


def test_another_program_of_that_name_is_not_used(program: Path) -> None:
    write(program, "echo 'a time traveller'")
    with pytest.raises(Unavailable, match="says 'a time traveller', and no version"):
        found()


def test_a_program_that_fails_is_not_used(program: Path) -> None:
    write(program, "exit 3")
    with pytest.raises(Unavailable, match=r"--version failed \(.*exit status 3"):
        found()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "temporalio":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS["temporal"].must_be_there()
    assert str(caught.value) == (
        "temporal: temporalio is not installed; pip install 'kintsugi-bench[temporal]', or in a clone: make engines"
    )


async def test_a_server_that_does_not_start_says_why(program: Path, tmp_path: Path) -> None:
    write(program, 'if [ "$1" = --version ]; then echo "temporal version 1.9.1 (Server 1.32.0, UI 2)"; exit; fi')
    program.write_text(program.read_text() + "echo 'no such pragma' >&2; exit 2\n")
    with pytest.raises(Unavailable, match="temporal: the server ended with 2: no such pragma"):
        await TemporalServer().start(tmp_path / "server")


@pytest.mark.engines
@pytest.mark.process
async def test_a_port_that_was_taken_meanwhile_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        found()
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
        server = TemporalServer()
        address = (await server.start(tmp_path / "server"))[ADDRESS]
        pid = server._process.pid
        try:
            assert len(choices) == 2
            assert address == f"127.0.0.1:{choices[1][0]}"
            assert server.cpu_seconds() > 0
        finally:
            await server.close()
    await server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
