"""The PostgreSQL server: what is said where it can't be had, who it runs as, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kintsugi.harness.adapters import ADAPTERS, Unavailable, postgres, servers
from kintsugi.harness.adapters.postgres import BINARIES, URL, PostgresServer, found
from kintsugi.harness.adapters.servers import accepts, free_ports

ADVICE = "apt-get install postgresql, or name the folder of its programs in KINTSUGI_POSTGRES_BIN"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the programs are looked for; there are none yet, and none elsewhere."""
    monkeypatch.setattr(postgres, "INSTALLED", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(BINARIES, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def write(program: Path, line: str) -> None:
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)


def test_missing_programs_are_one_line_that_says_what_to_install(programs: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        ADAPTERS["langgraph_postgres"].must_be_there()
    assert str(caught.value) == f"postgres: initdb and postgres were not found; {ADVICE}"


def test_a_folder_that_is_named_and_does_not_hold_them_is_not_passed_over(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(programs / "initdb", "exit 0")
    write(programs / "postgres", "echo 'postgres (PostgreSQL) 15.18'")
    monkeypatch.setenv(BINARIES, "/nowhere")
    with pytest.raises(Unavailable, match="KINTSUGI_POSTGRES_BIN is /nowhere, which does not hold initdb and postgres"):
        found()


def test_the_newest_version_that_is_installed_is_taken(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "INSTALLED", tmp_path)
    for version in ("9", "15", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
        write(tmp_path / version / "bin" / "initdb", "exit 0")
        write(tmp_path / version / "bin" / "postgres", f"echo 'postgres (PostgreSQL) {version}.1'")
    assert found() == "PostgreSQL 17.1"


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("echo 'postgres (PostgreSQL) 12.4'", r"is version 12\.4, 13 is needed"),
        ("echo 'not a server'", "--version gave no version"),
        ("exit 3", "--version gave no version"),
    ],
)
def test_a_program_that_does_not_fit_is_not_used(programs: Path, says: str, problem: str) -> None:
    write(programs / "initdb", "exit 0")
    write(programs / "postgres", says)
    with pytest.raises(Unavailable, match=problem):
        found()


async def test_what_initdb_complains_of_is_passed_on(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another user could not reach a test's folder.
    monkeypatch.setattr(PostgresServer, "_user", staticmethod(lambda: None))
    write(programs / "initdb", "echo 'no room'; exit 1")
    write(programs / "postgres", "echo 'postgres (PostgreSQL) 15.18'")
    with pytest.raises(Unavailable, match="initdb ended with 1: no room"):
        await PostgresServer().start(tmp_path / "server")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "langgraph-checkpoint-postgres":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS["langgraph_postgres"].must_be_there()
    assert str(caught.value).startswith(
        "langgraph_postgres: langgraph-checkpoint-postgres is not installed; pip install 'kintsugi-bench[langgraph]'"
    )


# --- for real -------------------------------------------------------------------------------------------------


def there_or_skipped() -> None:
    try:
        found()
    except Unavailable as problem:
        pytest.skip(str(problem))


def port_of(environment: dict[str, str]) -> int:
    return int(environment[URL].rpartition(":")[2].partition("/")[0])


@pytest.mark.engines
@pytest.mark.process
async def test_it_is_durable_and_takes_another_port_where_one_was_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_or_skipped()
    psycopg = pytest.importorskip("psycopg")
    choices: list[int] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def chosen(count: int) -> list[int]:
            choices.extend(free_ports(count) if choices else [taken.getsockname()[1]])
            return choices[-1:]

        monkeypatch.setattr(servers, "free_ports", chosen)
        server = PostgresServer()
        environment = dict(await server.start(tmp_path / "server"))
        pid, home = server._process.pid, server._elsewhere
        try:
            assert (len(choices), port_of(environment)) == (2, choices[1])
            with psycopg.connect(environment[URL]) as connection:
                settings = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in postgres.SETTINGS}
                assert settings == postgres.SETTINGS
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://{postgres.USER}@127.0.0.1:{choices[1]}/postgres")
            assert Path(f"/proc/{pid}").stat().st_uid != 0
            assert server.cpu_seconds() > 0
        finally:
            await server.close()
    await server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not await accepts(choices[1])
    # A test's folder is closed to other users, so that root's server had to stand elsewhere.
    assert home is None or not home.exists()


@pytest.mark.engines
@pytest.mark.process
async def test_it_ends_with_the_harness_and_its_backends_with_it(tmp_path: Path) -> None:
    there_or_skipped()
    code = f"""
import asyncio, os, pathlib, signal
from kintsugi.harness.adapters.postgres import PostgresServer
async def main():
    server = PostgresServer()
    environment = await server.start(pathlib.Path({str(tmp_path / "server")!r}))
    print(server._process.pid, server._elsewhere or "", environment["{URL}"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    pid, *elsewhere, url = said.decode().split()
    try:
        while await accepts(port_of({URL: url})) or running(int(pid)):
            await asyncio.sleep(0.01)
    finally:
        for folder in elsewhere:
            shutil.rmtree(folder)


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
