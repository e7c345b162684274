"""``kintsugi replay``: run one trial again and tell its story."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path

import click

from kintsugi.golden_workflows.spec import FileProblem, load_workflows, nearest
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.history import Event
from kintsugi.harness.results import FolderProblem, Results
from kintsugi.harness.story import tell
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Trial

__all__ = ["replay_command"]


def replay_command(source: Path, trial_id: str | None, times: int, stored: bool) -> int:  # noqa: FBT001 - as on the command line
    """Replay a trial; 0 if every run ended correct, else 1."""
    trial, deadline, storm_calls = _trial(source, trial_id)
    workflows = load_workflows()
    if trial.workflow not in workflows:
        raise FileProblem(f"no workflow is called {trial.workflow!r}{nearest(trial.workflow, workflows)}")
    if trial.sut not in ADAPTERS:
        raise FileProblem(f"no SUT is called {trial.sut!r}{nearest(trial.sut, ADAPTERS)}")
    if stored:
        events = Results.existing(source).history(trial.id)
        result = judge_trial(workflows[trial.workflow], trial, events, {}, storm_calls)
        click.echo(tell(trial, events, result))
        return 0 if result.verdict in {"correct", "correct_halt"} else 1
    seen: Counter[str] = Counter()
    events = []
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="kintsugi-replay-") as folder:
            results = Results(Path(folder) / "results")
            results.begin({"replay": trial.id}, resume=False)
            work = SuiteRun(workflows, results, 1, 1, deadline, storm_calls, lambda _: None)
            baseline = Trial("baseline", trial.sut, trial.chain, trial.workflow, seed=trial.seed)
            try:
                asyncio.run(work.run([baseline, trial] if trial.id != baseline.id else [trial]))
                result = results.trials()[trial.id]
                events: list[Event] = results.history(trial.id)
            finally:
                results.end()
        seen[result.verdict or result.injection] += 1
    click.echo(tell(trial, events, result))
    if times > 1:
        click.echo("of " + str(times) + ": " + ", ".join(f"{name} {count}" for name, count in seen.most_common()))
    return 0 if set(seen) <= {"correct", "correct_halt"} else 1


def _trial(source: Path, trial_id: str | None) -> tuple[Trial, float, float]:
    if source.is_dir():
        from kintsugi.harness.commands.run import planned  # noqa: PLC0415 - not needed for a single file

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
