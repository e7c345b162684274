"""A search, with a stand-in for what runs its trials: which find is taken, how it is confirmed, when it gives up."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import Unavailable, minimal
from kintsugi.harness.explore import Frame
from kintsugi.harness.found import file_of, read
from kintsugi.harness.means import TAKES
from kintsugi.harness.records import Count
from kintsugi.harness.results import Results
from kintsugi.harness.search import Budget, Found, Search
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Strike, Trial

if TYPE_CHECKING:
    from tests.harness.conftest import WriteHistory

INVOICE = load_workflows()["finance/invoice_payment"]
FRAME = Frame("minimal", "optimized", {INVOICE.name: INVOICE}, 7, TAKES)
FAULTS = ("worker_kill.at_boundary", "network_failure.reset_before", "tool_timeout.not_applied", "tool_timeout.twice")
POINTS = ("tool:pay[0]#1@before", "tool:note[0]#1@before", "tool:tell[0]#1@before")


def trial_of(*faults: str) -> Trial:
    """A trial with one fault at each of the first points."""
    strikes = []
    for fault, point in zip(faults, POINTS, strict=False):
        name, _, form = fault.partition(".")
        strikes.append(Strike(name, form, Point.parse(point)))
    return Trial("fault", "minimal", "optimized", INVOICE.name, tuple(strikes), 7)


STREAM = [trial_of(*faults) for count in (1, 3, 2) for faults in product(FAULTS, repeat=count)]
"""What the search is given to try: single faults, then threes, then pairs."""


@dataclass
class StandIn:
    """Stands in for a `SuiteRun`: a trial whose schedule `breaks` pays twice, the last of each batch ending first."""

    search: Search
    write_history: WriteHistory
    breaks: Callable[[Trial], bool]
    suts: dict[str, Any] = field(default_factory=lambda: {"minimal": {"gap": "", "versions": "minimal 1"}})
    at_once: int = 8
    run: list[Trial] = field(default_factory=list)

    @asynccontextmanager
    async def staffed(self, _: Collection[str]) -> AsyncIterator[None]:
        yield

    async def each(self, trials: Iterable[Trial], _: int) -> None:
        waiting = iter(trials)
        while batch := list(islice(waiting, self.at_once)):
            for trial in reversed(batch):
                self._ends(trial)
            await asyncio.sleep(0)

    def _ends(self, trial: Trial) -> None:
        self.run.append(trial)
        run = self.write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay").does("pay")
        for index in range(len(trial.schedule)):
            for what in ("armed", "injected", "witnessed"):
                run.add("nemesis", what, strike=index, is_="a strike", evidence="seen", times=1)
        if self.breaks(trial):
            run.does("pay")
        events = run.goes_on("note").ends().closed()
        path = self.search.results.history_path(trial.id)
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.search._ended(judge_trial(INVOICE, trial, events, {}, 5.0))


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    monkeypatch.setattr("kintsugi.harness.search.stream", lambda _: iter(STREAM))
    results = Results(tmp_path / "results")
    results.begin({}, resume=False)
    yield Search(FRAME, minimal.ADAPTER, results, Budget(40), 8, 5.0, 5.0, looking_for=["corrupted"], confirm=3)
    assert not list((tmp_path / "results" / "histories").iterdir()), "no history is kept"
    results.end()


Start = Callable[[Callable[[Trial], bool]], StandIn]


@pytest.fixture
def start(search: Search, write_history: WriteHistory) -> Start:
    def begun(breaks: Callable[[Trial], bool]) -> StandIn:
        stand_in = StandIn(search, write_history, breaks)
        search._run = stand_in  # type: ignore[assignment]
        asyncio.run(search.go())
        return stand_in

    return begun


def place_of(breaks: Callable[[Trial], bool]) -> int:
    return next(number for number, trial in enumerate(STREAM, start=1) if breaks(trial))


def kills(trial: Trial) -> bool:
    """Whether a worker is killed in a trial, and something else is done too."""
    return "worker_kill" in {strike.fault for strike in trial.schedule} and len(trial.schedule) > 1


def test_the_first_of_the_stream_is_taken_whichever_ended_first_and_shrunk(search: Search, start: Start) -> None:
    kept: list[Found] = []
    search.kept = kept.append
    start(kills)
    assert search.found is not None
    number = place_of(kills)
    assert (search.found.number, search.found.as_found.trial) == (number, STREAM[number - 1])
    assert len(search.found.shrunk.trial.schedule) == 2
    assert kills(search.found.shrunk.trial)
    assert search.found.confirmed == Count(3, 3)
    # It is kept at once, and then again with what more is known.
    assert [(found.number, found.confirmed) for found in kept] == [(number, Count(0, 0)), (number, Count(3, 3))]
    # Looking ahead stops with the batch in which it was found.
    assert number <= search.tried < number + 8
    file = json.loads(json.dumps(file_of(search, search.found, {}, {"kintsugi": "1"})))
    assert read(file).trial == search.found.shrunk.trial
    assert (file["trials_to_find"], file["confirmed"], file["shows"]) == (number, {"k": 3, "n": 3}, ["corrupted"])
    assert file["broken"] == ["an effect happens at most once"]


def test_what_fails_once_and_never_again_is_no_find(search: Search, start: Start) -> None:
    """The search goes on behind it, and says so."""
    first = place_of(kills)
    runs: list[Trial] = []

    def once(trial: Trial) -> bool:
        runs.append(trial)
        return trial == STREAM[first - 1] or trial.what == STREAM[first + 4].what

    start(once)
    assert [fluke.as_found.trial for fluke in search.flukes] == [STREAM[first - 1]]
    assert search.flukes[0].confirmed == Count(0, 3)
    assert search.found is not None
    assert search.found.number == first + 5
    # It was run again as often as asked for, and nothing simpler was looked for.
    assert sum(trial.what == STREAM[first - 1].what for trial in runs) == 1 + 3


def test_what_fails_every_time_is_not_shrunk_to_what_fails_at_times(search: Search, start: Start) -> None:
    runs = Counter[str]()

    def breaks(trial: Trial) -> bool:
        runs[trial.what] += 1
        return kills(trial) and (len(trial.schedule) == 3 or runs[trial.what] % 3 == 1)

    start(breaks)
    assert search.found is not None
    assert search.found.shrunk.trial == search.found.as_found.trial == STREAM[place_of(kills) - 1]
    assert search.found.confirmed == Count(3, 3)


def test_what_fails_at_times_is_shrunk_all_the_same(search: Search, start: Start) -> None:
    runs = Counter[str]()

    def breaks(trial: Trial) -> bool:
        runs[trial.what] += 1
        return kills(trial) and runs[trial.what] % 3 == 1

    start(breaks)
    assert search.found is not None
    assert len(search.found.shrunk.trial.schedule) == 2
    assert search.found.confirmed == Count(1, 3)


def test_it_gives_up_when_its_budget_is_spent(search: Search, start: Start) -> None:
    stand_in = start(lambda _: False)
    assert search.found is None
    assert (search.tried, search.witnessed, search.exhausted) == (40, 40, False)
    assert [trial for trial in stand_in.run if trial.kind == "fault"] != STREAM[:40], "many at once"
    assert sorted(trial.id for trial in stand_in.run[1:]) == sorted(trial.id for trial in STREAM[:40])


def test_a_workflow_whose_clean_run_fails_is_left_out(search: Search, start: Start) -> None:
    start(lambda trial: trial.kind == "baseline")
    assert list(search.unclean) == [INVOICE.name]
    assert (search.tried, search.found) == (0, None)


def test_a_sut_that_can_t_be_run_here_is_told(search: Search, write_history: WriteHistory) -> None:
    stand_in = StandIn(search, write_history, lambda _: False)
    stand_in.suts["minimal"]["gap"] = "minimal: is not here"
    search._run = stand_in  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="is not here"):
        asyncio.run(search.go())
