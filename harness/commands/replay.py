"""``kintsugi replay``: run one trial again and tell its story."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Drift
from kintsugi.faults.fault import Form
from kintsugi.golden_workflows.sources import recorded_source, source_of
from kintsugi.golden_workflows.spec import FileProblem, Workflow, nearest
from kintsugi.harness.adapters import ADAPTERS, Adapter
from kintsugi.harness.adapters.command import load_adapters, recorded
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.commands.explore import RACE, chains_of
from kintsugi.harness.commands.real_model import REAL, SPEND, Behind
from kintsugi.harness.commands.run import JOBS_PER_CORE
from kintsugi.harness.explore import COPIES_MIN, holds_a_race
from kintsugi.harness.found import ToReplay, read
from kintsugi.harness.history import Event
from kintsugi.harness.means import clash_of
from kintsugi.harness.mistakes import PROFILES
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import FolderProblem, Results
from kintsugi.harness.selftest import CLEAN, seen
from kintsugi.harness.story import tell
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.points import END, START
from kintsugi.scenarios.trial import Trial

__all__ = ["replay_command"]


def replay_command(
    source: Path,
    trial_id: str | None,
    times: int,
    stored: bool,  # noqa: FBT001 - as on the command line
    adapter: Sequence[Path],
    workflows: str | None = None,
    domain: str | None = None,
    **behind: Any,
) -> int:
    """Replay a trial; 0 if every run ended correct and broke no rule, else 1."""
    answering = Behind.given(behind)
    what = _by(answering, _what(source, trial_id), source, times, stored=stored)
    trial = what.trial
    brought = recorded_source(what.source) if workflows is None else source_of(workflows, domain)
    known = brought.load()
    if trial.workflow not in known:
        raise FileProblem(f"no workflow is called {trial.workflow!r}{nearest(trial.workflow, known)}")
    adapters = _adapters(what, adapter, stored=stored)
    workflow = known[trial.workflow]
    problem = next(_problems(trial, workflow, adapters), "")
    if problem:
        raise FileProblem(f"{source}: {problem}")
    if stored:
        told: Sequence[Event] = Results.existing(source).history(trial.id)
        runs = [(told, judge_trial(workflow, trial, told, {}, what.storm_calls_max))]
    else:
        runs = _runs(what, times, known, adapters, answering)
    failing = [run for run in runs if not CLEAN.issuperset(seen(run[1]))]
    events, result = failing[0] if failing else runs[0]
    click.echo(tell(workflow, trial, events, result))
    if times > 1:
        counts = Counter(", ".join(seen(result)) for _, result in runs)
        click.echo(f"of {len(runs)}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
        click.echo(f"{len(failing)} of {len(runs)} runs fail" + (f" ({RACE})" if holds_a_race(trial) else ""))
    return 1 if failing else 0


def _runs(
    what: ToReplay,
    times: int,
    workflows: Mapping[str, Workflow],
    adapters: Mapping[str, Adapter],
    answering: Behind,
) -> list[tuple[Sequence[Event], TrialResult]]:
    """Run a trial some times, after its cell's baseline, in a folder that is gone afterwards."""
    trial = what.trial
    baseline = Trial("baseline", trial.sut, trial.chain, trial.workflow, seed=trial.seed)
    if answering.real:
        baseline = replace(baseline, variance=REAL)
    again = [replace(trial, repeat=trial.repeat + number) for number in range(times)]
    jobs = min(times, JOBS_PER_CORE * (os.cpu_count() or 1))
    with tempfile.TemporaryDirectory(prefix="kintsugi-replay-") as folder:
        results = Results(Path(folder) / "results")
        results.begin({"replay": trial.id}, resume=False)
        limits = (what.deadline_seconds, what.storm_calls_max)
        trials = list(dict.fromkeys([baseline, *again]))
        model = answering.open(answering.table(), trials, workflows, jobs, Path(folder) / SPEND)
        work = SuiteRun(workflows, results, jobs, 1, *limits, lambda _: None, adapters, model=model)
        try:
            asyncio.run(work.run(trials))
            if gap := work.suts[trial.sut]["gap"]:
                raise FileProblem(gap)
            done = results.trials()
            if model.stopped:
                raise FileProblem(model.stopped)
            return [(results.history(run.id), done[run.id]) for run in again]
        finally:
            results.end()


def _by(answering: Behind, what: ToReplay, source: Path, times: int, *, stored: bool) -> ToReplay:
    """What to run, with the trial of whoever is to answer in it. Raises FileProblem where that does not fit it."""
    if answering.replay is not None and times > 1:
        raise FileProblem("--times: a cassette holds a trial's answers once; leave it out, or --replay")
    if what.trial.variance == REAL and not answering.real and not stored:
        raise FileProblem(
            f"{source}: a real model answered in this trial; give its cassette with --replay DIR, or have it asked "
            "again with --model PROVIDER/NAME"
        )
    return replace(what, trial=replace(what.trial, variance=REAL)) if answering.real else what


def _adapters(what: ToReplay, files: Sequence[Path], *, stored: bool) -> dict[str, Adapter]:
    """Ours and the user's own, from the files that were given or else from those that the trial was run with."""
    if stored:
        return {**ADAPTERS, **PLANTED, **recorded(what.adapters)}
    if not files and what.trial.sut in what.adapters:
        files = [Path(what.adapters[what.trial.sut]["file"])]
    return {**ADAPTERS, **PLANTED, **load_adapters(files)}


def _problems(trial: Trial, workflow: Workflow, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """What keeps a trial that was read from a file from being run, each as one line."""
    chains = chains_of(adapters[trial.sut]) if trial.sut in adapters else []
    for what, name, known in (
        ("SUT", trial.sut, adapters),
        ("chain", trial.chain, chains),
        ("variance", trial.variance, (*PROFILES, REAL)),
        *(("fault class", strike.fault, FAULTS) for strike in trial.schedule),
    ):
        if name not in known:
            yield f"no {what} is called {name!r}{nearest(str(name), known)}"
            return
    for strike in trial.schedule:
        forms = [form.name for form in FAULTS[strike.fault].forms]
        if strike.form not in forms:
            yield f"{strike.fault} has no form {strike.form!r}{nearest(str(strike.form), forms)}"
            return
        if strike.point.step not in {*workflow.steps, START, END}:
            yield f"{workflow.name} has no step {strike.point.step!r}{nearest(strike.point.step, workflow.steps)}"
        elif few := _too_few(trial, strike.form_struck):
            yield f"{strike.fault}.{strike.form} {few}"
        elif trial.drift not in workflow.drifts and any(
            isinstance(action, Drift) for action in strike.form_struck.actions
        ):
            yield f"{workflow.name} has no drift {trial.drift!r}{nearest(str(trial.drift), workflow.drifts)}"
    if clash := clash_of(trial):
        yield clash


def _too_few(trial: Trial, form: Form) -> str:
    """What a form needs more of than a trial has; empty where it has enough."""
    if trial.nodes < form.nodes:
        return f"needs {form.nodes} nodes, the trial has nodes {trial.nodes}"
    # A storm may be smaller than its form's, and yet takes several.
    copies = min(form.copies, COPIES_MIN)
    return f"needs copies {copies} or more, the trial has copies {trial.copies}" if trial.copies < copies else ""


def _what(source: Path, trial_id: str | None) -> ToReplay:
    """What to run: a trial of a results folder, or that of a file. Raises FolderProblem, FileProblem."""
    if source.is_dir():
        from kintsugi.harness.commands.run import planned

        results = Results.existing(source)
        if trial_id is None:
            raise FolderProblem("say which trial to replay with --trial ID; the scorecard names them")
        found = [result for name, result in results.trials().items() if trial_id in name]
        exact = [result for result in found if result.id == trial_id]
        if len(exact or found) != 1:
            raise FolderProblem(f"{source}: {len(found)} trials match {trial_id!r}; give one id from trials.jsonl")
        suite, _, _ = planned(results)
        trial = Trial.from_json((exact or found)[0].trial)
        asked = results.run()
        limits = (suite.deadline_seconds, suite.storm_calls_max)
        return ToReplay(trial, *limits, asked.get("adapters", {}), asked.get("source"))
    try:
        return read(json.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise FileProblem(f"{source}: can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FileProblem(f"{source}: is no trial: {error}") from error
