"""``kintsugi replay``: run one trial again and tell its story."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Drift
from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.spec import FileProblem, Workflow, load_workflows, nearest
from kintsugi.harness.adapters import ADAPTERS, Adapter
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.adapters.command import load_adapters, recorded
from kintsugi.harness.history import Event
from kintsugi.harness.mistakes import PROFILES
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import FolderProblem, Results
from kintsugi.harness.story import tell
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.points import END, START
from kintsugi.scenarios.trial import Trial

__all__ = ["replay_command"]

PASSING = frozenset({"correct", "correct_halt"})


def replay_command(
    source: Path,
    trial_id: str | None,
    times: int,
    stored: bool,  # noqa: FBT001 - as on the command line
    adapter: Sequence[Path],
) -> int:
    """Replay a trial; 0 if every run ended correct, else 1."""
    trial, deadline, storm_calls = _trial(source, trial_id)
    workflows = load_workflows()
    if trial.workflow not in workflows:
        raise FileProblem(f"no workflow is called {trial.workflow!r}{nearest(trial.workflow, workflows)}")
    adapters = _adapters(source, trial, adapter, stored=stored)
    problem = next(_problems(trial, workflows[trial.workflow], adapters), "")
    if problem:
        raise FileProblem(f"{source}: {problem}")
    if stored:
        told = Results.existing(source).history(trial.id)
        verdict = judge_trial(workflows[trial.workflow], trial, told, {}, storm_calls)
        click.echo(tell(trial, told, verdict))
        return 0 if verdict.verdict in PASSING else 1
    runs = [_run(trial, workflows, adapters, deadline, storm_calls) for _ in range(times)]
    events, result = runs[-1]
    click.echo(tell(trial, events, result))
    seen = Counter(result.verdict or result.injection for _, result in runs)
    if times > 1:
        click.echo(f"of {times}: " + ", ".join(f"{name} {count}" for name, count in seen.most_common()))
    return 0 if set(seen) <= PASSING else 1


def _run(
    trial: Trial,
    workflows: Mapping[str, Workflow],
    adapters: Mapping[str, Adapter],
    deadline_seconds: float,
    storm_calls_max: float,
) -> tuple[list[Event], TrialResult]:
    """Run a trial, after its cell's baseline, in a folder that is gone afterwards."""
    baseline = Trial("baseline", trial.sut, trial.chain, trial.workflow, seed=trial.seed)
    with tempfile.TemporaryDirectory(prefix="kintsugi-replay-") as folder:
        results = Results(Path(folder) / "results")
        results.begin({"replay": trial.id}, resume=False)
        work = SuiteRun(workflows, results, 1, 1, deadline_seconds, storm_calls_max, lambda _: None, adapters)
        try:
            asyncio.run(work.run([baseline, trial] if trial.id != baseline.id else [trial]))
            if gap := work.suts[trial.sut]["gap"]:
                raise FileProblem(gap)
            return results.history(trial.id), results.trials()[trial.id]
        finally:
            results.end()


def _adapters(source: Path, trial: Trial, files: Sequence[Path], *, stored: bool) -> dict[str, Adapter]:
    """Ours and the user's own, from the files that were given or else from those that the results were made with."""
    records = Results.existing(source).run().get("adapters", {}) if source.is_dir() else {}
    if stored:
        return {**ADAPTERS, **recorded(records)}
    if not files and trial.sut in records:
        files = [Path(records[trial.sut]["file"])]
    return {**ADAPTERS, **load_adapters(files)}


def _problems(trial: Trial, workflow: Workflow, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """What keeps a trial that was read from a file from being run, each as one line."""
    own = trial.sut in adapters and adapters[trial.sut].own_chain
    for what, name, known in (
        ("SUT", trial.sut, adapters),
        ("chain", trial.chain, [OWN] if own else CHAINS),
        ("variance", trial.variance, PROFILES),
        *(("fault class", strike.fault, FAULTS) for strike in trial.schedule),
    ):
        if name not in known:
            yield f"no {what} is called {name!r}{nearest(str(name), known)}"
            return
    for strike in trial.schedule:
        forms = [form.name for form in FAULTS[strike.fault].forms]
        if strike.form not in forms:
            yield f"{strike.fault} has no form {strike.form!r}{nearest(str(strike.form), forms)}"
        elif strike.point.step not in {*workflow.steps, START, END}:
            yield f"{workflow.name} has no step {strike.point.step!r}{nearest(strike.point.step, workflow.steps)}"
        elif trial.drift not in workflow.drifts and any(
            isinstance(action, Drift) for action in FAULTS[strike.fault].form(strike.form).actions
        ):
            yield f"{workflow.name} has no drift {trial.drift!r}{nearest(str(trial.drift), workflow.drifts)}"


def _trial(source: Path, trial_id: str | None) -> tuple[Trial, float, float]:
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
        return Trial.from_json((exact or found)[0].trial), suite.deadline_seconds, suite.storm_calls_max
    try:
        return Trial.from_json(json.loads(source.read_text(encoding="utf-8"))), 90.0, 5.0
    except OSError as error:
        raise FileProblem(f"{source}: can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FileProblem(f"{source}: is no trial: {error}") from error
