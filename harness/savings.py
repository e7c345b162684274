"""Where one way of working saves against another: the difference in cost per success, part by part. Pure.

docs/cost.md says in words what each part is, and why it is split so.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kintsugi.harness.cost import spent, workflows_in
from kintsugi.harness.rates import completed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kintsugi.harness.prices import Prices
    from kintsugi.harness.records import TrialResult

__all__ = ["MACHINE_PARTS", "PEOPLE_PARTS", "CleanWork", "clean_work", "saved_by"]

MACHINE_PARTS = ("less_context", "fewer_calls", "tools", "compute", "less_repeated", "fewer_failures")
"""What the difference in machine cost per success is the sum of."""
PEOPLE_PARTS = ("fewer_reviews", "fewer_repairs")
"""What is to be added for the difference in all-in cost."""


@dataclass(frozen=True)
class CleanWork:
    """What one workflow takes where nothing goes wrong: model calls, and dollars by what they go to."""

    calls: float
    model: float
    tool: float
    compute: float

    @property
    def machine(self) -> float:
        """Its machine cost."""
        return self.model + self.tool + self.compute


Clean = dict[tuple[str, str], CleanWork]
"""By (sut+chain, workflow)."""


def clean_work(results: Iterable[TrialResult], prices: Prices) -> Clean:
    """The mean of the correct baselines of each SUT, chain and workflow."""
    found: dict[tuple[str, str], list[CleanWork]] = defaultdict(list)
    for result in results:
        if result.kind == "baseline" and result.verdict == "correct":
            cost, calls = spent(result, prices), result.usage.model_calls / workflows_in(result)
            found[result.key, result.workflow].append(CleanWork(calls, cost.model, cost.tool, cost.compute))
    return {cell: _mean(runs) for cell, runs in found.items()}


def _mean(runs: Sequence[CleanWork]) -> CleanWork:
    return CleanWork(
        fmean(run.calls for run in runs),
        fmean(run.model for run in runs),
        fmean(run.tool for run in runs),
        fmean(run.compute for run in runs),
    )


@dataclass(frozen=True)
class _Side:
    """One way of working on the trials that are compared: dollars per success, but for `work`."""

    work: CleanWork
    """Of the mean trial, had nothing gone wrong: the same trials on both sides, whichever of them failed."""
    repeated: float
    """What a success took beyond its own workflow's clean run."""
    failures: float
    """What was spent on trials that failed; and what the clean run of a success takes beyond that of the mean trial."""
    review: float
    repair: float


def saved_by(
    first: Sequence[TrialResult],
    second: Sequence[TrialResult],
    clean: Mapping[tuple[str, str], CleanWork],
    prices: Prices,
) -> dict[str, float] | None:
    """How many dollars per success `first` saves against `second` on the same trials, by what they were saved on.

    The machine parts add up to the difference in machine cost per success, all parts to that in all-in cost; a
    negative one is spent more. The model's part is calls × dollars per call, and each factor's share is what its
    change makes at the mean of the other (Shapley's value for two factors): no order is preferred, and the two sides
    exchanged give the same with the other sign. None where a side has no success, or no clean run to hold a trial
    against.
    """
    here, there = _side(first, clean, prices), _side(second, clean, prices)
    if here is None or there is None:
        return None
    context, calls = _two_factors(here.work, there.work)
    return {
        "less_context": context,
        "fewer_calls": calls,
        "tools": there.work.tool - here.work.tool,
        "compute": there.work.compute - here.work.compute,
        "less_repeated": there.repeated - here.repeated,
        "fewer_failures": there.failures - here.failures,
        "fewer_reviews": there.review - here.review,
        "fewer_repairs": there.repair - here.repair,
    }


def _side(results: Sequence[TrialResult], clean: Mapping[tuple[str, str], CleanWork], prices: Prices) -> _Side | None:
    known = [clean.get((result.key, result.workflow)) for result in results]
    work = [run for run in known if run is not None]
    good = sum(map(completed, results))
    if not good or len(work) < len(results):
        return None
    costs = [spent(result, prices) for result in results]
    ended = [completed(result) for result in results]
    mean = _mean(work)
    of_successes = sum(run.machine for run, well in zip(work, ended, strict=True) if well) / good
    spent_on_successes = sum(cost.machine for cost, well in zip(costs, ended, strict=True) if well) / good
    spent_on_failures = sum(cost.machine for cost, well in zip(costs, ended, strict=True) if not well) / good
    return _Side(
        work=mean,
        repeated=spent_on_successes - of_successes,
        failures=spent_on_failures + of_successes - mean.machine,
        review=sum(cost.review for cost in costs) / good,
        repair=sum(cost.repair for cost in costs) / good,
    )


def _two_factors(here: CleanWork, there: CleanWork) -> tuple[float, float]:
    """The difference in the model's cost, as (dollars per call, number of calls).

    Where a side makes no call, all of it is in their number: there is no context to compare.
    """
    if not (here.calls and there.calls):
        return 0.0, there.model - here.model
    own, other = here.model / here.calls, there.model / there.calls
    context = (other - own) * (here.calls + there.calls) / 2
    calls = (there.calls - here.calls) * (other + own) / 2
    return context, calls
