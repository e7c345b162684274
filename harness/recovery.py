"""How well a SUT came back from witnessed faults: rates, coverage, times, repeated work, storms. Pure."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from kintsugi.harness.rates import (
    Basis,
    Rate,
    Sample,
    completed,
    judged,
    percentiles,
    recovered,
    samples,
    trial_rate,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kintsugi.harness.prices import Prices
    from kintsugi.harness.records import Storm, TrialResult

__all__ = ["coverage", "recovery_rate", "recovery_seconds", "repeated_work", "resumed_rate", "storms"]


def recovery_rate(struck: Sequence[Sample], basis: Basis = "sampled") -> Rate | None:
    """Fault recovery rate: samples that completed correctly / samples with a witnessed fault.

    `correct_halt` counts, and is shown on its own as ``attended``; ``unattended`` counts what needed nobody,
    with its own rate. ``rate_weighted`` weighs each sample by how many points of the declared frame it stands
    for. ``resumed_exactly`` counts those in which nothing was done again.
    """
    rate = trial_rate(struck, recovered, basis=basis)
    if rate is None:
        return None
    good = [sample for sample in struck if all(map(recovered, sample))]
    alone = sum(all(r.verdict == "correct" for r in sample) for sample in good)
    weight = sum(sample[0].weight for sample in struck)
    return rate | {
        "attended": len(good) - alone,
        "unattended": alone,
        "attended_rate": (len(good) - alone) / len(struck),
        "unattended_rate": alone / len(struck),
        "resumed_exactly": sum(all(map(_exactly, sample)) for sample in struck),
        "rate_weighted": sum(sample[0].weight for sample in good) / weight if weight else None,
    }


def resumed_rate(struck: Sequence[Sample], basis: Basis = "sampled") -> Rate | None:
    """How often the SUT recovered with nothing repeated, among the samples for which that could be told."""
    told = [sample for sample in struck if all(r.resumed_exactly is not None for r in sample)]
    return trial_rate(told, _exactly, basis=basis)


def _exactly(result: TrialResult) -> bool:
    return result.resumed_exactly is True and recovered(result)


def coverage(hit: Sequence[TrialResult], frame: Collection[tuple[str, str]] | None) -> dict[str, int | None]:
    """Points that were struck and witnessed / points of the frame; both as (workflow, point).

    ``always``, ``sometimes`` and ``never`` say at how many of the points struck a single fault was recovered
    from, over all trials there. Without a frame the total is None, and every point struck counts as covered.
    """
    covered = {(result.workflow, point) for result in hit for point in result.points}
    outcomes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for result in hit:
        if len(result.points) == 1:
            outcomes[result.workflow, result.points[0]].append(recovered(result))
    always = sum(all(found) for found in outcomes.values())
    never = sum(not any(found) for found in outcomes.values())
    return {
        "covered": len(covered if frame is None else covered & set(frame)),
        "total": None if frame is None else len(set(frame)),
        "always": always,
        "sometimes": len(outcomes) - always - never,
        "never": never,
    }


def recovery_seconds(members: Iterable[TrialResult]) -> dict[str, Any]:
    """Seconds from the fault to detection, first new step and end; from ``timing`` trials alone.

    Beside them, ``clean``: wall seconds of the same workflows without a fault in the same pass; and
    ``added``: the wall seconds of each struck trial beyond its workflow's clean median. A run that did not
    complete may have been detected, but has not recovered; it counts as infinitely slow, and a percentile that falls
    on it is None.
    """
    timed = [r for r in members if r.kind == "timing" and judged(r)]
    struck = [r for r in timed if r.injection == "witnessed"]
    clean: dict[str, list[float]] = defaultdict(list)
    for result in timed:
        if result.injection == "none" and completed(result):
            clean[result.workflow].append(result.times.wall)
    found: dict[str, Any] = {
        name: _until(
            [(getattr(r.times, name) if name == "detect" or completed(r) else None, completed(r)) for r in struck]
        )
        for name in ("detect", "progress", "end")
    }
    usual = {workflow: median(walls) for workflow, walls in clean.items()}
    compared = [r for r in struck if r.workflow in usual]
    found["clean"] = percentiles(wall for walls in clean.values() for wall in walls)
    found["added"] = _until([(_added(r, usual), completed(r)) for r in compared])
    return found


def _added(result: TrialResult, usual: Mapping[str, float]) -> float | None:
    return result.times.wall - usual[result.workflow] if completed(result) else None


def _until(reached: Sequence[tuple[float | None, bool]]) -> dict[str, float | int | None]:
    """Percentiles of (seconds, completed). No seconds in a completed run: there was nothing to reach."""
    never = sum(value is None and not good for value, good in reached)
    return percentiles((value for value, _ in reached if value is not None), never)


def repeated_work(hit: Sequence[TrialResult]) -> dict[str, Any]:
    """What was done again although its answer had been delivered: in all, and per witnessed fault trial."""
    names = ("model_calls", "tool_calls", "tokens")
    totals = {name: sum(getattr(r.repeats, name) for r in hit) for name in names}
    totals["approvals_re_asked"] = sum(r.human.re_asked for r in hit)
    per_trial = {name: total / len(hit) for name, total in totals.items()} if hit else dict.fromkeys(totals)
    return {"trials": len(hit), **totals, "per_trial": per_trial}


def storms(hit: Sequence[TrialResult], prices: Prices) -> dict[str, Any] | None:
    """How many workflows at once treated a failing tool; None where no storm was witnessed.

    ``wasted_usd`` is the price, of one storm, of the calls that were refused and of what the model was asked again.
    """
    found = [r.storm for r in hit if r.storm is not None]
    if not found:
        return None
    chosen = samples(r for r in hit if r.storm is not None)
    return {
        "within_bounds": trial_rate(chosen, lambda r: r.storm is not None and r.storm.within_bounds),
        "workflows": max(s.workflows for s in found),
        "outage_calls_per_workflow": fmean(s.outage_calls_per_workflow for s in found),
        "outage_calls_per_workflow_max": max(s.outage_calls_per_workflow for s in found),
        "peak_requests_per_second": max(s.peak_requests_per_second for s in found),
        "drain_seconds": max(s.drain_seconds for s in found),
        "met": fmean(s.met for s in found),
        "wasted_calls": fmean(s.wasted_calls for s in found),
        "repeated_model_calls": fmean(s.repeated_model_calls for s in found),
        "wasted_usd": fmean(_wasted_usd(s, prices) for s in found),
    }


def _wasted_usd(storm: Storm, prices: Prices) -> float:
    tokens = (
        storm.repeated_prompt_tokens * prices.model.input_usd_per_million
        + storm.repeated_completion_tokens * prices.model.output_usd_per_million
    )
    return storm.wasted_tool_usd + tokens / 1e6
