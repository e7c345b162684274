"""What a successful workflow costs, what was wasted, and one way of working against another. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kintsugi.harness.intervals import cost_bootstrap
from kintsugi.harness.rates import completed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kintsugi.harness.prices import Prices
    from kintsugi.harness.records import TrialResult

__all__ = ["Spent", "clean_costs", "cost_block", "repairs", "sensitivity", "spent", "workflows_in"]

PER_MILLION = 1e-6
MINUTE_FACTORS = (0.5, 1.0, 2.0)
HOURLY_FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Spent:
    """US dollars of one workflow, by what they went to."""

    model: float = 0.0
    tool: float = 0.0
    compute: float = 0.0
    review: float = 0.0
    repair: float = 0.0

    @property
    def machine(self) -> float:
        """What the machine used."""
        return self.model + self.tool + self.compute

    @property
    def all_in(self) -> float:
        """What the machine and people used."""
        return self.machine + self.review + self.repair


def workflows_in(result: TrialResult) -> int:
    """How many workflows ran in a trial: one, or the copies of a storm."""
    copies = result.storm.workflows if result.storm is not None else result.trial.get("copies", 1)
    return max(1, int(copies))


def repairs(result: TrialResult) -> int:
    """How often a person had to mend the run: for each halt, and if it failed, was lost or did wrong."""
    return len(result.human.halts) + (result.verdict in {"failed", "lost", "corrupted"})


def spent(result: TrialResult, prices: Prices) -> Spent:
    """What one workflow of a trial cost. A storm counts as one trial: its average workflow is charged.

    Of the prompt tokens, the cached ones have their own price. Compute is CPU time of the SUT's processes.
    """
    usage, copies = result.usage, workflows_in(result)
    cached = min(usage.cached_prompt_tokens, usage.prompt_tokens)
    model = PER_MILLION * (
        (usage.prompt_tokens - cached) * prices.model.input_usd_per_million
        + cached * prices.model.cached_input_usd_per_million
        + usage.completion_tokens * prices.model.output_usd_per_million
    )
    hourly = prices.human.usd_per_hour
    return Spent(
        model=model / copies,
        tool=usage.tool_usd / copies,
        compute=usage.cpu_seconds / 3600 * prices.compute.usd_per_cpu_hour / copies,
        review=result.review_minutes / 60 * hourly / copies,
        repair=repairs(result) * result.repair_minutes / 60 * hourly / copies,
    )


def clean_costs(results: Iterable[TrialResult], prices: Prices) -> dict[tuple[str, str], float]:
    """Mean machine cost of the correct baselines, by (sut+chain, workflow)."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        if result.kind == "baseline" and result.verdict == "correct":
            found[result.key, result.workflow].append(spent(result, prices).machine)
    return {cell: fmean(costs) for cell, costs in found.items()}


def cost_block(
    results: Sequence[TrialResult], baselines: Mapping[tuple[str, str], float], prices: Prices
) -> dict[str, Any]:
    """Cost per workflow that ended correctly, over all that was spent; every figure is None where none did.

    ``waste`` is what was spent beyond the clean baseline of each success, so machine = clean baseline +
    waste: extra work in runs that ended well, and everything in runs that did not. None where a baseline is
    missing. ``machine_ci95`` is None where there are too few runs for an interval.
    """
    costs = [spent(result, prices) for result in results]
    good = [result for result in results if completed(result)]
    counts = {"successes": len(good), "trials": len(results)}
    if not good:
        names = [f.name for f in fields(Spent)] + ["machine", "all_in", "waste", "machine_ci95"]
        return {**dict.fromkeys(names), **counts}
    parts = {f.name: sum(getattr(c, f.name) for c in costs) / len(good) for f in fields(Spent)}
    machine = sum(c.machine for c in costs) / len(good)
    clean = [baselines.get((result.key, result.workflow)) for result in good]
    known = [cost for cost in clean if cost is not None]
    ends = cost_bootstrap([(c.machine, float(completed(r))) for c, r in zip(costs, results, strict=True)])
    return {
        "machine": machine,
        "all_in": machine + parts["review"] + parts["repair"],
        **parts,
        "waste": machine - sum(known) / len(good) if len(known) == len(good) else None,
        "machine_ci95": None if ends is None else list(ends),
        **counts,
    }


def sensitivity(results: Sequence[TrialResult], prices: Prices) -> list[dict[str, float]]:
    """How the all-in cost per success moves when the assumed repair minutes and hourly rate do."""
    costs = [spent(result, prices) for result in results]
    good = sum(map(completed, results))
    if not good:
        return []
    machine, review, repair = (sum(getattr(c, n) for c in costs) / good for n in ("machine", "review", "repair"))
    return [
        {
            "repair_minutes_factor": minutes,
            "human_usd_per_hour": prices.human.usd_per_hour * hourly,
            "all_in": machine + hourly * (review + minutes * repair),
        }
        for hourly in HOURLY_FACTORS
        for minutes in MINUTE_FACTORS
    ]
