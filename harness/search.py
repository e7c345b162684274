"""Looks for a failing schedule on a real SUT: tries the stream, shrinks the first that fails, and confirms it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kintsugi.harness.adapters import Adapter, Unavailable
from kintsugi.harness.explore import Frame, exposed, shrinking, stream
from kintsugi.harness.history import Event
from kintsugi.harness.records import Count, TrialResult
from kintsugi.harness.results import Results
from kintsugi.harness.selftest import ASKED_AGAIN, STORM, seen
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Trial

__all__ = ["DEFAULT", "LOOKING_FOR", "Budget", "Found", "Search", "Shown"]

LOOKING_FOR: Mapping[str, str] = {
    "corrupted": "corrupted",
    "lost": "lost",
    "failed": "failed",
    "needless_halt": "needless_halt",
    "asked_again": ASKED_AGAIN,
    "storm": STORM,
}
"""What may count as found, by the name that a user gives it."""
DEFAULT: Collection[str] = tuple(what for name, what in LOOKING_FOR.items() if name != "needless_halt")
"""What does, where nothing else is said: a person who was asked in vain has lost time, and no truth."""
CANDIDATE_RUNS = 3
"""How often each simpler schedule is run while shrinking."""


@dataclass(frozen=True)
class Shown:
    """One run of a trial that fails: what of it was exposed, what came of that, and its history."""

    trial: Trial
    result: TrialResult
    events: Sequence[Event]
    shows: tuple[str, ...]
    """What of what is looked for it shows."""


@dataclass(frozen=True)
class Found:
    """A schedule that fails: as the stream had it, and the simplest one that was found to fail too."""

    number: int
    """How many trials it took: its place in the stream."""
    as_found: Shown
    shrunk: Shown
    """The simplest; the last run of it that failed."""
    confirmed: Count = field(default_factory=Count)
    """How many of how many runs of the simplest failed; 0 of 0 before it was run again."""


@dataclass(frozen=True)
class Budget:
    """When a search gives up. Shrinking and confirming what was found are not counted."""

    trials: int | None = None
    seconds: float | None = None


@dataclass
class Search:
    """One search, in a results folder of its own, whose histories are not kept."""

    frame: Frame
    adapter: Adapter
    results: Results
    budget: Budget
    jobs: int
    deadline_seconds: float
    storm_calls_max: float
    looking_for: Collection[str] = DEFAULT
    confirm: int = 5
    said: Callable[[TrialResult], None] = lambda _: None
    """Told of the result of every schedule that was tried."""
    told: Callable[[str], None] = lambda _: None
    """Told in a line what begins."""
    kept: Callable[[Found], None] = lambda _: None
    """Given what is found as soon as it is, and again when it is shrunk and confirmed."""
    tried: int = 0
    """How many distinct schedules were begun."""
    witnessed: int = 0
    """How many of them had a verdict under faults."""
    unclean: dict[str, TrialResult] = field(default_factory=dict)
    """The workflows that are left out, since their clean run does not end correctly."""
    exhausted: bool = False
    """Whether everything there is to draw was tried."""
    flukes: list[Found] = field(default_factory=list)
    """What failed once and never again."""
    found: Found | None = None
    versions: str = ""
    """Those of what the SUT needs."""
    _failing: dict[int, Shown] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _again: dict[str, Shown | None] = field(default_factory=dict)
    _repeats: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._run = SuiteRun(
            self.frame.workflows,
            self.results,
            self.jobs,
            1,
            self.deadline_seconds,
            self.storm_calls_max,
            self._ended,
            {self.frame.sut: self.adapter},
        )

    async def go(self) -> None:
        """Find the first schedule of the stream that fails, shrink and confirm it: it is `found` then, or None is.

        Raises Unavailable where the SUT can't be run here, LauncherGone, Unwritable.
        """
        async with self._run.staffed([self.frame.sut]):
            how = self._run.suts[self.frame.sut]
            if how["gap"]:
                raise Unavailable(how["gap"])
            self.versions = how["versions"]
            await self._run.each(self._baselines(), self.jobs)
            clean = {name: self.frame.workflows[name] for name in self.frame.workflows if name not in self.unclean}
            trials = stream(replace(self.frame, workflows=clean)) if clean else iter(())
            loop = asyncio.get_running_loop()
            until = None if self.budget.seconds is None else loop.time() + self.budget.seconds
            while True:
                await self._run.each(self._due(trials, until), self.jobs)
                if not self._failing:
                    return
                # The first of the stream, whichever ended first: how many run at once changes nothing.
                number = min(self._failing)
                found = await self._looked_into(number, self._failing.pop(number))
                if found.confirmed.k:
                    self.found = found
                    return
                self.flukes.append(found)

    def _baselines(self) -> list[Trial]:
        frame = self.frame
        return [Trial("baseline", frame.sut, frame.chain, name, seed=frame.seed) for name in sorted(frame.workflows)]

    def _due(self, trials: Iterator[Trial], until: float | None) -> Iterator[Trial]:
        """The next trials of the stream, until one fails or the budget is spent."""
        while not self._failing and (self.budget.trials is None or self.tried < self.budget.trials):
            if until is not None and asyncio.get_running_loop().time() > until:
                return
            trial = next(trials, None)
            if trial is None:
                self.exhausted = True
                return
            self.tried += 1
            self._numbers[trial.id] = self.tried
            yield trial

    # --- what came of a trial -------------------------------------------------------------------------------

    def _ended(self, result: TrialResult) -> None:
        trial = Trial.from_json(result.trial)
        if trial.kind == "baseline":
            if result.verdict != "correct":
                self.unclean[trial.workflow] = result
        elif result.id in self._numbers:
            shown = self._shown(trial, result)
            self.witnessed += result.verdict is not None
            if shown is not None:
                self._failing[self._numbers[result.id]] = shown
            self.said(result if shown is None else shown.result)
        else:
            self._again[result.id] = self._shown(trial, result)
        self.results.history_path(result.id).unlink(missing_ok=True)

    def _shown(self, trial: Trial, result: TrialResult) -> Shown | None:
        """What a trial shows of what is looked for; None where nothing.

        Strikes that were never reached are taken out of it: they hide no failure, and are no part of one.
        """
        if not self._shows(result) and not (result.injection == "not_exposed" and len(trial.schedule) > 1):
            return None
        events: Sequence[Event] = self.results.history(result.id)
        smaller, events = exposed(replace(trial, repeat=0), events)
        again = judge_trial(self.frame.workflows[trial.workflow], smaller, events, {}, self.storm_calls_max)
        shows = self._shows(again)
        return Shown(smaller, again, events, shows) if shows else None

    def _shows(self, result: TrialResult) -> tuple[str, ...]:
        return tuple(what for what in seen(result) if what in self.looking_for)

    # --- what is done with one that fails -------------------------------------------------------------------

    async def _looked_into(self, number: int, failing: Shown) -> Found:
        """It is run again, and where it fails again, shrunk to what fails as reliably, and that run again."""
        found = Found(number, failing, failing)
        self.kept(found)
        self.told(f"schedule {number} fails ({', '.join(failing.shows)}): {failing.trial.what or 'no fault'}")
        found = await self._confirmed(found, failing.trial)
        if found.confirmed.k:
            # As reliably: what fails every time is not to become something that fails at times.
            least = max(1, CANDIDATE_RUNS * found.confirmed.k // found.confirmed.n)
            smallest = await self._shrunk(failing.trial, least)
            if smallest != failing.trial:
                again = await self._confirmed(found, smallest)
                fewer = len(smallest.schedule) < len(failing.trial.schedule) and again.confirmed.k
                found = again if fewer or again.confirmed.k >= found.confirmed.k else found
        self.kept(found)
        return found

    async def _confirmed(self, found: Found, trial: Trial) -> Found:
        """The find with a trial in which it shows, where that fails in some of the runs that are made of it."""
        self.told(f"running {self.confirm} times: {trial.what or 'no fault'}")
        fails = [run for run in await self._run_again([trial] * self.confirm) if run is not None]
        return replace(found, shrunk=fails[-1] if fails else found.shrunk, confirmed=Count(len(fails), self.confirm))

    async def _shrunk(self, trial: Trial, least: int) -> Trial:
        """The simplest trial of which at least so many of `CANDIDATE_RUNS` runs fail."""
        steps = shrinking(trial)
        try:
            candidates = next(steps)
            while True:
                self.told(f"shrinking: {len(candidates)} simpler ones")
                candidates = steps.send(await self._first_failing(candidates, least))
        except StopIteration as ended:
            smallest: Trial = ended.value
            return smallest

    async def _first_failing(self, candidates: Sequence[Trial], least: int) -> int | None:
        """The index of the first candidate that fails in at least so many of its runs; None where none does."""
        runs = await self._run_again([trial for trial in candidates for _ in range(CANDIDATE_RUNS)])
        for index in range(len(candidates)):
            its = runs[index * CANDIDATE_RUNS : (index + 1) * CANDIDATE_RUNS]
            if sum(run is not None for run in its) >= least:
                return index
        return None

    async def _run_again(self, trials: Sequence[Trial]) -> list[Shown | None]:
        """What each trial shows, run beside the others under an id of its own."""
        numbered = [replace(trial, repeat=next(self._repeats)) for trial in trials]
        await self._run.each(numbered, self.jobs)
        return [self._again.pop(trial.id) for trial in numbered]
