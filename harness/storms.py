"""Reads off a history how many workflows at once treated one failing tool. Pure; all of it is measured by the world."""

from __future__ import annotations

from collections.abc import Sequence

from kintsugi.faults.actions import Outage
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import Repeats, Storm
from kintsugi.scenarios.trial import Trial

__all__ = ["storm"]


def storm(
    workflow: Workflow, trial: Trial, events: Sequence[Event], calls_per_workflow_max: float, again: Repeats
) -> Storm | None:
    """How a storm went; None where the trial is none. `again` is what the trial did again.

    Wasted is what came to nothing: calls of the tool while it was out of order, and what the model was asked again.
    """
    outages = [action for action in trial.actions if isinstance(action, Outage)]
    begun = of(events, "nemesis", "injected")
    if not outages or not begun:
        return None
    started, ended = begun[0]["t"], begun[0]["t"] + outages[0].seconds
    step = workflow.steps[trial.schedule[0].point.step]
    requests = [event for event in of(events, "world", "request") if event["tool"] == step.tool]
    wasted = [event for event in requests if started <= event["t"] < ended]
    per_workflow = len(wasted) / trial.copies
    reports = of(events, "human", "end_report")
    return Storm(
        workflows=trial.copies,
        outage_calls_per_workflow=round(per_workflow, 3),
        peak_requests_per_second=float(_peak([event["t"] for event in requests])),
        drain_seconds=round(max((event["t"] for event in reports), default=ended) - ended, 3),
        within_bounds=per_workflow <= calls_per_workflow_max,
        met=len({event["run"] for event in wasted}),
        wasted_calls=len(wasted),
        wasted_tool_usd=round(len(wasted) * workflow.tools[str(step.tool)].price_usd, 6),
        repeated_model_calls=again.model_calls,
        repeated_prompt_tokens=again.tokens - again.completion_tokens,
        repeated_completion_tokens=again.completion_tokens,
    )


def _peak(times: Sequence[float]) -> int:
    """The most of `times`, which are in order, within one second."""
    most = first = 0
    for last, t in enumerate(times):
        while t - times[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
