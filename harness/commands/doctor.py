"""``kintsugi doctor``: whether this machine can run Kintsugi, and which optional parts are there."""

from __future__ import annotations

import importlib.util
import os
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from kintsugi.golden_workflows.reference import check_truth
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS, Adapter, Unavailable
from kintsugi.harness.means import MEANS
from kintsugi.harness.means.means import Means

__all__ = ["doctor_command"]

OPTIONAL = {
    "litellm": ("real models behind the gateway", "pip install 'kintsugi-bench[models]'"),
}


def doctor_command() -> int:
    """Print a line for each check; 0 if everything that is needed is there, else 1."""
    needed: list[tuple[str, Callable[[], str]]] = [
        ("Python 3.11 or newer", _python),
        ("SQLite with WAL", _sqlite),
        ("loopback ports", _ports),
        ("fork and parent-death signal", _linux),
        ("golden workflows agree with their truth", _workflows),
    ]
    good = True
    for name, check in needed:
        try:
            click.echo(f"ok       {name}: {check()}")
        except Exception as error:  # noqa: BLE001 - whatever a check meets is what it reports
            good = False
            click.echo(f"MISSING  {name}: {error}")
    for module, (use, how) in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        click.echo(f"{'ok      ' if there else 'optional'} {module}, for {use}" + ("" if there else f": {how}"))
    for adapter in ADAPTERS.values():
        # The profiles of an engine need the same; where it runs from says the rest.
        if adapter.extra and adapter.profile != "default":
            click.echo(_engine(adapter))
    for name, means in MEANS.items():
        click.echo(_means(name, means))
    return 0 if good else 1


def _engine(adapter: Adapter) -> str:
    """Whether an engine can be scored here, as one line."""
    try:
        return f"ok       {adapter.name}: {adapter.must_be_there()}"
    except Unavailable as problem:
        return f"optional {problem}"


def _means(name: str, means: Means) -> str:
    """Whether something that faults need of the machine is here, as one line."""
    try:
        return f"ok       {name}, for {means.about}: {means.check()}"
    except Unavailable as problem:
        return f"optional {name}, for {means.about}: {str(problem).removeprefix(f'{name}: ')}"


def _python() -> str:
    return sys.version.split()[0]


def _sqlite() -> str:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder, "check.db"))
        (mode,) = connection.execute("pragma journal_mode=wal").fetchone()
        connection.close()
    if mode != "wal":
        raise RuntimeError(f"journal mode is {mode}")
    return sqlite3.sqlite_version


def _ports() -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        return "free ones can be bound"


def _linux() -> str:
    import ctypes

    if not hasattr(os, "fork") or not hasattr(ctypes.CDLL(None), "prctl"):
        raise RuntimeError("Kintsugi kills real processes and needs Linux")
    return sys.platform


def _workflows() -> str:
    workflows = load_workflows()
    for workflow in workflows.values():
        check_truth(workflow)
    return f"{len(workflows)} workflows"
