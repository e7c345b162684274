"""``kintsugi selftest``: whether this benchmark, here and now, catches every planted bug, and nothing else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

import click
from rich.console import Console
from rich.table import Table

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import Adapter, minimal
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.commands.interrupts import EXIT_INTERRUPTED, to_its_end
from kintsugi.harness.commands.progress import Progress
from kintsugi.harness.commands.run import JOBS_PER_CORE
from kintsugi.harness.means import missing_among
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.harness.selftest import BUGS, CORRECT, Bug, Row, judged, needs, planned, shown_here
from kintsugi.harness.suite_run import SuiteRun

__all__ = ["selftest_command"]

DEADLINE_SECONDS = 20.0
"""Many times what any of its trials takes that comes to an end; one that is lost takes all of it."""
STORM_CALLS_MAX = 5.0
"""As in every suite."""
PLAIN_WIDTH = 250
"""Columns where there is no terminal: nothing is cut."""


def selftest_command(seed: int, jobs: int | None, bugs: Sequence[Bug] = BUGS) -> int:
    """Run every planted bug, and the runtime without any, and print what came of it; 0 if all is as it has to be."""
    started = monotonic()
    bugs, skipped = shown_here(bugs, missing_among(needs(bugs)))
    for line in skipped:
        click.echo(line, err=True)
    results = _results(bugs, seed, jobs or JOBS_PER_CORE * (os.cpu_count() or 1))
    if results is None:
        click.echo("interrupted: nothing is kept of a self-test; run it again", err=True)
        return EXIT_INTERRUPTED
    rows = judged(bugs, seed, results)
    _print(rows)
    wrong = [row for row in rows if not row.good]
    missed, alarms = sum(bool(row.what) for row in wrong), sum(not row.what for row in wrong)
    caught = sum(all(row.good for row in rows if row.what == bug.what) for bug in bugs)
    click.echo(
        f"{caught} of {len(bugs)} bugs caught, {missed} signs missed, {alarms} false alarms"
        f"{', some signs skipped' if skipped else ''}; "
        f"{len(results)} trials, seed {seed}, {monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


def _results(bugs: Sequence[Bug], seed: int, jobs: int) -> Mapping[str, TrialResult] | None:
    """Every trial's result, by its id; None where it was interrupted. Nothing is left of them on the disk."""
    trials = planned(bugs, seed)
    adapters: Mapping[str, Adapter] = {CORRECT: minimal.ADAPTER, **PLANTED}
    with tempfile.TemporaryDirectory(prefix="kintsugi-selftest-") as folder:
        results = Results(Path(folder) / "results")
        results.begin({"selftest": seed}, resume=False)
        progress = Progress(len(trials), sys.stderr)
        work = SuiteRun(
            load_workflows(), results, jobs, 1, DEADLINE_SECONDS, STORM_CALLS_MAX, progress.add, adapters=adapters
        )
        try:
            with progress:
                whole = to_its_end(work.run(trials))
            return results.trials() if whole else None
        finally:
            results.end()


def _print(rows: Sequence[Row]) -> None:
    table = Table(title="planted bugs", title_justify="left")
    for heading in ("", "bug", "fault", "expected", "seen"):
        table.add_column(heading)
    for row in rows:
        if row.what:
            table.add_row(_mark(row, "NOT CAUGHT"), row.what, f"{row.workflow}\n{row.strike}", row.expected, row.seen)
    table.add_section()
    passed = [row for row in rows if not row.what and row.good]
    counts = Counter(row.seen.partition(":")[0] for row in passed)
    seen = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    if passed:
        table.add_row("ok", f"none ({CORRECT})", f"the same: {len(passed)} trials", passed[0].expected, seen)
    for row in rows:
        if not row.what and not row.good:
            fault = f"{row.workflow}\n{row.strike}"
            table.add_row(_mark(row, "FALSE ALARM"), f"none ({CORRECT})", fault, row.expected, row.seen)
    # What is in brackets in a point's name is no markup.
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False)
    console.print(table)


def _mark(row: Row, wrong: str) -> str:
    return "ok" if row.good else wrong
