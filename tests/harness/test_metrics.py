import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.harness.intervals import clopper_pearson
from kintsugi.harness.metrics import measure
from kintsugi.harness.records import Count, Halt, Human, Measures, Repeats, Storm, Times, TrialResult, Usage

MakeResult = Callable[..., TrialResult]
FINANCE = "finance/invoice_payment"
REFUND = "finance/customer_refund"
OPAQUE = Human(halts=(Halt("in_doubt", "tell", justified=True, why="opaque"),))
NEEDLESS = Human(halts=(Halt("verify", "pay", justified=False, why="had a key"),))


def cell_of(results: list[TrialResult], name: str = "finance", **known: Any) -> dict[str, Any]:
    """The cell of the only SUT that is in some results."""
    (block,) = measure(results, **known)["suts"].values()
    cell: dict[str, Any] = block["classes"][name]
    return cell


def figures(rate: dict[str, Any] | None) -> tuple[int, int] | None:
    return None if rate is None else (rate["k"], rate["n"])


def test_completion_is_of_clean_trials_and_only_correct_counts(make_result: MakeResult) -> None:
    verdicts = ["correct"] * 5 + [
        "correct_halt",
        "needless_halt",
        "failed",
        "lost",
        "corrupted",
        "harness_error",
    ]
    clean = [make_result(kind="clean", verdict=verdict) for verdict in verdicts]
    struck = [make_result(verdict="lost"), make_result(verdict="correct")]
    cell = cell_of([*clean, *struck])
    assert figures(cell["workflow_completion_rate"]) == (5, 10)
    assert cell["workflow_completion_rate"]["ci95"] == list(clopper_pearson(5, 10))
    assert cell["workflow_completion_rate"]["basis"] == "sampled"
    assert figures(cell["workflow_completion_rate_under_faults"]) == (1, 2)


def test_a_baseline_of_a_real_model_is_an_attempt_like_any_other(make_result: MakeResult) -> None:
    results = [make_result(kind="baseline", variance="real"), make_result(kind="clean", variance="real", seed=8)]
    cell = measure(results)["suts"]["minimal"]["classes"]["finance"]
    assert (cell["workflow_completion_rate"]["k"], cell["workflow_completion_rate"]["n"]) == (2, 2)


def test_a_failed_baseline_is_a_completion_failure_and_a_good_one_nothing(make_result: MakeResult) -> None:
    results = [make_result(kind="clean"), make_result(kind="baseline")]
    assert figures(cell_of(results)["workflow_completion_rate"]) == (1, 1)
    results += [
        make_result(kind="baseline", workflow=REFUND, verdict="failed"),
        make_result(workflow=REFUND, injection="baseline_failed", verdict=None),
    ]
    summary = measure(results)
    cell = summary["suts"]["minimal"]["classes"]["finance"]
    assert figures(cell["workflow_completion_rate"]) == (1, 2)
    assert figures(cell["unplanned_repair_rate"]) == (1, 2)
    assert cell["baselines"] == {"run": 2, "correct": 1, "failed": [REFUND]}
    assert cell["fault_recovery_rate"] is None
    assert (summary["trials"]["run"], summary["trials"]["baseline_failed"]) == (3, 1)


def test_recovery_counts_witnessed_faults_and_attended_ones_apart(make_result: MakeResult) -> None:
    results = [
        *(make_result() for _ in range(6)),
        *(make_result(verdict="correct_halt", human=OPAQUE) for _ in range(2)),
        make_result(verdict="needless_halt", human=NEEDLESS),
        make_result(verdict="corrupted"),
        make_result(injection="not_exposed", verdict=None),
        make_result(injection="invalid_injection", verdict=None),
        make_result(injection="not_exposed", verdict="corrupted"),
        make_result(verdict="harness_error"),
    ]
    cell = cell_of(results)
    recovery = cell["fault_recovery_rate"]
    assert figures(recovery) == (8, 10)
    assert (recovery["attended"], recovery["unattended"]) == (2, 6)
    assert (recovery["attended_rate"], recovery["unattended_rate"]) == (0.2, 0.6)
    # Both corruptions count as such; the one without a witness is in no denominator under faults.
    assert (cell["corrupted"], cell["corrupted_unwitnessed"]) == (2, 1)
    assert figures(cell["corruption_rate"]) == (2, 11)
    assert cell["trials"] == {
        "run": 14,
        "clean": 0,
        "witnessed": 10,
        "not_exposed": 2,
        "invalid_injection": 1,
        "baseline_failed": 0,
        "harness_error": 1,
    }


def test_a_storm_out_of_bounds_is_not_recovered_from(make_result: MakeResult) -> None:
    calm, wild = (Storm(50, calls, 80.0, 2.0, within_bounds=calls < 5) for calls in (3.0, 9.0))
    cell = cell_of([make_result(fault="retry_storm", storm=storm) for storm in (calm, wild)])
    assert figures(cell["fault_recovery_rate"]) == (1, 2)
    # It did complete: that is another question.
    assert figures(cell["workflow_completion_rate_under_faults"]) == (2, 2)
    assert figures(cell["storms"]["within_bounds"]) == (1, 2)
    assert cell["storms"]["outage_calls_per_workflow"] == 6.0
    assert cell["storms"]["outage_calls_per_workflow_max"] == 9.0


def test_recovery_is_split_by_fault_layer_phase_and_stratum(make_result: MakeResult) -> None:
    results = [
        make_result(),
        make_result(verdict="lost"),
        make_result(fault="loop", layer="semantic", phase="during", points=("model:judge[0]#1@during",)),
        make_result(fault="worker_kill", workflow="data/dead_letter_replay"),
    ]
    block = measure(results)["suts"]["minimal"]
    shown = {
        part: {value: {name: figures(rate) for name, rate in row.items()} for value, row in block[part].items()}
        for part in ("faults", "layers", "phases", "strata")
    }
    assert shown == {
        "faults": {"worker_kill": {"data": (1, 1), "finance": (1, 2)}, "loop": {"finance": (1, 1)}},
        "layers": {"execution": {"data": (1, 1), "finance": (1, 2)}, "semantic": {"finance": (1, 1)}},
        "phases": {"before": {"data": (1, 1), "finance": (1, 2)}, "during": {"finance": (1, 1)}},
        "strata": {"shared": {"data": (1, 1), "finance": (1, 2)}, "model": {"finance": (1, 1)}},
    }


def test_kills_after_a_response_are_a_curve_and_in_the_total(make_result: MakeResult) -> None:
    late = [
        make_result(form=f"after_{ms}ms", phase="after", points=("tool:pay[0]#1@after",), resumed_exactly=exactly)
        for ms, exactly in ((0, False), (0, True), (20, True))
    ]
    summary = measure([*late, make_result()])
    block = summary["suts"]["minimal"]
    curve = {form: row["finance"] for form, row in block["after"].items()}
    assert {form: figures(rate) for form, rate in curve.items()} == {
        "after_0ms": (2, 2),
        "after_20ms": (1, 1),
    }
    assert curve["after_0ms"]["resumed_exactly"] == 1
    assert figures(block["classes"]["finance"]["fault_recovery_rate"]) == (4, 4)


def test_resumed_exactly_needs_a_recovery(make_result: MakeResult) -> None:
    results = [
        make_result(),
        make_result(resumed_exactly=False),
        make_result(verdict="lost", resumed_exactly=True),
        make_result(resumed_exactly=None),
    ]
    assert figures(cell_of(results)["resumed_exactly"]) == (1, 3)


def test_weights_say_how_much_of_the_frame_a_trial_stands_for(make_result: MakeResult) -> None:
    results = [make_result(weight=9.0), make_result(weight=1.0, verdict="lost")]
    rate = cell_of(results)["fault_recovery_rate"]
    assert (rate["rate"], rate["rate_weighted"]) == (0.5, 0.9)


def test_coverage_is_of_the_frames_points(make_result: MakeResult) -> None:
    pay, note, other = "tool:pay[0]#1@before", "tool:note[0]#1@before", "tool:own[0]#2@before"
    results = [
        make_result(points=(pay,)),
        make_result(points=(pay,), form="twice", verdict="lost"),
        make_result(points=(note,), verdict="lost"),
        make_result(points=(other,)),
        make_result(points=("tool:tell[0]#1@before",), injection="not_exposed", verdict=None),
    ]
    outcomes = {"always": 1, "sometimes": 1, "never": 1}
    assert cell_of(results)["coverage"] == {"covered": 3, "total": None} | outcomes
    frame = {
        ("optimized", FINANCE): [pay, note, "tool:tell[0]#1@before", "end:end[0]#1@before"],
        ("naive", FINANCE): ["model:end[0]#1@before"],
        ("optimized", "data/dead_letter_replay"): ["tool:list[0]#1@before"],
    }
    assert cell_of(results, frame=frame)["coverage"] == {"covered": 2, "total": 4} | outcomes


def test_an_exhaustive_fault_has_rates_without_interval_except_where_it_is_a_race(
    make_result: MakeResult,
) -> None:
    exact = [make_result() for _ in range(3)]
    block = measure(exact, exhaustive={("worker_kill", FINANCE)})["suts"]["minimal"]
    assert block["faults"]["worker_kill"]["finance"]["basis"] == "exhaustive"
    assert block["classes"]["finance"]["fault_recovery_rate"]["ci95"] is None
    mixed = [*exact, make_result(fault="loop")]
    block = measure(mixed, exhaustive={("worker_kill", FINANCE)})["suts"]["minimal"]
    assert block["classes"]["finance"]["fault_recovery_rate"]["basis"] == "sampled"
    missed = [*exact, make_result(injection="not_exposed", verdict=None)]
    block = measure(missed, exhaustive={("worker_kill", FINANCE)})["suts"]["minimal"]
    assert block["faults"]["worker_kill"]["finance"]["basis"] == "sampled"
    assert block["classes"]["finance"]["fault_recovery_rate"]["ci95"] == list(clopper_pearson(3, 3))
    late = [*exact, make_result(phase="after", form="after_0ms", points=("tool:pay[0]#1@after",))]
    block = measure(late, exhaustive={("worker_kill", FINANCE)})["suts"]["minimal"]
    assert block["faults"]["worker_kill"]["finance"]["basis"] == "sampled"


def test_a_target_that_another_seed_has_struck_is_witnessed(make_result: MakeResult) -> None:
    again = {"points": ("tool:pay[0]#1@before",)}
    results = [make_result(seed=1, injection="not_exposed", verdict=None, **again), make_result(seed=2, **again)]
    assert measure(results, exhaustive={("worker_kill", FINANCE)})["suts"]["minimal"]["faults"]["worker_kill"][
        "finance"
    ]["basis"] == ("exhaustive")


def test_a_target_that_coverage_names_as_left_out_leaves_a_rate_sampled(make_result: MakeResult) -> None:
    row = {"fault": "worker_kill", "phase": "before", "whole": True, "covered": 2, "total": 3}
    left = [f"{FINANCE} worker_kill.at_boundary@tool:note[0]#1@before"]
    results = [make_result(), make_result(), make_result(workflow=REFUND)]
    both = {("worker_kill", FINANCE), ("worker_kill", REFUND)}
    points = {"minimal+optimized": [row | {"left_out": left}]}
    struck = measure(results, exhaustive=both, points=points)["suts"]["minimal"]["faults"]["worker_kill"]
    assert struck["finance"]["basis"] == "sampled"
    # Another SUT's shortcoming is not this one's.
    points = {"naive+naive": [row | {"left_out": left}], "minimal+optimized": [row | {"left_out": []}]}
    struck = measure(results, exhaustive=both, points=points)["suts"]["minimal"]["faults"]["worker_kill"]
    assert struck["finance"]["basis"] == "exhaustive"


def test_a_cell_says_what_became_of_the_trials_of_each_fault(make_result: MakeResult) -> None:
    results = [
        make_result(),
        make_result(verdict="harness_error"),
        make_result(injection="not_exposed", verdict=None),
        make_result(fault="loop", injection="invalid_injection", verdict=None),
        make_result(fault="loop", injection="baseline_failed", verdict=None),
        make_result(kind="timing"),
        make_result(kind="clean"),
    ]
    cell = cell_of(results)
    names = ("run", "witnessed", "not_exposed", "invalid_injection", "baseline_failed", "harness_error")
    assert {fault: tuple(fates[n] for n in names) for fault, fates in cell["exposure"].items()} == {
        "worker_kill": (3, 1, 1, 0, 0, 1),
        "loop": (1, 0, 0, 1, 1, 0),
    }
    assert cell["exposure_timing"]["worker_kill"]["witnessed"] == 1


def test_a_gap_is_of_the_classes_that_the_fault_applies_to(make_result: MakeResult) -> None:
    results = [make_result(), make_result(workflow=REFUND), make_result(workflow="data/dead_letter_replay")]
    absent = [("minimal+optimized", name, "power_loss") for name in (FINANCE, "data/dead_letter_replay")]
    classes = measure(results, fault_gaps={"power_loss": "2 trials: root"}, not_applicable=absent)["suts"]["minimal"]
    assert {name: cell["fault_gaps"] for name, cell in classes["classes"].items()} == {
        "data": [],
        "finance": ["power_loss"],
    }


def test_accuracy_as_proposed_and_as_it_reached_the_world(make_result: MakeResult) -> None:
    measures = Measures(
        selection_proposed=Count(3, 4),
        selection_reached=Count(4, 4),
        arguments_proposed=Count(7, 9),
        arguments_reached=Count(9, 9),
        calls_proposed=Count(2, 3),
        calls_reached=Count(4, 4),
        unsafe_proposed=Count(1, 2),
        unsafe_reached=Count(0, 2),
        trajectory_in_order=Count(1, 1),
        trajectory_exact=Count(0, 1),
        trajectory_any_order=Count(1, 1),
    )
    results = [make_result(kind="clean", measures=measures) for _ in range(2)]
    results.append(make_result(measures=Measures(selection_reached=Count(0, 5), unsafe_reached=Count(1, 3))))
    cell = cell_of(results)
    assert figures(cell["tool_selection_accuracy"]) == (6, 8)
    assert figures(cell["tool_selection_accuracy_reached"]) == (8, 8)
    assert figures(cell["tool_parameter_accuracy"]) == (14, 18)
    assert figures(cell["tool_call_accuracy"]) == (4, 6)
    assert figures(cell["trajectory_match_rate"]) == (2, 2)
    assert figures(cell["trajectory_exact_rate"]) == (0, 2)
    assert figures(cell["tool_selection_accuracy_reached_under_faults"]) == (0, 5)
    # What is unsafe is unsafe in any trial.
    assert figures(cell["unsafe_action_rate"]) == (1, 7)
    assert figures(cell["unsafe_action_rate_proposed"]) == (2, 4)


def test_a_choice_made_by_code_is_no_choice(make_result: MakeResult) -> None:
    results = [make_result(kind="clean", measures=Measures(selection_reached=Count(4, 4)))]
    cell = cell_of(results)
    assert cell["tool_selection_accuracy"] is None
    assert figures(cell["tool_selection_accuracy_reached"]) == (4, 4)


def test_people_are_counted_per_workflow_and_per_decision(make_result: MakeResult) -> None:
    asked = Human(checkpoints=2, decisions=2, overrides=1, approval_hours=(1.0, 3.0))
    results = [
        make_result(kind="clean", human=asked),
        make_result(kind="clean"),
        make_result(kind="clean", verdict="failed"),
        make_result(kind="clean", verdict="needless_halt", human=NEEDLESS),
        make_result(verdict="correct_halt", human=OPAQUE),
        make_result(verdict="needless_halt", human=NEEDLESS),
        make_result(),
    ]
    cell = cell_of(results)
    assert figures(cell["unplanned_repair_rate"]) == (2, 4)
    assert figures(cell["planned_checkpoint_rate"]) == (1, 4)
    assert cell["planned_checkpoint_rate"]["asked_per_workflow"] == 0.5
    assert figures(cell["human_override_rate"]) == (1, 2)
    assert figures(cell["unplanned_repair_rate_under_faults"]) == (2, 3)
    assert cell["unplanned_repair_rate_under_faults"]["unavoidable"] == 1
    approval = cell["approval_completion_seconds"]
    assert (approval["p50"], approval["p95"], approval["n"]) == (3600.0, 10800.0, 2)


def test_pass_k_asks_for_all_seeds(make_result: MakeResult) -> None:
    def clean(workflow: str, *verdicts: str) -> list[TrialResult]:
        return [make_result(kind="clean", workflow=workflow, verdict=verdict) for verdict in verdicts]

    results = clean(FINANCE, "correct", "correct", "correct") + clean(REFUND, "correct", "lost", "correct")
    # One seed of this one could not be judged, so it can't show three.
    results += clean("finance/expense_batch", "correct", "correct", "harness_error")
    rate = cell_of(results)["pass_k"]
    assert (figures(rate), rate["seeds"]) == ((1, 2), 3)


def test_pass_k_counts_a_workflow_that_failed_a_seed_although_another_was_not_judged(make_result: MakeResult) -> None:
    names = [f"finance/w{number}" for number in range(6)]
    verdicts = ["corrupted", "correct", "correct", "correct", "harness_error"]
    results = [make_result(kind="clean", workflow=name, verdict=v) for name in names[1:] for v in verdicts]
    results += [make_result(kind="clean", workflow=names[0]) for _ in range(5)]
    rate = cell_of(results)["pass_k"]
    assert (figures(rate), rate["seeds"]) == ((1, 6), 5)


def test_recovery_times_come_from_timing_trials_beside_their_clean_time(make_result: MakeResult) -> None:
    def timed(wall: float, end: float | None, **changes: object) -> TrialResult:
        times = Times(wall, detect=0.5, progress=0.7, end=end)
        return make_result(kind="timing", times=times, **changes)

    results = [
        *(make_result(kind="timing", fault="", times=Times(wall)) for wall in (1.0, 2.0, 3.0)),
        timed(4.0, 2.0),
        timed(5.0, 3.0),
        make_result(times=Times(99.0, 99.0, 99.0, 99.0)),
    ]
    found = cell_of(results)["recovery_seconds"]
    assert (found["end"]["p50"], found["end"]["p95"], found["end"]["n"]) == (2.0, 3.0, 2)
    assert found["detect"]["max"] == 0.5
    assert (found["clean"]["p50"], found["clean"]["n"]) == (2.0, 3)
    assert (found["added"]["p50"], found["added"]["max"]) == (2.0, 3.0)
    # A run that was lost never came to its end: the median of three is still known, the longest is not.
    found = cell_of([*results, timed(90.0, None, verdict="lost")])["recovery_seconds"]
    assert (found["end"]["p50"], found["end"]["max"], found["end"]["reached"]) == (3.0, None, 2)
    assert (found["detect"]["max"], found["added"]["max"]) == (0.5, None)


def test_a_run_that_had_nothing_new_left_to_do_is_not_one_that_never_got_there(
    make_result: MakeResult,
) -> None:
    last = make_result(kind="timing", times=Times(4.0, detect=0.5, progress=None, end=1.0))
    found = cell_of([last])["recovery_seconds"]
    assert (found["progress"]["n"], found["end"]["n"]) == (0, 1)


def test_repeated_work_is_counted_under_faults(make_result: MakeResult) -> None:
    results = [
        make_result(repeats=Repeats(1, 2, 300), human=Human(re_asked=1)),
        make_result(),
        make_result(kind="clean", repeats=Repeats(9, 9, 9)),
    ]
    found = cell_of(results)["repeats"]
    assert (found["trials"], found["model_calls"], found["tool_calls"], found["tokens"]) == (2, 1, 2, 300)
    assert found["per_trial"] == {
        "model_calls": 0.5,
        "tool_calls": 1.0,
        "tokens": 150.0,
        "approvals_re_asked": 0.5,
    }


def test_a_sut_is_told_apart_by_chain_only_where_it_has_two(make_result: MakeResult) -> None:
    results = [
        make_result(),
        make_result(chain="naive"),
        make_result(sut="dbos", chain="own"),
    ]
    suts = measure(results)["suts"]
    assert list(suts) == ["dbos", "minimal+naive", "minimal+optimized"]
    assert (suts["dbos"]["sut"], suts["dbos"]["chain"]) == ("dbos", "own")


def test_what_does_not_apply_is_shown_and_counted(make_result: MakeResult) -> None:
    missing = [("minimal+optimized", FINANCE, "stale_data"), ("naive+naive", FINANCE, "stale_data")]
    summary = measure([make_result()], not_applicable=missing, planned=4)
    assert (summary["trials"]["not_applicable"], summary["trials"]["planned"]) == (2, 4)
    assert summary["suts"]["minimal"]["not_applicable"] == {"stale_data": {"finance": 1}}


def test_a_summary_of_nothing() -> None:
    summary = measure([], suite="smoke 1", planned=0)
    assert summary["suts"] == {}
    assert summary["trials"]["run"] == 0


CONTRACT = (
    "workflow_completion_rate",
    "fault_recovery_rate",
    "resumed_exactly",
    "coverage",
    "tool_selection_accuracy",
    "tool_parameter_accuracy",
    "trajectory_match_rate",
    "unsafe_action_rate",
    "cost_per_successful_workflow_usd",
    "unplanned_repair_rate",
    "planned_checkpoint_rate",
    "human_override_rate",
    "approval_completion_seconds",
    "recovery_seconds",
)


def test_the_contract_holds(make_result: MakeResult) -> None:
    summary = measure([make_result(), make_result(kind="clean")], suite="standard 1", seed=7, started_at="now")
    assert (summary["schema"], summary["suite"], summary["seed"], summary["started_at"]) == (
        1,
        "standard 1",
        7,
        "now",
    )
    fates = "planned run witnessed not_exposed invalid_injection baseline_failed not_applicable harness_error"
    assert set(fates.split()) <= set(summary["trials"])
    block = summary["suts"]["minimal"]
    assert block["verdicts"] == {"correct": 2} | dict.fromkeys(
        ("correct_halt", "needless_halt", "corrupted", "failed", "lost"), 0
    )
    cell = block["classes"]["finance"]
    assert set(CONTRACT) <= set(cell)
    parts = "machine all_in model tool compute review repair waste"
    assert set(parts.split()) <= set(cell["cost_per_successful_workflow_usd"])
    assert {"detect", "progress", "end"} <= set(cell["recovery_seconds"])
    assert "attended" in block["faults"]["worker_kill"]["finance"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


VERDICTS = ["correct", "correct_halt", "needless_halt", "corrupted", "failed", "lost", "harness_error"]
drawn = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["baseline", "clean", "fault", "timing"]),
        "sut": st.sampled_from(["minimal", "naive"]),
        "chain": st.sampled_from(["optimized", "naive"]),
        "workflow": st.sampled_from([FINANCE, REFUND, "data/dead_letter_replay"]),
        "verdict": st.sampled_from(VERDICTS),
        "usage": st.builds(Usage, prompt_tokens=st.integers(0, 9000), tool_usd=st.floats(0, 1)),
        "measures": st.builds(
            Measures,
            selection_reached=st.integers(0, 4).map(lambda k: Count(k, 4)),
            unsafe_reached=st.just(Count(0, 2)),
        ),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(drawn, max_size=25), st.integers(0, 10**6))
def test_a_summary_is_the_same_in_any_order_and_holds_its_rates(
    make_result: MakeResult, changes: list[dict[str, Any]], seed: int
) -> None:
    results = [make_result(**change) for change in changes]
    shuffled = list(results)
    random.Random(seed).shuffle(shuffled)
    summary = measure(results)
    assert measure(shuffled) == summary
    for rate in rates_in(summary):
        low, high = rate["ci95"]
        assert 0 <= low <= rate["rate"] + 1e-9
        assert rate["rate"] - 1e-9 <= high <= 1
        assert rate["rate"] == rate["k"] / rate["n"]


def rates_in(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("basis") == "sampled":
            yield value
        for inner in value.values():
            yield from rates_in(inner)


@pytest.mark.parametrize("name", ["finance", "data"])
def test_classes_never_mix(make_result: MakeResult, name: str) -> None:
    good, bad = "finance/invoice_payment", "data/dead_letter_replay"
    results = [*(make_result(workflow=good) for _ in range(3)), make_result(workflow=bad, verdict="lost")]
    rate = cell_of(results, name)["fault_recovery_rate"]
    assert figures(rate) == {"finance": (3, 3), "data": (0, 1)}[name]
