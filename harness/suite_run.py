"""Runs a plan: baselines first, then everything else, many trials at once; each is judged and kept as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.adapters import ADAPTERS, Adapter, Unavailable
from kintsugi.harness.crew import Crew
from kintsugi.harness.history import Event, History, Unwritable, of
from kintsugi.harness.means import make_ready, needed_by
from kintsugi.harness.measures import Delivered, delivered
from kintsugi.harness.models.answers import Model
from kintsugi.harness.models.scripted import Scripted
from kintsugi.harness.processes import LauncherGone
from kintsugi.harness.pulse import Pulse
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import FolderProblem, Results
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import BASELINE_FAILED, judge_trial
from kintsugi.scenarios.trial import Trial

__all__ = ["SuiteRun", "judge_stored"]

STALLED_TRIES = 3
"""How often a trial is run, where the harness itself stood still meanwhile."""
OWN_SERVERS = 2
"""How many trials at once have a server of their own, which no other trial notices the end of."""
STORM_JOBS = 1
"""Storms are run by themselves: each is fifty workflows at once."""


@dataclass
class SuiteRun:
    """One run of a list of trials into a results folder. `said` is told of every result."""

    workflows: Mapping[str, Workflow]
    results: Results
    jobs: int
    timing_jobs: int
    deadline_seconds: float
    storm_calls_max: float
    said: Callable[[TrialResult], None]
    adapters: Mapping[str, Adapter] = field(default_factory=lambda: ADAPTERS)
    told: Callable[[str], None] = lambda _: None
    """Told of each SUT that can't be run here, in one line."""
    model: Model = field(default_factory=Scripted)
    """Who answers at the gateway."""
    suts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How each SUT that had trials left was run: see `_how`. One with a ``gap`` has no results."""
    _crews: dict[str, Crew] = field(default_factory=dict)
    _clean: dict[tuple[str, str, str], Delivered | None] = field(default_factory=dict)
    """What the baseline of each cell delivered, once it was judged; None where it was not correct."""
    _pulse: Pulse = field(default_factory=Pulse)
    _own_servers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OWN_SERVERS))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self, trials: Sequence[Trial]) -> None:
        """Run every trial that is `left`: see `Results`.

        Faults are not run where the clean run of their cell did not end correctly: they would say nothing, and a real
        model is paid for them.
        Raises LauncherGone and Unwritable, with what was done kept.
        """
        known = self.results.trials()
        left = self.results.left(trials, known)
        again = {trial.id for trial in left}
        for trial in trials:
            if trial.kind == "baseline" and trial.id not in again:
                self._note_baseline(trial, known[trial.id])
        with contextlib.suppress(Unavailable):
            # Where it can't be had, the trials that need it say so.
            make_ready({name for trial in left for name in needed_by(trial)})
        async with self.staffed({trial.sut for trial in left}):
            left = [trial for trial in left if not self.suts[trial.sut]["gap"]]
            await self.each((t for t in left if t.kind == "baseline"), self.jobs)
            rest = [t for t in left if t.kind in {"clean", "fault"}]
            await self.each(sorted((t for t in rest if t.copies == 1), key=_longest_first), self.jobs)
            await self.each((t for t in rest if t.copies > 1), STORM_JOBS)
            await self.each((t for t in left if t.kind == "timing"), self.timing_jobs)

    @asynccontextmanager
    async def staffed(self, suts: Collection[str]) -> AsyncIterator[None]:
        """What the trials of some SUTs share is up meanwhile; a SUT that can't be run here has a ``gap`` in `suts`."""
        beating = asyncio.create_task(self._pulse.beat())
        try:
            async with asyncio.TaskGroup() as starting:
                for name in sorted(suts):
                    starting.create_task(self._start(name))
            yield
        finally:
            beating.cancel()
            for name, crew in self._crews.items():
                if crew.adapter.server is not None and name in self.suts:
                    used = {"cpu_seconds": crew.server_cpu_seconds(), "runs": crew.runs}
                    self.suts[name]["server"] = used
            await asyncio.gather(*(crew.close() for crew in self._crews.values()), return_exceptions=True)

    async def _start(self, name: str) -> None:
        """Bring up what a SUT's trials share; one that can't be run here is a gap, and the others go on."""
        crew = self._crews[name] = Crew(self.adapters[name], self.results.state_folder / "servers" / name)
        gap = ""
        try:
            await crew.start()
        except (Unavailable, LauncherGone) as problem:
            gap = str(problem)
            self.told(gap)
        self.suts[name] = _how(crew, gap)

    async def each(self, trials: Iterable[Trial], jobs: int) -> None:
        """Run trials of a SUT that is `staffed`, `jobs` at a time, each taken from `trials` when its turn comes.

        The first error ends all of them, and is raised by itself where it is known. None is begun once the model says
        that it has `stopped`.
        """
        waiting = itertools.takewhile(lambda _: not self.model.stopped, trials)

        async def one_after_another() -> None:
            for trial in waiting:
                await self._one(trial)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(one_after_another())
        except BaseExceptionGroup as errors:
            known, _ = errors.split((FolderProblem, LauncherGone, Unwritable))
            if known is None:
                raise
            raise _first(known) from None

    async def _one(self, trial: Trial) -> None:
        workflow = self.workflows[trial.workflow]
        clean = self._clean.get(trial.cell, {} if trial.kind == "baseline" else None)
        if trial.kind in {"fault", "timing"} and self._clean.get(trial.cell, {}) is None:
            events = self._leave_out(trial)
        else:
            events = await self._run_until_steady(trial, workflow)
        result = judge_trial(workflow, trial, events, clean, self.storm_calls_max)
        self.results.must_have_room()
        self.results.append(result)
        if trial.kind == "baseline":
            self._note_baseline(trial, result)
        self.said(result)

    def _leave_out(self, trial: Trial) -> Sequence[Event]:
        with contextlib.closing(History(self.results.history_path(trial.id))) as history:
            history.add("runner", "left_out", why=BASELINE_FAILED)
            history.add("runner", "closed")
            return history.events

    async def _run_until_steady(self, trial: Trial, workflow: Workflow) -> Sequence[Event]:
        """Run a trial, and again where the harness stood still meanwhile."""
        events = await self._run(trial, workflow)
        tries = 1
        while of(events, "runner", "stalled") and tries < STALLED_TRIES and not self.model.stopped:
            events = await self._run(trial, workflow)
            tries += 1
        return events

    async def _run(self, trial: Trial, workflow: Workflow) -> Sequence[Event]:
        number = next(self._numbers)
        folder, path = self.results.state_folder / f"t{number}", self.results.history_path(trial.id)
        further = (folder, path, self.deadline_seconds, self._pulse, self.model)
        if not any(FAULTS[strike.fault].scope == "server" for strike in trial.schedule):
            return await run_trial(trial, workflow, self._crews[trial.sut], *further)
        async with self._own_servers:
            crew = Crew(self.adapters[trial.sut], self.results.state_folder / "servers" / f"{trial.sut}-t{number}")
            try:
                await crew.start()
                return await run_trial(trial, workflow, crew, *further)
            except Unavailable as problem:
                # It could be had for the whole suite, and now it can't be.
                raise LauncherGone(str(problem)) from problem
            finally:
                await crew.close()

    def _note_baseline(self, trial: Trial, result: TrialResult) -> None:
        if result.verdict != "harness_error":
            correct = result.verdict == "correct"
            self._clean[trial.cell] = delivered(self.results.history(trial.id)) if correct else None


def _how(crew: Crew, gap: str) -> dict[str, Any]:
    """How a SUT is run, as JSON, for whoever reads its figures; `gap` says why it could not be."""
    adapter = crew.adapter
    return {
        "about": adapter.about,
        "profile": adapter.profile,
        "resumes": adapter.resumes,
        "failed_over_by": adapter.failed_over_by if adapter.fails_over else "",
        "decisions": adapter.decisions,
        "settings": dict(adapter.settings),
        "versions": crew.found,
        "gap": gap,
    }


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _longest_first(trial: Trial) -> int:
    """Trials that wait longest begin first, so that none is left to run alone at the end."""
    if not trial.schedule:
        return 2
    form = trial.forms[0]
    return 0 if form.may_halt or form.name in {"never", "late", "late_after_restart"} else 1


def judge_stored(
    workflows: Mapping[str, Workflow], results: Results, storm_calls_max: float
) -> list[tuple[TrialResult, TrialResult]]:
    """Judge every stored history again: (as it was judged, as it is judged now), in the stored order."""
    stored = results.trials()
    clean: dict[tuple[str, str, str], Delivered | None] = {}
    pairs = []
    for result in sorted(stored.values(), key=lambda r: r.kind != "baseline"):
        trial = Trial.from_json(result.trial)
        workflow = workflows[trial.workflow]
        events = results.history(trial.id)
        known = clean.get(trial.cell, {} if trial.kind == "baseline" else None)
        again = judge_trial(workflow, trial, events, known, storm_calls_max)
        if trial.kind == "baseline":
            clean[trial.cell] = delivered(events) if again.verdict == "correct" else None
        pairs.append((result, again))
    return pairs
