"""``kintsugi selftest --search``: whether a search finds each planted bug, told nothing of what shows it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

import click
from rich.console import Console
from rich.table import Table

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import minimal
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.commands.explore import missing_here
from kintsugi.harness.commands.interrupts import EXIT_INTERRUPTED, to_its_end
from kintsugi.harness.commands.run import JOBS_PER_CORE
from kintsugi.harness.explore import Frame
from kintsugi.harness.means import TAKES
from kintsugi.harness.results import Results
from kintsugi.harness.search import Budget, Found, Search
from kintsugi.harness.selftest import BUGS, CHAIN, CORRECT, Bug

__all__ = ["selftest_search_command"]

TRIALS_MAX = 400
"""How many schedules a bug may take to find."""
CORRECT_TRIALS = 150
"""How many are tried on the runtime without a bug, in which nothing may be found."""
FAULTS_MAX = 2
"""Of how many faults what is found may be, once it is shrunk."""
CONFIRM = 5
SEARCHES_AT_ONCE = 3
DEADLINE_SECONDS = 20.0
"""Many times what any trial takes that comes to an end."""
STORM_CALLS_MAX = 5.0
PLAIN_WIDTH = 250
"""Columns where there is no terminal: nothing is cut."""


@dataclass(frozen=True)
class _Row:
    """What a search came to. `bug` is None for the runtime without one; `missing` says why it could not be searched."""

    bug: Bug | None
    tried: int
    found: Found | None
    missing: str = ""

    @property
    def good(self) -> bool:
        """Whether it is as it has to be."""
        if self.bug is None:
            return self.found is None
        return bool(self.missing) or (self.found is not None and len(self.found.shrunk.trial.schedule) <= FAULTS_MAX)


def selftest_search_command(seed: int, jobs: int | None, bugs: Sequence[Bug] = BUGS) -> int:
    """Search for every planted bug, and in the runtime without any; 0 if each is found and shrunk, and nothing else."""
    started = monotonic()
    missing = missing_here()
    at_once = max(1, (jobs or JOBS_PER_CORE * (os.cpu_count() or 1)) // SEARCHES_AT_ONCE)
    rows: list[_Row] = []
    with tempfile.TemporaryDirectory(prefix="kintsugi-selftest-") as folder:
        if not to_its_end(_all(bugs, seed, at_once, missing, Path(folder), rows)):
            click.echo("interrupted: nothing is kept of a self-test; run it again", err=True)
            return EXIT_INTERRUPTED
    order = {bug.sut: place for place, bug in enumerate(bugs)}
    rows.sort(key=lambda row: order[row.bug.sut] if row.bug else len(order))
    _print(rows)
    found = [row.found.number for row in rows if row.bug and row.found]
    searched = sum(row.bug is not None and not row.missing for row in rows)
    middle = f"trials to find: median {median(found):g}, at most {max(found)}; " if found else ""
    click.echo(f"{len(found)} of {searched} bugs found; {middle}seed {seed}, {monotonic() - started:.0f} s")
    return 0 if all(row.good for row in rows) else 1


async def _all(
    bugs: Sequence[Bug], seed: int, jobs: int, missing: Mapping[str, str], folder: Path, rows: list[_Row]
) -> None:
    """Run the searches, some at a time, and add a row for each as it ends."""
    gate = asyncio.Semaphore(SEARCHES_AT_ONCE)
    workflows = load_workflows()

    async def one(bug: Bug | None) -> None:
        adapter = PLANTED[bug.sut] if bug else minimal.ADAPTER
        if bug and (lines := _missing(bug, missing)):
            rows.append(_Row(bug, 0, None, lines))
            return
        async with gate:
            results = Results(folder / adapter.name)
            results.begin({"selftest": seed}, resume=False)
            frame = Frame(adapter.name, CHAIN, workflows, seed, TAKES, lacks=adapter.lacks(), missing=missing)
            budget = Budget(TRIALS_MAX if bug else CORRECT_TRIALS)
            search = Search(frame, adapter, results, budget, jobs, DEADLINE_SECONDS, STORM_CALLS_MAX, confirm=CONFIRM)
            try:
                await search.go()
            finally:
                results.end()
        rows.append(_Row(bug, search.tried, search.found))
        what = f"found after {search.found.number}" if search.found else f"nothing found in {search.tried}"
        click.echo(f"{bug.what if bug else f'none ({CORRECT})'}: {what} trials", err=True)

    try:
        async with asyncio.TaskGroup() as group:
            for bug in (*bugs, None):
                group.create_task(one(bug))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _missing(bug: Bug, missing: Mapping[str, str]) -> str:
    """What this machine lacks of what shows a bug; the search itself is told nothing of it."""
    needs = {FAULTS[fault].form(form).needs for fault, form in (_named(sign.strike) for sign in bug.signs)}
    return "; ".join(missing[name] for name in sorted(needs & missing.keys()))


def _named(strike: str) -> tuple[str, str]:
    fault, _, form = strike.partition("@")[0].partition(".")
    return fault, form


def _print(rows: Sequence[_Row]) -> None:
    table = Table(title="planted bugs, searched for from scratch", title_justify="left")
    for heading in ("", "bug", "trials to find", "what it does", "shrunk to", "faults", "again"):
        table.add_column(heading)
    for row in rows:
        name = row.bug.what if row.bug else f"none ({CORRECT})"
        if row.found is None:
            mark, trials = ("–", "not searched here") if row.missing else _without(row)
            table.add_row(mark, name, trials, row.missing or "nothing found", "", "", "")
            continue
        shown, again = row.found.shrunk, row.found.confirmed
        table.add_row(
            "ok" if row.good else ("NOT SHRUNK" if row.bug else "FALSE ALARM"),
            name,
            str(row.found.number),
            f"{', '.join(shown.shows)}: {shown.result.reason}",
            f"{shown.trial.workflow}\n{shown.trial.what or 'no fault'}",
            f"{len(row.found.as_found.trial.schedule)} → {len(shown.trial.schedule)}",
            f"{again.k} of {again.n}",
        )
    # What is in brackets in a point's name is no markup.
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False).print(table)


def _without(row: _Row) -> tuple[str, str]:
    return ("NOT FOUND" if row.bug else "ok"), f"none in {row.tried}"
