"""The end of a run: summary, environment, scorecard and exports from the trials that are stored."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import kintsugi
from kintsugi import __version__
from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.sources import Source
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness import junit, markdown
from kintsugi.harness.commands.real_model import answered_by, prices_of, token_source
from kintsugi.harness.coverage import coverage_rows, lines
from kintsugi.harness.means import fault_gaps
from kintsugi.harness.metrics import measure
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results, write_atomically
from kintsugi.harness.session import TIME_SCALE
from kintsugi.harness.supervisor import SUPERVISOR_SECONDS
from kintsugi.harness.trial import QUIET_SECONDS
from kintsugi.scenarios.planner import Plan, targets
from kintsugi.scenarios.points import sites
from kintsugi.scenarios.suite import Suite

__all__ = ["code_digest", "environment", "finish", "print_table", "summarise"]

PACKAGES = ("aiohttp", "jinja2", "jsonschema", "pydantic", "scipy", "matplotlib", "pandas")

PLAIN_WIDTH = 120
"""The width of the closing table where there is no terminal to fit it to."""


def summarise(
    results: Results,
    suite: Suite,
    workflows: Mapping[str, Workflow],
    plan: Plan,
    started_at: str,
    wall_seconds: float,
) -> dict[str, Any]:
    """The summary of the stored trials."""
    suts = results.suts()
    gaps = {
        f"{trial.sut}+{trial.chain}": suts[trial.sut]["gap"]
        for trial in plan.trials
        if suts.get(trial.sut, {}).get("gap")
    }
    chains = {trial.chain for trial in plan.trials}
    frame = {
        (chain, name): [str(site.point) for site in sites(workflow, chain, whole=suite.pairs is not None)]
        for chain in chains
        for name, workflow in workflows.items()
        if suite.wants(name)
    }
    keys = dict.fromkeys((trial.sut, trial.chain) for trial in plan.trials)
    aimed = {f"{sut}+{chain}": targets(suite, workflows, sut, chain, plan.lacks) for sut, chain in keys}
    stored = [_as_run(result, suts.get(result.sut, {})) for result in results.trials().values()]
    return measure(
        stored,
        suite=f"{suite.name} {suite.version}{_on_what(results)}",
        seed=results.run()["seed"],
        started_at=started_at,
        wall_seconds=round(wall_seconds, 1),
        planned=len(plan.trials),
        not_applicable=plan.not_applicable,
        prices=prices_of(results.run()),
        token_source=token_source(results.run(), stored),
        answered_by=answered_by(results.run()),
        frame=frame,
        exhaustive={(t.trial.fault, t.trial.workflow) for aims in aimed.values() for t in aims if t.whole},
        points={key: coverage_rows((r for r in stored if r.key == key), aims) for key, aims in aimed.items()},
        gaps=gaps,
        fault_gaps=fault_gaps(plan.gaps, results.run().get("missing", {})),
    )


def _on_what(results: Results) -> str:
    """Which workflows a suite was run on, where they were not the shipped ones."""
    source = results.run().get("source")
    return f" on {Source(source['where'], source['domain']).name}" if source else ""


def _as_run(result: TrialResult, how: Mapping[str, Any]) -> TrialResult:
    """A result, with what depends on how its SUT was run.

    It is charged with its share of the CPU time that the SUT's shared server used, by runs of workflows; and where not
    the engine but the plain supervisor beside it had the run taken up again, the adapter dealt with the fault.
    """
    server = how.get("server") or {}
    if server.get("runs"):
        share = server["cpu_seconds"] / server["runs"] * result.trial.get("copies", 1)
        result = replace(result, usage=replace(result.usage, cpu_seconds=result.usage.cpu_seconds + share))
    taken_up_by = how.get("failed_over_by" if result.trial.get("nodes", 1) > 1 else "resumes")
    if result.dealt_with_by == "engine" and result.generations > 1 and taken_up_by == "supervisor":
        result = replace(result, dealt_with_by="adapter")
    return result


def finish(
    results: Results,
    suite: Suite,
    workflows: Mapping[str, Workflow],
    plan: Plan,
    started_at: str,
    wall_seconds: float,
) -> dict[str, Any]:
    """Write everything that is computed from the stored trials, each file whole or not at all; the summary."""
    from kintsugi.reports.scorecard import write

    summary = summarise(results, suite, workflows, plan, started_at, wall_seconds)
    write_atomically(results.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_atomically(
        results.folder / "environment.json", json.dumps(environment(workflows, results.suts()), indent=1) + "\n"
    )
    write_atomically(results.folder / "junit.xml", junit.to_xml(list(results.trials().values())))
    write_atomically(results.folder / "summary.md", markdown.to_markdown(summary))
    texts = {f.name: {"what": f.what, "witness": f.witness, "layer": f.layer} for f in FAULTS.values()}
    write(results.folder, texts | _of_several(results.trials().values()))
    return summary


def _of_several(done: Iterable[TrialResult]) -> dict[str, dict[str, str]]:
    """The texts of schedules of several faults, which are counted under the names of all of these."""
    layers = {result.fault: result.layer for result in done if "+" in result.fault}
    what = "{} faults in one run: {}. One that follows another is armed once that was seen, and meets the recovery."
    return {
        name: {
            "what": what.format(len(parts := name.split("+")), ", then ".join(parts)),
            "witness": "That of each.",
            "layer": layer,
        }
        for name, layer in layers.items()
    }


def code_digest() -> str:
    """A digest of everything that a verdict rests on: the package's own code and files, as they are installed."""
    digest = hashlib.sha256()
    root = Path(kintsugi.__file__).parent
    for path in sorted(root.glob("*/**/*")):
        if path.suffix in {".py", ".toml"}:
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def environment(workflows: Mapping[str, Workflow], suts: Mapping[str, Any]) -> dict[str, Any]:
    """Where and with what the numbers were measured, and what was assumed."""
    return {
        "kintsugi": __version__,
        "code": code_digest(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "suts": dict(suts),
        "workflows": {name: workflow.task.title for name, workflow in workflows.items()},
        "supervisor_delay_seconds": SUPERVISOR_SECONDS,
        "quiet_window_seconds": QUIET_SECONDS,
        "time_scale": TIME_SCALE,
    }


def print_table(summary: Mapping[str, Any]) -> None:
    """The few lines that a run ends with."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"suite {summary['suite']}, seed {summary['seed']}", title_justify="left")
    headings = ("SUT + chain", "class", "completion", "recovery", "corrupted", "… model errs", "unsafe", "$ / success")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in {"SUT + chain", "class"} else "right")
    for key, sut in summary["suts"].items():
        for name, cell in sut["classes"].items():
            cost = cell["cost_per_successful_workflow_usd"]
            machine = cost.get("machine") if cost else None
            table.add_row(
                key,
                name,
                _share(cell["workflow_completion_rate"]),
                _share(cell["fault_recovery_rate"]),
                _share(cell["corruption_rate"]),
                _share(cell["corruption_rate_model_errs"]),
                _share(cell["unsafe_action_rate"]),
                "–" if machine is None else f"{machine:.4f}",
            )
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(table)
    trials = summary["trials"]
    apart = ", ".join(
        f"{trials[name]} {name.replace('_', ' ')}"
        for name in ("not_exposed", "invalid_injection", "baseline_failed", "not_applicable", "harness_error")
    )
    for line in lines(summary["suts"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{trials['run']} trials, {trials['witnessed']} with a witnessed fault; counted apart: {apart}")


def _share(rate: Mapping[str, Any] | None) -> str:
    return "–" if not rate else f"{rate['k']}/{rate['n']}"
