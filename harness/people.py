"""How much a SUT needs people: planned approvals, unplanned repairs, overrides, waiting. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kintsugi.harness.cost import repairs
from kintsugi.harness.rates import Rate, Sample, call_rate, percentiles, trial_rate
from kintsugi.harness.records import Count, TrialResult

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["approval_seconds", "human_rates"]


def human_rates(chosen: Sequence[Sample], suffix: str) -> dict[str, Rate | None]:
    """Human intervention rates over some samples.

    ``unplanned_repair_rate``: workflows that a person had to mend (halt, failure, loss, corruption) /
    workflows; ``unavoidable`` of them only stopped, rightly, because an opaque tool left in doubt whether it
    had acted. ``planned_checkpoint_rate``: workflows that asked for a planned approval / workflows.
    ``human_override_rate``: decisions that rejected or amended / decisions.
    """
    unplanned = trial_rate(chosen, lambda r: repairs(r) > 0, every=False)
    if unplanned is not None:
        unplanned["unavoidable"] = sum(_unavoidable(sample) for sample in chosen)
    planned = trial_rate(chosen, lambda r: r.human.checkpoints > 0, every=False)
    if planned is not None:
        planned["asked_per_workflow"] = sum(s[0].human.checkpoints for s in chosen) / len(chosen)
    return {
        f"unplanned_repair_rate{suffix}": unplanned,
        f"planned_checkpoint_rate{suffix}": planned,
        f"human_override_rate{suffix}": call_rate(
            chosen, lambda r: Count(r.human.overrides, r.human.decisions), every=False
        ),
    }


def _unavoidable(sample: Sample) -> bool:
    """Whether all there was to mend were halts over opaque tools; correct_halt says they were justified."""
    mended = [result for result in sample if repairs(result)]
    return bool(mended) and all(
        result.verdict == "correct_halt" and all(halt.kind == "in_doubt" for halt in result.human.halts)
        for result in mended
    )


def approval_seconds(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Workflow seconds from asking for an approval to its decision."""
    return percentiles(hours * 3600 for result in results for hours in result.human.approval_hours)
