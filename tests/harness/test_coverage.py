"""Coverage counts what was witnessed, each target once, and names what is missing of what was to be whole."""

from __future__ import annotations

from collections.abc import Callable

from kintsugi.faults.points import Point
from kintsugi.harness.coverage import coverage_rows, lines
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.planner import Target
from kintsugi.scenarios.trial import Strike, Trial

MakeResult = Callable[..., TrialResult]
PAY = Point("tool", "pay", phase="before")
NOTE = Point("tool", "note", phase="before")
LATE = Point("tool", "note", phase="after")
WORKFLOW = "finance/invoice_payment"


def kills(*points: Point, workflow: str = WORKFLOW, seed: int = 0) -> Trial:
    forms = ["after_0ms" if point.phase == "after" else "at_boundary" for point in points]
    schedule = tuple(
        Strike("worker_kill", form, point, then=position > 0)
        for position, (form, point) in enumerate(zip(forms, points, strict=True))
    )
    return Trial("fault", "minimal", "optimized", workflow, schedule, seed)


def test_only_what_was_witnessed_counts_and_each_target_once(make_result: MakeResult) -> None:
    targets = [Target(kills(PAY), whole=True), Target(kills(NOTE), whole=True), Target(kills(LATE), whole=True)]
    results = [
        make_result(trial=kills(PAY, seed=1).to_json()),
        make_result(trial=kills(PAY, seed=2).to_json()),
        make_result(trial=kills(NOTE).to_json(), injection="not_exposed", verdict=None),
        make_result(
            trial=kills(NOTE, workflow="data/dead_letter_replay").to_json(), workflow="data/dead_letter_replay"
        ),
    ]
    after, before = coverage_rows(results, targets)
    assert (before["phase"], before["covered"], before["total"]) == ("before", 1, 2)
    assert before["left_out"] == [f"{WORKFLOW} worker_kill.at_boundary@{NOTE}"]
    assert (after["phase"], after["covered"], after["total"]) == ("after", 0, 1)


def test_a_schedule_is_a_target_of_its_own_and_a_race_where_one_of_it_is(make_result: MakeResult) -> None:
    targets = [Target(kills(PAY, NOTE), whole=True), Target(kills(PAY, LATE), whole=True)]
    rows = coverage_rows([make_result(trial=kills(PAY, NOTE).to_json())], targets)
    assert [(row["fault"], row["phase"], row["covered"], row["total"]) for row in rows] == [
        ("worker_kill+worker_kill", "after", 0, 1),
        ("worker_kill+worker_kill", "before", 1, 1),
    ]


def test_what_was_only_to_be_drawn_from_is_counted_apart_and_not_missed(make_result: MakeResult) -> None:
    other = "data/dead_letter_replay"
    targets = [Target(kills(PAY), whole=True), Target(kills(PAY, workflow=other), whole=False)]
    drawn, whole = coverage_rows([make_result(trial=kills(PAY).to_json())], targets)
    assert (drawn["whole"], drawn["covered"], drawn["total"], drawn["left_out"]) == (False, 0, 1, [])
    assert lines({"minimal": {"points": [drawn, whole]}}) == [
        "minimal: worker_kill struck at 1 of 1 points (before 1/1)"
    ]
    assert lines({"minimal": {"points": [drawn]}}) == []


def test_a_pair_whose_second_was_never_reached_covers_only_its_first(make_result: MakeResult) -> None:
    targets = [Target(kills(PAY), whole=True), Target(kills(PAY, NOTE), whole=True)]
    cut_short = make_result(trial=kills(PAY, NOTE).to_json(), struck=kills(PAY).to_json(), verdict="lost")
    rows = coverage_rows([cut_short], targets)
    assert [(row["fault"], row["covered"], row["total"]) for row in rows] == [
        ("worker_kill", 1, 1),
        ("worker_kill+worker_kill", 0, 1),
    ]
