"""Schedules of several faults, for real: a strike that follows another meets the recovery, and each has its witness."""

from __future__ import annotations

import pytest

from kintsugi.faults.points import Point
from kintsugi.harness.history import of
from kintsugi.harness.results import Results
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

WORKFLOW = "finance/invoice_payment"
PAIRS = [
    ("tool:order[0]#1@before", "tool:order[0]#1@before"),
    ("tool:order[0]#1@before", "tool:pay[0]#1@committed"),
    ("tool:pay[0]#1@during", "tool:pay[0]#1@before"),
    ("tool:pay[0]#1@committed", "tool:pay[0]#1@before"),
    ("human:pay[0]#1@waiting", "decision:pay[0]#1@before"),
    ("human:pay[0]#1@waiting", "decision:pay[0]#1@after"),
    ("decision:pay[0]#1@after", "tool:pay[0]#1@after"),
    ("end:end[0]#1@before", "end:end[0]#1@committed"),
]


def kill(point: str, *, then: bool) -> Strike:
    parsed = Point.parse(point)
    return Strike("worker_kill", "after_0ms" if parsed.phase == "after" else "at_boundary", parsed, then=then)


def pair(first: str, second: str) -> Trial:
    schedule = (kill(first, then=False), kill(second, then=True))
    return Trial("fault", "minimal", "optimized", WORKFLOW, schedule, 7)


MIXED = Trial(
    "fault",
    "minimal",
    "optimized",
    WORKFLOW,
    (
        Strike("partial_side_effect", "reset", Point.parse("tool:pay[0]#1@committed")),
        Strike("tool_timeout", "not_applied", Point.parse("tool:note[0]#1@before")),
        Strike("worker_kill", "at_boundary", Point.parse("end:end[0]#1@before")),
    ),
    7,
)
BASELINE = Trial("baseline", "minimal", "optimized", WORKFLOW, seed=7)
TRIALS = [BASELINE, *(pair(*points) for points in PAIRS), MIXED]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_second_kill_meets_the_recovery_from_the_first(results: Results, first: str, second: str) -> None:
    trial = pair(first, second)
    result, events = results.trials()[trial.id], results.history(trial.id)
    assert (result.injection, result.verdict) == ("witnessed", "correct"), result.reason
    seen = of(events, "nemesis", "witnessed")
    assert [event["strike"] for event in seen] == [0, 1]
    # Two lives ended, one after the other, and a third brought the run to its end.
    killed = [event["generation"] for event in seen]
    assert killed == sorted(set(killed))
    assert {e["generation"] for e in of(events, "runner", "exited") if e["signal"] == 9} >= set(killed)
    assert result.generations >= 3
    injected = of(events, "nemesis", "injected")
    assert injected[1]["t"] >= seen[0]["t"]


def test_faults_of_several_classes_all_happen_and_are_counted_together(results: Results) -> None:
    result = results.trials()[MIXED.id]
    assert (result.injection, result.verdict) == ("witnessed", "correct"), result.reason
    assert result.fault == "partial_side_effect+tool_timeout+worker_kill"
    assert result.points == tuple(str(strike.point) for strike in MIXED.schedule)
    witnessed = {event["strike"] for event in of(results.history(MIXED.id), "nemesis", "witnessed")}
    assert witnessed == {0, 1, 2}
