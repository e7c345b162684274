"""Which trials count, once each, and the rates over them. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from kintsugi.harness.intervals import clopper_pearson, cluster_bootstrap
from kintsugi.harness.records import Count, TrialResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "Basis",
    "Rate",
    "Sample",
    "call_rate",
    "clean_attempts",
    "completed",
    "judged",
    "percentiles",
    "recovered",
    "samples",
    "share",
    "trial_rate",
    "witnessed",
]

Basis = Literal["sampled", "exhaustive"]
Rate = dict[str, Any]
"""``{"k", "n", "rate", "ci95", "basis"}``."""
Sample = tuple[TrialResult, ...]
"""One independent trial: a run, with the further runs that repeat it."""


def judged(result: TrialResult) -> bool:
    """Whether there is a verdict on the SUT: the harness did not break, and there was something to judge."""
    return result.verdict is not None and result.verdict != "harness_error"


def completed(result: TrialResult) -> bool:
    """Whether every effect is there, and nothing but a justified halt was needed."""
    return result.verdict in {"correct", "correct_halt"}


def recovered(result: TrialResult) -> bool:
    """Whether the run completed, and, in a storm, stayed within the bounds."""
    return completed(result) and (result.storm is None or result.storm.within_bounds)


def witnessed(results: Iterable[TrialResult]) -> list[TrialResult]:
    """The judged fault trials whose fault really happened: the only ones in a denominator under faults."""
    return [r for r in results if r.kind == "fault" and r.injection == "witnessed" and judged(r)]


def clean_attempts(results: Iterable[TrialResult]) -> list[TrialResult]:
    """The judged trials without an injected fault: those with model variance, and baselines that failed.

    A baseline of the script that went well adds nothing: it has no variance, and says only that the cell can be
    scored. One of a real model is an attempt like any other.
    """
    return [r for r in results if judged(r) and (r.kind == "clean" or (r.kind == "baseline" and _may_fail(r)))]


def _may_fail(baseline: TrialResult) -> bool:
    return baseline.verdict != "correct" or baseline.variance != "none"


def samples(results: Iterable[TrialResult]) -> list[Sample]:
    """Results grouped so that each distinct trial counts once: running it again adds nothing to n.

    A schedule is the same whatever the seed, unless the model varies with it. A kill in phase ``after`` is a
    race, so each of its runs is a sample of its own. A run that ended badly before the rest of its schedule was
    reached is one more run of the trial of what was struck: the rest would have counted only where it went well.
    """
    groups: dict[tuple[Any, ...], list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: r.id):
        groups.setdefault(_identity(result), []).append(result)
    return [tuple(group) for _, group in sorted(groups.items(), key=lambda item: item[1][0].id)]


def _identity(result: TrialResult) -> tuple[Any, ...]:
    race = result.phase == "after" or any(point.endswith("@after") for point in result.points)
    return (
        result.key,
        result.kind,
        *result.target,
        result.variance,
        result.seed if result.variance != "none" or not result.fault else None,
        result.id if race else None,
    )


def share(k: int, n: int, basis: Basis = "sampled") -> Rate | None:
    """`k` of `n` independent trials; None where n = 0. Exhaustive coverage is no sample: no interval."""
    if n == 0:
        return None
    interval = list(clopper_pearson(k, n)) if basis == "sampled" else None
    method = "clopper-pearson" if basis == "sampled" else None
    return {"k": k, "n": n, "rate": k / n, "ci95": interval, "basis": basis, "interval": method}


def trial_rate(
    chosen: Sequence[Sample],
    holds: Callable[[TrialResult], bool],
    *,
    basis: Basis = "sampled",
    every: bool = True,
) -> Rate | None:
    """The share of samples for which `holds` is true: of all their runs (`every`), or of any of them."""
    quantifier = all if every else any
    return share(sum(quantifier(holds(r) for r in sample) for sample in chosen), len(chosen), basis)


def call_rate(
    chosen: Sequence[Sample],
    count: Callable[[TrialResult], Count],
    *,
    basis: Basis = "sampled",
    every: bool = True,
) -> Rate | None:
    """A rate per call, its interval by a bootstrap that draws whole trials. None where there was no call.

    A sample counts once, by the run with the lowest rate (`every`) or the highest, so that to run a trial
    again hides nothing and adds nothing to n. ``trials`` says how many samples had calls.
    """
    pick = min if every else max
    counts = [[c for c in map(count, sample) if c.n] for sample in chosen]
    worst = [pick(runs, key=lambda c: (c.k / c.n, c.n)) for runs in counts if runs]
    clusters = [(c.k, c.n) for c in worst]
    if not clusters:
        return None
    k, n = sum(c.k for c in worst), sum(c.n for c in worst)
    interval = list(cluster_bootstrap(clusters)) if basis == "sampled" else None
    method = ("cluster-bootstrap" if 0 < k < n else "clopper-pearson over trials") if interval else None
    rate = {"k": k, "n": n, "rate": k / n, "ci95": interval, "basis": basis, "interval": method}
    return rate | {"trials": len(clusters)}


def percentiles(values: Iterable[float], never: int = 0) -> dict[str, float | int | None]:
    """p50, p95 and max by nearest rank, so that each is a value that was seen; None: without bound.

    `never` is how many trials did not get there at all: they count as infinitely slow, for leaving them out
    would flatter. ``n`` counts all, ``reached`` those with a value.
    """
    ordered = sorted(values)
    n = len(ordered) + never

    def at(fraction: float) -> float | None:
        rank = max(1, math.ceil(fraction * n - 1e-9))
        return ordered[rank - 1] if rank <= len(ordered) else None

    return {"p50": at(0.5), "p95": at(0.95), "max": at(1.0), "n": n, "reached": len(ordered)}
