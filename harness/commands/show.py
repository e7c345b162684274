"""``kintsugi list`` and ``kintsugi plan``: what there is, and what would be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.sources import source_of
from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.adapters.command import lacking, load_adapters
from kintsugi.harness.commands.run import narrow, suite_for
from kintsugi.harness.means import gap_lines, missing_means
from kintsugi.scenarios.planner import plan
from kintsugi.scenarios.suite import load_suite, suite_names

__all__ = ["list_command", "plan_command"]

CHAIN_TEXTS = {
    "naive": "ReAct: the model decides every step, with the whole transcript at each turn",
    "optimized": "known structure is code; the model is asked only for judgement, with only what it needs",
    OWN: "a SUT's own agent, whatever it is; the only chain of a SUT of your own (--adapter FILE)",
}


def list_command(what: str | None, workflows: str | None = None, domain: str | None = None) -> None:
    """Print a line for each suite, SUT, chain, workflow and fault class, or for one kind of them."""
    source = source_of(workflows, domain)
    tables = {
        "suites": {name: load_suite(name).about for name in suite_names()},
        "suts": {name: adapter.about for name, adapter in ADAPTERS.items()},
        "chains": {name: CHAIN_TEXTS.get(name, "") for name in (*CHAINS, OWN)},
        "workflows": {name: workflow.task.title for name, workflow in source.load().items()},
        "faults": {name: fault.what for name, fault in FAULTS.items()},
    }
    for kind, rows in tables.items():
        if what not in {None, kind}:
            continue
        click.echo(kind)
        width = max(map(len, rows))
        for name, text in rows.items():
            click.echo(f"  {name:<{width}}  {text}")


def plan_command(
    suite: str,
    seed: int,
    claim: float | None,
    trials: bool,  # noqa: FBT001 - as on the command line
    adapter: Sequence[Path],
    workflows: str | None = None,
    domain: str | None = None,
) -> None:
    """Print what a suite would run, by fault and SUT, or what a claim needs."""
    if claim is not None:
        _claim(claim)
        return
    own, source = load_adapters(adapter), source_of(workflows, domain)
    chosen, known, suts = narrow(suite_for(suite, source), [], [], [], [], own, source)
    missing = missing_means(chosen)
    planned = plan(chosen, known, seed, suts, lacking(own), missing)
    if trials:
        for trial in planned.trials:
            click.echo(trial.id)
        return
    counts = Counter((trial.fault or trial.kind if trial.kind != "timing" else "timing") for trial in planned.trials)
    on = f" on {source.name}" if source.name else ""
    title = f"suite {chosen.name} {chosen.version}{on}, seed {seed}"
    click.echo(f"{title}: {len(planned.trials)} trials on {', '.join(suts)}")
    for name, count in counts.items():
        click.echo(f"  {name:<20} {count}")
    for key, workflow, fault in planned.not_applicable:
        click.echo(f"  not applicable: {fault} on {workflow} for {key}")
    for line in gap_lines(planned.gaps, missing):
        click.echo(f"  not run: {line}")


def _claim(rate: float) -> None:
    from kintsugi.harness.intervals import trials_needed

    if not 0 < rate < 1:
        raise FileProblem(f"--claim takes a rate between 0 and 1, for example 0.99; found {rate:g}")
    for failures in (0, 1, 2):
        one, two = (trials_needed(rate, sided=sided, failures=failures) for sided in (1, 2))
        click.echo(
            f"to claim at least {rate:.2%} with 95% confidence and {failures} failures: "
            f"{one} trials (one-sided bound), {two} (lower end of the two-sided interval); for each class"
        )
