"""``kintsugi run``: plan, run, summarise, report."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import click

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.sources import SHIPPED, Source, recorded_source, source_of
from kintsugi.golden_workflows.spec import FileProblem, Workflow, nearest
from kintsugi.harness.adapters import ADAPTERS, Adapter
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.adapters.command import lacking, load_adapters, recorded, to_records
from kintsugi.harness.commands.finish import code_digest, finish, print_table
from kintsugi.harness.commands.interrupts import EXIT_INTERRUPTED, to_its_end
from kintsugi.harness.commands.progress import Progress
from kintsugi.harness.commands.real_model import SPEND, Behind, by_real_model, patient
from kintsugi.harness.means import gap_lines, missing_means
from kintsugi.harness.mistakes import PROFILES
from kintsugi.harness.models.answers import Model
from kintsugi.harness.results import FolderProblem, Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.planner import Plan, plan
from kintsugi.scenarios.suite import Suite, load_suite, suite_names

__all__ = ["allow_descriptors", "narrow", "planned", "run_command", "suite_for"]

REFERENCE = "naive+naive"
"""What a user's own SUT is scored beside, where nothing else is asked for."""

JOBS_PER_CORE = 10
EXIT_HARNESS = 4
DESCRIPTORS_BASE = 300
"""Open files of the harness itself."""
DESCRIPTORS_PER_TRIAL = 24
"""A trial's history, its six sockets, and the connections of two nodes."""
DESCRIPTORS_PER_COPY = 6
"""Of a storm, which runs alone: connections of a workflow to three services, and as many that are closing."""


def run_command(  # noqa: PLR0913 - the options of the command line, by keyword
    *,
    suite: str,
    sut: Sequence[str],
    chain: Sequence[str],
    workflow: Sequence[str],
    fault: Sequence[str],
    adapter: Sequence[Path],
    seed: int,
    jobs: int | None,
    out: Path | None,
    resume: bool,
    workflows: str | None = None,
    domain: str | None = None,
    **behind: Any,
) -> int:
    """Run a suite into a results folder; the exit code. `behind` are the options of a real model and of prices."""
    answering = Behind.given(behind)
    own, source = load_adapters(adapter), source_of(workflows, domain)
    narrowed, known, suts = narrow(suite_for(suite, source), sut, chain, workflow, fault, own, source)
    missing = missing_means(narrowed)
    narrowed = patient(narrowed, known, answering.record_of())
    the_plan = by_real_model(plan(narrowed, known, seed, suts, lacking(own), missing), answering.record_of())
    if not the_plan.trials:
        raise FileProblem(f"suite {narrowed.name!r} has no trial for what was asked; see `kintsugi plan`")
    started = datetime.now(UTC)
    if resume and out is None:
        raise FileProblem("--resume needs --out, the folder of the run to go on with")
    folder = out or Path("results") / f"{narrowed.name}-s{seed}-{started:%Y%m%d-%H%M%S}"
    results = Results(folder)
    at_once = jobs or JOBS_PER_CORE * (os.cpu_count() or 1)
    most = max(DESCRIPTORS_PER_TRIAL * at_once, *(DESCRIPTORS_PER_COPY * t.copies for t in the_plan.trials))
    allow_descriptors(DESCRIPTORS_BASE + most, at_once)
    prices = answering.table()
    asked = {
        "suite": suite,
        "suite_version": narrowed.version,
        "seed": seed,
        "suts": suts,
        "workflows": sorted(name for name in known if narrowed.wants(name)),
        "source": source.record(),
        "faults": [share.fault for share in narrowed.faults],
        "timing": narrowed.timing is not None,
        "adapters": to_records(own),
        "missing": missing,
        "planned": len(the_plan.trials),
        "code": code_digest(),
        "model": answering.record_of(),
        "prices": prices.model_dump() if answering.real or answering.prices else None,
    }
    if resume and (folder / "run.json").is_file():
        recorded_source(results.run().get("source"))
    left = results.left(the_plan.trials) if resume else the_plan.trials
    model = answering.open(prices, left, known, at_once, folder / SPEND)
    results.begin(asked, resume=resume)
    for line in gap_lines(the_plan.gaps, missing):
        click.echo(f"not run: {line}", err=True)
    clock = monotonic()
    try:
        code = _run(narrowed, known, the_plan, results, at_once, own, model)
    finally:
        results.end()
    if code == EXIT_INTERRUPTED:
        done = len(results.trials())
        click.echo(
            f"interrupted: {done} of {len(the_plan.trials)} trials are kept; "
            f"go on with the same command and --resume --out {folder}",
            err=True,
        )
        return code
    summary = finish(results, narrowed, known, the_plan, started.isoformat(timespec="seconds"), monotonic() - clock)
    print_table(summary)
    broken = summary["trials"]["harness_error"]
    if broken:
        click.echo(
            f"{broken} trials broke the harness; look for harness_error in {folder / 'trials.jsonl'}",
            err=True,
        )
    if model.stopped:
        click.echo(f"stopped: {model.stopped}; go on with the same command and --resume --out {folder}", err=True)
    click.echo(f"scorecard: {folder / 'scorecard.html'}")
    return EXIT_HARNESS if broken or model.stopped else 0


def allow_descriptors(needed: int, at_once: int) -> None:
    """Raise this process's limit of open files as far as it takes. Raises FileProblem where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise FileProblem(
            f"{at_once} trials at once need {needed} open files, and the limit is {hard}; "
            "lower --jobs, or raise it with ulimit -n"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _run(
    suite: Suite,
    workflows: dict[str, Workflow],
    the_plan: Plan,
    results: Results,
    jobs: int,
    own: Mapping[str, Adapter],
    model: Model,
) -> int:
    progress = Progress(len(the_plan.trials), sys.stderr)
    work = SuiteRun(
        workflows,
        results,
        jobs=jobs,
        timing_jobs=suite.timing.jobs if suite.timing else 1,
        deadline_seconds=suite.deadline_seconds,
        storm_calls_max=suite.storm_calls_max,
        said=progress.add,
        adapters={**ADAPTERS, **own},
        told=lambda gap: progress.tell(f"not run: {gap}"),
        model=model,
    )

    with progress:
        try:
            if not to_its_end(work.run(the_plan.trials)):
                return EXIT_INTERRUPTED
        finally:
            results.note_suts(work.suts)
    gaps = [how["gap"] for how in work.suts.values() if how["gap"]]
    if gaps and not results.trials():
        raise FileProblem("; ".join(gaps))
    return 0


def narrow(
    suite: Suite,
    sut: Sequence[str],
    chain: Sequence[str],
    workflow: Sequence[str],
    fault: Sequence[str],
    own: Mapping[str, Adapter],
    source: Source = SHIPPED,
) -> tuple[Suite, dict[str, Workflow], list[str]]:
    """The suite with only what was asked for, the workflows, and its ``sut+chain``. Raises FileProblem.

    The SUTs of the user's `own` adapters are always among them. Beside them stands the reference, unless `sut` or
    `chain` say which others of the suite do.
    """
    from fnmatch import fnmatch

    workflows = source.load()
    if not any(map(suite.wants, workflows)):
        raise FileProblem(
            f"suite {suite.name!r}: its 'workflows' name none of those in {source.where or 'the shipped set'}; "
            "leave the key out to run it on all of them"
        )
    adapters = {**ADAPTERS, **own}
    _known("SUT", sut, adapters)
    _known("chain", chain, (*CHAINS, OWN))
    _known("fault class", fault, FAULTS)
    for pattern in workflow:
        if not any(fnmatch(name, pattern) for name in workflows):
            raise FileProblem(f"no workflow is called {pattern!r}{nearest(pattern, workflows)}")
    for name in sut:
        if name not in own and not _runs(suite, name):
            others = [other for other in suite_names() if _runs(load_suite(other), name)]
            which = f"these do: {', '.join(others)}" if others else "no suite does"
            raise FileProblem(f"suite {suite.name!r} does not run {name}; {which}")
    suts = [key for key in suite.suts if _asked_for(key, sut, chain, own)]
    suts += [f"{name}+{OWN}" for name in own if f"{name}+{OWN}" not in suts]
    for key in suts:
        name, _, its_chain = key.partition("+")
        _known("SUT", [name], adapters)
        _known("chain", [its_chain], (*CHAINS, OWN))
        if adapters[name].own_chain != (its_chain == OWN):
            brings = f"brings its own agent: {name}+{OWN}" if adapters[name].own_chain else "brings no agent of its own"
            raise FileProblem(f"{key}: {name} {brings}")
    _known("variance", [suite.variance], PROFILES)
    changes: dict[str, object] = {}
    if workflow:
        changes["workflows"] = [n for n in workflows if suite.wants(n) and any(fnmatch(n, p) for p in workflow)]
    if fault:
        changes["faults"] = [share for share in suite.faults if share.fault in fault]
        changes["timing"] = suite.timing if suite.timing and suite.timing.fault in fault else None
    return suite.model_copy(update=changes), workflows, suts


def suite_for(name: str, source: Source) -> Suite:
    """A suite by its name or path, for the workflows of a source. Raises FileProblem.

    The workflows that a shipped suite names are shipped ones: where others are brought, it runs on all of these. A
    suite file of one's own keeps to the names that it gives.
    """
    suite = load_suite(name)
    if source.shipped or name.endswith(".toml"):
        return suite
    return suite.model_copy(update={"workflows": ["*"]})


def _runs(suite: Suite, sut: str) -> bool:
    return any(key.partition("+")[0] == sut for key in suite.suts)


def _asked_for(key: str, sut: Sequence[str], chain: Sequence[str], own: Mapping[str, Adapter]) -> bool:
    """Whether a ``sut+chain`` of a suite is to be run."""
    name, _, its_chain = key.partition("+")
    if own and not sut and not chain:
        return key == REFERENCE or name in own
    return (not sut or name in sut) and (not chain or its_chain in chain)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    table = list(known)
    for name in names:
        if name not in table:
            raise FileProblem(f"no {what} is called {name!r}{nearest(name, table)}")


def planned(results: Results) -> tuple[Suite, dict[str, Workflow], Plan]:
    """The suite, workflows and plan that a results folder was begun with. Raises FileProblem, FolderProblem."""
    asked = results.run()
    missing = [
        key for key in ("suite", "suite_version", "seed", "suts", "workflows", "faults", "timing") if key not in asked
    ]
    if missing:
        raise FolderProblem(
            f"{results.folder / 'run.json'}: lacks {missing[0]!r}; another version of kintsugi wrote it"
        )
    own = recorded(asked.get("adapters", {}))
    source = recorded_source(asked.get("source"))
    suite, workflows, _ = narrow(suite_for(asked["suite"], source), [], [], [], [], own, source)
    if suite.version != asked["suite_version"]:
        raise FolderProblem(
            f"{results.folder}: was run with version {asked['suite_version']} of suite {suite.name}, "
            f"this is version {suite.version}; run the suite again"
        )
    changes = {
        "workflows": asked["workflows"],
        "faults": [share for share in suite.faults if share.fault in asked["faults"]],
        "timing": suite.timing if asked["timing"] else None,
    }
    real = asked.get("model")
    narrowed = patient(suite.model_copy(update=changes), workflows, real)
    the_plan = plan(narrowed, workflows, asked["seed"], asked["suts"], lacking(own), asked.get("missing", {}))
    return narrowed, workflows, by_real_model(the_plan, real)
