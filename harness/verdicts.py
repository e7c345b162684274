"""From a history to a line of ``trials.jsonl``: the verdict and every measure, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness import measures
from kintsugi.harness.accuracy import accuracy
from kintsugi.harness.checker import check
from kintsugi.harness.history import Event
from kintsugi.harness.records import Repeats, TrialResult
from kintsugi.harness.storms import storm
from kintsugi.scenarios.trial import Trial

__all__ = ["BASELINE_FAILED", "judge_trial"]

BASELINE_FAILED = "the clean run of this cell did not end correctly"
"""Why a trial with a fault has no verdict, and is not even run where that is known before."""


def judge_trial(
    workflow: Workflow,
    trial: Trial,
    events: Sequence[Event],
    clean: measures.Delivered | None,
    storm_calls_max: float,
) -> TrialResult:
    """The result of a trial from its history.

    `clean` is what the cell's baseline delivered; None says that the baseline did not end correctly, and then a
    trial with a fault is `baseline_failed` and has no verdict. A baseline is its own. Where the verdict is over the
    part of a schedule that was reached, so is what the result says of its fault; `trial` is what was planned.
    """
    found = check(workflow, trial, events)
    if trial.kind == "baseline":
        clean = measures.delivered(events)
    allowed = None if clean is None else measures.without_polls(workflow, clean)
    again = Repeats() if allowed is None else measures.repeats(events, allowed)
    failed_baseline = clean is None and trial.kind in {"fault", "timing"} and found.verdict != "harness_error"
    struck = found.struck if found.struck is not None and not failed_baseline else trial
    faults = [FAULTS[strike.fault] for strike in struck.schedule]
    halts = found.halts
    return TrialResult(
        id=trial.id,
        kind=trial.kind,
        sut=trial.sut,
        chain=trial.chain,
        workflow=trial.workflow,
        workflow_class=workflow.workflow_class,
        seed=trial.seed,
        variance=trial.variance,
        fault=struck.fault,
        form=struck.schedule[0].form if struck.schedule else "",
        points=tuple(str(strike.point) for strike in struck.schedule),
        phase=struck.schedule[0].point.phase if struck.schedule else "",
        layer=_of_all(fault.layer for fault in faults),
        dealt_with_by=_of_all(fault.dealt_with_by for fault in faults),
        weight=trial.weight,
        injection="baseline_failed" if failed_baseline else found.injection,
        verdict=None if failed_baseline else found.verdict,
        reason=BASELINE_FAILED if failed_baseline else found.reason,
        resumed_exactly=None if allowed is None else measures.resumed_exactly(trial, events, allowed),
        measures=accuracy(workflow, trial, events),
        usage=measures.usage(workflow, events),
        repeats=again,
        human=measures.human(events, halts),
        times=measures.times(events),
        storm=storm(workflow, trial, events, storm_calls_max, again),
        generations=len({event["generation"] for event in events if event["what"] == "started"}),
        review_minutes=workflow.task.review_minutes
        * sum(event["what"] == "asked" and event["kind"] == "approval" for event in events),
        repair_minutes=workflow.task.repair_minutes,
        trial=trial.to_json(),
        struck={} if struck is trial else struck.to_json(),
    )


def _of_all(names: Iterable[str]) -> str:
    """What all of a schedule's faults have in common, else ``several``; empty for none."""
    found = set(names)
    return found.pop() if len(found) == 1 else "several" if found else ""
