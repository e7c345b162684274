from __future__ import annotations

from collections.abc import Callable

import pytest

from kintsugi.harness.records import Storm, TrialResult
from kintsugi.reports.breakages import apart_grid, apart_reasons, breakages
from kintsugi.reports.tables import Sut

MakeTrial = Callable[..., TrialResult]
KEY = "minimal+optimized"


def test_trials_that_broke_alike_are_one_cause_with_the_first_as_example(make_trial: MakeTrial) -> None:
    results = [
        make_trial(id="t3", verdict="corrupted", reason="duplicate effect of mail.send at step tell, request 3"),
        make_trial(id="t2", verdict="corrupted", reason="duplicate effect of bank.pay at step pay, request 18"),
    ]
    (cause,) = breakages(results, "results/a b")[KEY]
    assert (cause.count, cause.example) == (2, "t2")
    assert cause.reason == "duplicate effect of bank.pay at step pay, request 18"
    assert cause.command == "kintsugi replay 'results/a b' --trial t2"


def test_other_faults_verdicts_and_reasons_are_other_causes(make_trial: MakeTrial) -> None:
    results = [
        make_trial(id="a", verdict="lost", reason="no end report"),
        make_trial(id="b", verdict="lost", reason="no worker was left"),
        make_trial(id="c", verdict="failed", reason="no end report"),
        make_trial(id="d", verdict="lost", reason="no end report", fault="node_loss"),
        make_trial(id="e", verdict="corrupted", reason="no end report"),
    ]
    found = breakages(results, "R")[KEY]
    assert [cause.example for cause in found] == ["e", "d", "a", "b", "c"]


def test_a_storm_out_of_bounds_did_not_pass(make_trial: MakeTrial) -> None:
    wild = Storm(50, 41.5, 800.0, 3.0, within_bounds=False)
    calm = Storm(50, 2.0, 80.0, 3.0, within_bounds=True)
    results = [make_trial(id="wild", storm=wild), make_trial(id="calm", storm=calm)]
    (cause,) = breakages(results, "R")[KEY]
    assert (cause.ending, cause.example) == ("storm out of bounds", "wild")
    assert "41.5 calls a workflow" in cause.reason


def test_passes_and_trials_without_a_verdict_are_no_breakage(make_trial: MakeTrial) -> None:
    results = [
        make_trial(id="a"),
        make_trial(id="b", verdict="correct_halt"),
        make_trial(id="c", verdict=None, injection="not_exposed"),
        make_trial(id="d", verdict="harness_error"),
    ]
    assert breakages(results, "R") == {}


def test_a_trial_id_is_quoted_for_the_shell(make_trial: MakeTrial) -> None:
    (cause,) = breakages([make_trial(id="a'; rm -rf ~", verdict="lost")], "R")[KEY]
    assert cause.command == """kintsugi replay R --trial 'a'"'"'; rm -rf ~'"""


def test_what_is_in_no_denominator_is_counted_by_why(make_trial: MakeTrial) -> None:
    results = [
        make_trial(id="a", verdict=None, injection="not_exposed", reason="never reached"),
        make_trial(id="b", verdict=None, injection="invalid_injection"),
        make_trial(id="c", verdict=None, injection="baseline_failed"),
        make_trial(id="d", verdict="harness_error", injection="none"),
        make_trial(id="e"),
    ]
    assert [(cause.ending, cause.example) for cause in apart_reasons(results, "R")] == [
        ("baseline failed", "c"),
        ("harness error", "d"),
        ("invalid injection", "b"),
        ("not exposed", "a"),
    ]


def test_the_summary_counts_what_is_in_no_denominator() -> None:
    counts = {"not_exposed": 2, "invalid_injection": 1, "baseline_failed": 0}
    cells = {name: {"trials": counts, "corrupted_unwitnessed": 1} for name in ("finance", "data")}
    absent = {"stale_data": {"finance": 2, "data": 1}}
    sut = Sut("minimal", "optimized", {"classes": cells, "not_applicable": absent})
    (group,) = apart_grid([sut]).groups
    assert [cell.main for cell in group.rows[0].cells] == ["4", "2", "0", "–", "3", "2"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("the run reported a failure: turn 5.0: shop.refund: no answer", "turn 9.0: no answer", False),
        ("wrong arguments effect of a.b (daily_cents)", "wrong arguments effect of c.d (lead_id)", True),
        ("choose#1: The reply breaks the schema", "scope#2: The reply breaks the schema", True),
        ("its own status says 'running'", "its own status says 'waiting'", True),
        ("duplicate effect of mail.send", "missing effect of mail.send", False),
    ],
)
def test_step_tool_and_numbers_are_particulars_and_the_kind_of_wrong_is_not(
    make_trial: MakeTrial, one: str, other: str, *, same: bool
) -> None:
    results = [make_trial(id=reason, verdict="failed", reason=reason) for reason in (one, other)]
    assert (len(breakages(results, "R")[KEY]) == 1) is same
