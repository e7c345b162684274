"""The checker: one history, one verdict. A pure function, in the order of precedence that the design fixes.

1. what the harness broke is a harness error; 2. an effect that should not be is corruption, witnessed or not;
3. an injection without a witness gives no verdict; 4. a run that says it completed is correct, or halted on the way,
or misses an effect; 5. a run that says it failed, failed; 6. a run that says nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Drift
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.effects import expected_effects, missing_effects, prose_of, wrong_effects
from kintsugi.harness.halts import judge_halts
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import VERDICTS, Halt, Injection, VerdictName
from kintsugi.scenarios.trial import Trial

__all__ = ["Verdict", "check"]


@dataclass(frozen=True)
class Verdict:
    """What the checker says of one history."""

    injection: Injection
    verdict: VerdictName | None
    """None where the injection was not witnessed and nothing wrong was done."""
    reason: str
    halts: tuple[Halt, ...] = ()


def check(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> Verdict:
    """The verdict over the history of a trial; for several runs in one trial, that of the worst."""
    broken = of(events, "runner", "broken")
    if broken:
        return Verdict("none", "harness_error", str(broken[0].get("error", "the harness broke")))
    if not of(events, "runner", "closed"):
        return Verdict("none", "harness_error", "the history was cut short before the trial was closed")
    injection, why = injection_of(workflow, trial, events)
    runs = [_check_run(workflow, trial, events, f"r{n}") for n in range(trial.copies)]
    worst = max(runs, key=lambda run: VERDICTS.index(run[0]))
    halts = tuple(halt for run in runs for halt in run[2])
    same = sum(run[0] == worst[0] for run in runs)
    reason = worst[1] if trial.copies == 1 else f"{same} of {trial.copies} workflows: {worst[1]}"
    if worst[0] != "corrupted" and injection in {"not_exposed", "invalid_injection"}:
        return Verdict(injection, None, why, halts)
    return Verdict(injection, worst[0], reason, halts)


def _check_run(
    workflow: Workflow, trial: Trial, events: Sequence[Event], run: str
) -> tuple[VerdictName, str, tuple[Halt, ...]]:
    mine = [event for event in events if event.get("run", run) == run]
    drifted = trial.drift if of(mine, "world", "drift") else None
    expected = expected_effects(workflow, drifted, mine)
    actual = of(mine, "world", "effect")
    halts = tuple(judge_halts(workflow, drifted, mine))
    wrong = next(wrong_effects(workflow, expected, actual, prose_of(mine)), None)
    if wrong is not None:
        return "corrupted", str(wrong), halts
    reports = of(mine, "human", "end_report")
    if not reports:
        return "lost", _why_lost(mine), halts
    if reports[0]["status"] != "completed":
        return "failed", f"the run reported a failure: {reports[0]['detail']}", halts
    missing = missing_effects(workflow, expected, actual)
    if missing:
        return "corrupted", f"missing effect of {missing[0].tool} at step {missing[0].step}, though the run says completed", halts
    needless = [halt for halt in halts if not halt.justified]
    if needless:
        return "needless_halt", f"halted at {needless[0].step} ({needless[0].kind}): {needless[0].why}", halts
    if halts:
        return "correct_halt", f"halted at {halts[0].step} ({halts[0].kind}): {halts[0].why}", halts
    return "correct", "every expected effect, once", halts


def _why_lost(events: Sequence[Event]) -> str:
    if of(events, "runner", "extinct"):
        exits = of(events, "runner", "exited")
        code = exits[-1]["code"] if exits else "?"
        return f"no end report, and no worker was left that could bring one (the last one ended with {code})"
    status = of(events, "runner", "status")
    state = f"; its own status says {status[-1]['state']!r}" if status else ""
    return f"no end report before the deadline{state}"


def injection_of(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> tuple[Injection, str]:
    """How far the schedule came: witnessed throughout, or what was not reached or not seen to happen."""
    if not trial.schedule:
        return "none", ""
    injected = {event["strike"] for event in of(events, "nemesis", "injected")}
    witnessed = {event["strike"] for event in of(events, "nemesis", "witnessed")}
    missed: Mapping[int, str] = {event["strike"]: event["why"] for event in of(events, "nemesis", "missed")}
    for index, strike in enumerate(trial.schedule):
        if index in missed and index not in witnessed:
            return "not_exposed", f"{strike}: {missed[index]}"
        if index not in injected:
            return "not_exposed", f"{strike}: the point was never reached"
        if index not in witnessed:
            return "invalid_injection", f"{strike}: done, but not seen to have happened"
        drifts = any(isinstance(action, Drift) for action in FAULTS[strike.fault].form(strike.form).actions)
        if drifts and (problem := _drift_problem(workflow, trial, events)):
            return "not_exposed", f"{strike}: {problem}"
    return "witnessed", ""


def _drift_problem(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> str:
    """A drift counts only between the read of the record and the effect that rests on it."""
    drift = workflow.drifts[trial.drift]
    moved = of(events, "world", "drift")
    when = moved[0]["t"] if moved else 0.0
    collection = drift.record.split("/", maxsplit=1)[0]
    reads = [e for e in of(events, "world", "read") if e["t"] < when and e["record"] in {drift.record, collection}]
    if not reads:
        return f"{drift.record} changed before it was read"
    acted = [e for e in of(events, "world", "effect") if e["t"] < when and e["step"] == drift.step]
    return f"{drift.record} changed after step {drift.step} had acted" if acted else ""
