"""``kintsugi check``, ``report`` and ``gate``: everything that is computed from results that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kintsugi.harness.commands.finish import finish
from kintsugi.harness.commands.run import planned
from kintsugi.harness.results import FolderProblem, Results, write_atomically
from kintsugi.harness.suite_run import judge_stored

__all__ = ["check_command", "gate_command", "report_command"]

SHOWN_DIFFERENCES = 20


def check_command(folder: Path, write: bool) -> int:  # noqa: FBT001 - as on the command line
    """Judge every stored history again; 1 where a verdict differs, unless the new ones are written."""
    results = Results.existing(folder)
    suite, workflows, _ = planned(results)
    pairs = judge_stored(workflows, results, suite.storm_calls_max)
    differ = [(old, new) for old, new in pairs if (old.injection, old.verdict) != (new.injection, new.verdict)]
    for old, new in differ[:SHOWN_DIFFERENCES]:
        click.echo(f"{old.id}: was {old.verdict or old.injection}, is {new.verdict or new.injection}: {new.reason}")
    click.echo(f"{len(pairs)} histories judged again, {len(differ)} verdicts differ")
    if write:
        lines = "".join(json.dumps(new.to_json()) + "\n" for _, new in pairs)
        write_atomically(folder / "trials.jsonl", lines)
        report_command(folder)
        return 0
    return 1 if differ else 0


def report_command(folder: Path) -> None:
    """Make summary, scorecard and exports again."""
    results = Results.existing(folder)
    suite, workflows, plan = planned(results)
    earlier = results.summary() if (folder / "summary.json").is_file() else {}
    finish(results, suite, workflows, plan, earlier.get("started_at", ""), earlier.get("wall_seconds", 0.0))
    click.echo(f"scorecard: {folder / 'scorecard.html'}")


def _summary(folder: Path) -> Mapping[str, Any]:
    summary = Results.existing(folder).summary()
    if "suts" not in summary:
        path = folder / "summary.json"
        raise FolderProblem(f"{path}: is no summary; make it again with `kintsugi report {folder}`")
    return summary


def gate_command(folder: Path, thresholds: Path | None, baseline: Path | None) -> int:
    """Hold a run against thresholds; 0 pass, 1 fail, 3 inconclusive."""
    from kintsugi.harness.gate import judge, load_thresholds

    summary = _summary(folder)
    compared = _summary(baseline) if baseline else None
    decision = judge(summary, load_thresholds(thresholds), compared)
    click.echo(str(decision))
    return decision.exit_code
