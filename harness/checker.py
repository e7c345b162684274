"""The checker: one history, one verdict. A pure function, in the order of precedence that the design fixes.

1. what the harness broke is a harness error; 2. an effect that should not be is corruption, witnessed or not;
3. an injection without a witness gives no verdict, unless a run ended badly before the rest of its schedule could be
reached: it is judged over what was witnessed; 4. a run that says it completed is correct, or halted on the way,
or misses an effect; 5. a run that says it failed, failed; 6. a run that says nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kintsugi.faults import FAULTS
from kintsugi.faults import actions as acts
from kintsugi.golden_workflows.spec import Drift, Effect, Workflow
from kintsugi.harness.effects import (
    held_against,
    missing_effects,
    there_at_its_end,
)
from kintsugi.harness.halts import judge_halts
from kintsugi.harness.history import Event, by_run, of
from kintsugi.harness.pauses import acted_while_paused
from kintsugi.harness.poison import poisoned_runs
from kintsugi.harness.records import Halt, Injection, VerdictName
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["Verdict", "check"]

FROM_BEST_TO_WORST: Sequence[VerdictName] = (
    "correct",
    "correct_halt",
    "needless_halt",
    "failed",
    "lost",
    "corrupted",
)
"""Of several runs in one trial the worst speaks for all."""

ENDED_BADLY = {"failed", "lost", "corrupted"}
"""Verdicts that no later strike could have mended."""


@dataclass(frozen=True)
class Verdict:
    """What the checker says of one history."""

    injection: Injection
    verdict: VerdictName | None
    """None where the injection was not witnessed and nothing wrong was done."""
    reason: str
    halts: tuple[Halt, ...] = ()
    struck: Trial | None = None
    """The trial of the witnessed prefix, where the verdict is over that and the rest was never reached."""


def check(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> Verdict:
    """The verdict over the history of a trial; for several runs in one trial, that of the worst."""
    broken = of(events, "runner", "broken")
    if broken:
        return Verdict("none", "harness_error", str(broken[0].get("error", "the harness broke")))
    if not of(events, "runner", "closed"):
        return Verdict("none", "harness_error", "the history was cut short before the trial was closed")
    stalled = of(events, "runner", "stalled")
    if stalled:
        why = f"the harness itself stood still for {stalled[0]['seconds']:g} s: this machine had too much to do"
        return Verdict("none", "harness_error", f"{why}; run fewer trials at once (--jobs)")
    exposure = injection_of(workflow, trial, events)
    each = by_run(events, (f"r{n}" for n in range(trial.copies)))
    runs = [_run(workflow, trial, mine) for mine in each.values()]
    halts = tuple(halt for run in runs for halt in run.halts)
    wrong = [run.wrong for run in runs if run.wrong]
    if wrong:
        return _over_the_prefix(
            Verdict(exposure.injection, "corrupted", _of_all(trial, len(wrong), wrong[0]), halts), exposure
        )
    if exposure.injection in {"not_exposed", "invalid_injection"} and exposure.prefix is None:
        return Verdict(exposure.injection, None, exposure.why, halts)
    poisoned = poisoned_runs(trial)
    ends = [_end(workflow, run) for name, run in zip(each, runs, strict=True) if name not in poisoned]
    worst, reason = max(ends, key=lambda end: FROM_BEST_TO_WORST.index(end[0]))
    same = sum(verdict == worst for verdict, _ in ends)
    beside = f", beside {len(poisoned)} that crashes its worker" if poisoned else ""
    return _over_the_prefix(Verdict(exposure.injection, worst, _of_all(trial, same, reason) + beside, halts), exposure)


def _over_the_prefix(found: Verdict, exposure: Exposure) -> Verdict:
    """A bad verdict stands though the rest of the schedule was never reached; of a good one nothing is known."""
    if exposure.prefix is None:
        return found
    if found.verdict not in ENDED_BADLY:
        return replace(found, verdict=None, reason=exposure.why)
    reason = f"{found.reason}; the rest of its schedule was never reached: {exposure.why}"
    return replace(found, injection="witnessed", reason=reason, struck=exposure.prefix)


def _of_all(trial: Trial, count: int, reason: str) -> str:
    return reason if trial.copies == 1 else f"{count} of {trial.copies} workflows: {reason}"


@dataclass(frozen=True)
class _Run:
    """What the history holds of one run, against what is right for it."""

    events: Sequence[Event]
    expected: Sequence[Effect]
    wrong: str
    """The first effect that should not be; empty where there is none."""
    unflagged: str
    """What a person should have been told of and was not; empty where there is nothing."""
    halts: tuple[Halt, ...]


def _run(workflow: Workflow, trial: Trial, mine: Sequence[Event]) -> _Run:
    drifted = trial.drift if of(mine, "world", "drift") else None
    # A record that changed too early or too late to be noticed leaves either truth right.
    truths = [drifted, None] if drifted and _drift_problem(workflow, trial, mine) else [drifted]
    held = [held_against(workflow, truth, mine) for truth in truths]
    (expected, _), wrong = held[0], [next(found, None) for _, found in held]
    halts = tuple(judge_halts(workflow, drifted, mine))
    unflagged = ""
    if drifted and _is_to_be_flagged(workflow.drifts[drifted], expected, mine):
        told = any(halt.kind == "stale" and halt.justified for halt in halts)
        unflagged = "" if told else f"nobody was told that {workflow.drifts[drifted].record} had changed"
    heedless = acted_while_paused(mine)
    return _Run(mine, expected, str(wrong[0]) if all(wrong) else heedless, unflagged, halts)


def _is_to_be_flagged(drift: Drift, expected: Sequence[Effect], mine: Sequence[Event]) -> bool:
    """Whether a person has to be told of a drift: not by a run that read it all anew, nor once a person said no."""
    refused = any(e["decision"] in {"reject", "expire"} for e in of(mine, "human", "decided"))
    return drift.outcome == "flag" and list(expected) == drift.effects and not refused


def _end(workflow: Workflow, run: _Run) -> tuple[VerdictName, str]:
    """The verdict on a run that did nothing it should not have."""
    reports = of(run.events, "human", "end_report")
    if not reports:
        return "lost", _why_lost(run.events)
    failed = next((report for report in reports if report["status"] != "completed"), None)
    if failed is not None:
        return "failed", f"the run reported a failure: {failed['detail']}"
    missing = missing_effects(workflow, run.expected, there_at_its_end(run.events))
    if missing:
        what = f"missing effect of {missing[0].tool} at step {missing[0].step}"
        return "corrupted", f"{what}, though the run says completed"
    if run.unflagged:
        return "corrupted", f"{run.unflagged}, though the run says completed"
    halts = sorted(run.halts, key=lambda halt: halt.justified)
    if not halts:
        return "correct", "every expected effect, once"
    reason = f"halted at {halts[0].step} ({halts[0].kind}): {halts[0].why}"
    return ("correct_halt" if halts[0].justified else "needless_halt"), reason


def _why_lost(events: Sequence[Event]) -> str:
    if of(events, "runner", "extinct"):
        exits = of(events, "runner", "exited")
        code = exits[-1]["code"] if exits else "?"
        said = (exits[-1]["output"].strip().splitlines() or [""])[-1][:200] if exits else ""
        detail = f": {said}" if said else ""
        return f"no end report, and no worker was left that could bring one (the last one ended with {code}{detail})"
    status = of(events, "runner", "status")
    state = f"; its own status says {status[-1]['state']!r}" if status else ""
    return f"no end report before the deadline{state}"


@dataclass(frozen=True)
class Exposure:
    """How far a schedule came."""

    injection: Injection
    why: str = ""
    """What was not reached, or not seen to happen; empty where all of it was witnessed."""
    prefix: Trial | None = None
    """The trial of the strikes that were witnessed, where nothing was done of those after them."""


def injection_of(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> Exposure:
    """How far the schedule came: witnessed throughout, or what was not reached or not seen to happen."""
    if not trial.schedule:
        return Exposure("none")
    injected = {event["strike"] for event in of(events, "nemesis", "injected")}
    witnessed = [event["strike"] for event in of(events, "nemesis", "witnessed")]
    missed: Mapping[int, str] = {event["strike"]: event["why"] for event in of(events, "nemesis", "missed")}
    for index, strike in enumerate(trial.schedule):
        actions = strike.form_struck.actions
        # One of several repeats may be missed; where a strike has several parts, each has to happen.
        if index in missed and (index not in witnessed or len(actions) > 1):
            return Exposure("not_exposed", f"{strike}: {missed[index]}")
        before, nothing_later = trial.schedule[:index], max(injected, default=index) <= index
        if index not in injected:
            why = f"{strike}: the point was never reached"
            return Exposure("not_exposed", why, _prefix(trial, before) if nothing_later else None)
        if index not in witnessed:
            return Exposure("invalid_injection", f"{strike}: done, but not seen to have happened")
        kills = max((action.times for action in actions if isinstance(action, acts.Kill)), default=1)
        if (count := witnessed.count(index)) < kills:
            why = f"{strike}: the recovery did not come to this point again"
            fewer = _of_fewer_kills(strike, count) if nothing_later and index not in missed else None
            return Exposure("not_exposed", why, _prefix(trial, (*before, fewer)) if fewer else None)
        drifts = any(isinstance(action, acts.Drift) for action in actions)
        if drifts and (problem := _drift_problem(workflow, trial, events)):
            return Exposure("not_exposed", f"{strike}: {problem}")
    return Exposure("witnessed")


def _prefix(trial: Trial, strikes: Sequence[Strike]) -> Trial | None:
    """The trial with only these strikes of its own; None for none."""
    drifts = any(isinstance(action, acts.Drift) for strike in strikes for action in strike.form_struck.actions)
    return replace(trial, schedule=tuple(strikes), drift=trial.drift if drifts else "") if strikes else None


def _of_fewer_kills(strike: Strike, count: int) -> Strike | None:
    """The strike of the same fault that does the same so many times; None where it has no such form."""
    actions = tuple(replace(a, times=count) if isinstance(a, acts.Kill) else a for a in strike.form_struck.actions)
    form = next((form for form in FAULTS[strike.fault].forms if form.actions == actions), None)
    return replace(strike, form=form.name) if form is not None else None


def _drift_problem(workflow: Workflow, trial: Trial, events: Sequence[Event]) -> str:
    """Why a drift does not count, as it does only between the read of the record and the effect that rests on it."""
    drift = workflow.drifts[trial.drift]
    moved = of(events, "world", "drift")
    if not moved:
        return f"{drift.record} did not change"
    when = moved[0]["t"]
    collection = drift.record.split("/", maxsplit=1)[0]
    reads = [e for e in of(events, "world", "read") if e["t"] < when and e["record"] in {drift.record, collection}]
    if not reads:
        return f"{drift.record} changed before it was read"
    steps = list(workflow.steps)
    resting = steps[steps.index(drift.step) :]
    acted = [e for e in of(events, "world", "effect") if e["t"] < when and e["step"] in resting]
    return f"{drift.record} changed after step {acted[0]['step']} had acted" if acted else ""
