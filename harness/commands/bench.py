"""``kintsugi bench``: what trials and durable steps cost here, side by side in one run, with ratios."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import Workflow, load_workflows
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.commands.bench_engines import measure_engines
from kintsugi.harness.history import of
from kintsugi.harness.processes import LauncherGone
from kintsugi.harness.results import Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["bench_command"]

WORKFLOW = "finance/invoice_payment"
KILL = Strike("worker_kill", "at_boundary", Point("tool", "note", phase="before"))
TRIALS = {1: 10, 16: 96}
"""How many trials are timed, at how many at once."""
STEPS = 2_000
WORKFLOWS_AT_ONCE = 50
ROUNDS = 3
"""Each figure of steps is the median of so many rounds, the contenders taking turns."""
STARTS = 7
PLAIN_WIDTH = 150
"""The width of the tables where there is no terminal to fit them to."""


def bench_command(folder: Path) -> int:
    """Run every benchmark with its files below `folder`, whose disk is what is measured."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with tempfile.TemporaryDirectory(prefix="kintsugi-bench-", dir=folder.resolve()) as scratch:
        console.print(_trials_table(Path(scratch)))
        console.print(_steps_table(Path(scratch)))
    console.print(_start_table())
    return 0


def _tell(what: str) -> None:
    sys.stderr.write(f"bench: {what}\n")


# --- trials -------------------------------------------------------------------------------------------------


def _trials_table(scratch: Path) -> Table:
    table = _table(
        f"One trial of {WORKFLOW}, clean and with one kill",
        (
            "SUT + chain",
            "at once",
            "trials/s",
            "wall ms, median",
            "harness CPU ms",
            "SUT CPU ms",
            "harness CPU ms a boundary",
            "trials/s, ratio",
        ),
    )
    workflows = load_workflows()
    first: dict[int, float] = {}
    for jobs, count in TRIALS.items():
        for sut, chain in (("naive", "optimized"), ("minimal", "optimized"), ("minimal", "naive")):
            _tell(f"trials of {sut}+{chain}, {jobs} at once")
            figures = _time_trials(scratch / f"{sut}-{chain}-{jobs}", workflows, sut, chain, jobs, count)
            rate = figures.pop("rate")
            first.setdefault(jobs, rate)
            row = [
                f"{rate:.1f}",
                *(f"{value:.2f}" for value in figures.values()),
                f"{rate / first[jobs]:.2f}",
            ]
            table.add_row(f"{sut}+{chain}", str(jobs), *row)
    return table


def _time_trials(
    folder: Path, workflows: Mapping[str, Workflow], sut: str, chain: str, jobs: int, count: int
) -> dict[str, float]:
    results = Results(folder)
    results.begin({"bench": f"{sut}+{chain}"}, resume=False)
    walls: list[float] = []
    work = SuiteRun(workflows, results, jobs, 1, 60.0, 5.0, lambda result: walls.append(result.times.wall))
    baseline = Trial("baseline", sut, chain, WORKFLOW)
    trials = [
        Trial("fault" if n % 2 else "clean", sut, chain, WORKFLOW, (KILL,) if n % 2 else (), repeat=n + 1)
        for n in range(count)
    ]
    asyncio.run(work.run([baseline]))
    walls.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work.run([baseline, *trials]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = results.trials()
    boundaries = sum(
        len(of(results.history(trial.id), "world", "request")) + len(of(results.history(trial.id), "gateway", "ask"))
        for trial in trials
    )
    results.end()
    return {
        "rate": count / wall,
        "wall": statistics.median(walls) * 1000,
        "harness": cpu / count * 1000,
        "sut": sum(done[trial.id].usage.cpu_seconds for trial in trials) / count * 1000,
        "boundary": cpu / boundaries * 1000,
    }


# --- durable steps ------------------------------------------------------------------------------------------


def _steps_table(scratch: Path) -> Table:
    """Every engine that is there, tuned, side by side; ratios are to the minimal runtime."""
    adapters = [a for a in ADAPTERS.values() if a.resumes != "script" and a.profile != "default" and not a.own_chain]
    bare = [_bare_commits(scratch) for _ in range(ROUNDS)]
    measured = asyncio.run(measure_engines(adapters, scratch, WORKFLOWS_AT_ONCE, ROUNDS, _tell))
    table = _table(
        f"Durable steps, and from starting a worker in place of a killed one to its next step (median of {ROUNDS})",
        (
            "engine",
            "steps/s, 1 workflow",
            "ratio",
            f"steps/s, {WORKFLOWS_AT_ONCE} workflows",
            "ratio",
            "s to next step",
            "ratio",
        ),
    )
    first = measured["minimal"]
    if isinstance(first, str):
        raise LauncherGone(f"the minimal runtime, to which the others are compared, was not measured: {first}")
    rate = statistics.median(bare)
    table.add_row("bare SQLite, WAL, FULL", f"{rate:,.0f}", f"{rate / first.single:.2f}", "", "", "", "")
    for name, found in measured.items():
        if isinstance(found, str):
            table.add_row(found, *[""] * 6)
            continue
        pairs = zip(astuple(found), astuple(first), (",.0f", ",.0f", ".2f"), strict=True)
        table.add_row(name, *(text for value, of, form in pairs for text in (f"{value:{form}}", f"{value / of:.2f}")))
    return table


def _bare_commits(folder: Path) -> float:
    connection = sqlite3.connect(folder / f"bare-{time.monotonic_ns()}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE steps (n INTEGER PRIMARY KEY, data TEXT)")
    started = time.perf_counter()
    for n in range(STEPS):
        connection.execute("INSERT INTO steps VALUES (?, ?)", (n, '{"unix_seconds": 1700000000.0}'))
    rate = STEPS / (time.perf_counter() - started)
    connection.close()
    return rate


# --- start-up -----------------------------------------------------------------------------------------------


def _start_table() -> Table:
    table = _table(f"Start of the command (median of {STARTS})", ("command", "ms", "ratio to bare Python"))
    bare = _start_ms([sys.executable, "-c", "pass"])
    table.add_row("python -c pass", f"{bare:.0f}", "1.00")
    command = [sys.executable, "-c", "from kintsugi.harness.cli import main; main(['--help'])"]
    milliseconds = _start_ms(command)
    table.add_row("kintsugi --help", f"{milliseconds:.0f}", f"{milliseconds / bare:.2f}")
    return table


def _start_ms(command: Sequence[str]) -> float:
    taken = []
    for _ in range(STARTS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position == 0 else "right")
    return table
