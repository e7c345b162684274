from collections.abc import Callable

import pytest

from kintsugi.harness.rates import call_rate, percentiles, samples, share, trial_rate
from kintsugi.harness.records import Count, Measures, TrialResult

MakeResult = Callable[..., TrialResult]


def test_running_a_deterministic_trial_again_adds_nothing(make_result: MakeResult) -> None:
    again = [make_result(points=("tool:pay[0]#1@before",)) for _ in range(3)]
    other = make_result(points=("tool:pay[0]#1@committed",))
    assert [len(sample) for sample in samples([*again, other])] == [3, 1]


def test_another_seed_is_another_trial_only_where_the_model_varies(make_result: MakeResult) -> None:
    same = [make_result(points=("tool:pay[0]#1@before",), seed=seed) for seed in (1, 2)]
    varied = [make_result(kind="clean", seed=seed) for seed in (1, 2, 2)]
    assert [len(sample) for sample in samples(same)] == [2]
    assert [len(sample) for sample in samples(varied)] == [1, 2]


def test_each_kill_after_a_response_is_a_sample(make_result: MakeResult) -> None:
    point = ("tool:pay[0]#1@after",)
    assert len(samples([make_result(points=point, phase="after") for _ in range(4)])) == 4


def test_other_forms_drifts_and_second_strikes_are_other_trials(make_result: MakeResult) -> None:
    point = ("tool:pay[0]#1@waiting",)
    forms = ("while_waiting", "while_restarting")
    results = [make_result(points=point, form=form) for form in forms]
    results += [make_result(points=point, trial={"drift": drift}) for drift in ("more", "less")]
    two = ("tool:pay[0]#1@before", "tool:note[0]#1@before")
    results += [
        make_result(points=two, trial={"schedule": [{"form": "at_boundary"}, {"form": form}]}) for form in forms
    ]
    assert len(samples(results)) == 6


def test_a_run_that_ended_before_the_rest_of_its_schedule_is_one_more_of_what_was_struck(
    make_result: MakeResult,
) -> None:
    point = ("tool:pay[0]#1@before",)
    first, second = {"form": "at_boundary"}, {"form": "at_boundary", "then": True}
    alone = make_result(points=point, trial={"schedule": [first]})
    cut_short = [
        make_result(points=point, verdict="lost", trial={"schedule": schedule}, struck={"schedule": [first]})
        for schedule in ([first, second], [{"form": "again_in_recovery"}])
    ]
    drifting = {"schedule": [first, second], "drift": "more"}
    cut_short += [make_result(points=point, verdict="lost", trial=drifting, struck={"schedule": [first]})]
    assert [len(sample) for sample in samples([alone, *cut_short])] == [4]


def test_a_sample_holds_only_if_all_its_runs_do(make_result: MakeResult) -> None:
    point = ("tool:pay[0]#1@before",)
    mixed = samples([make_result(points=point), make_result(points=point, verdict="lost"), make_result()])
    held = trial_rate(mixed, lambda r: r.verdict == "correct")
    lost = trial_rate(mixed, lambda r: r.verdict == "lost", every=False)
    assert held is not None
    assert lost is not None
    assert (held["k"], held["n"], lost["k"], lost["n"]) == (1, 2, 1, 2)


def test_a_rate_of_nothing_is_none() -> None:
    assert share(0, 0) is None
    assert call_rate([], lambda r: r.measures.unsafe_reached) is None


def test_an_exhaustive_rate_has_no_interval() -> None:
    assert share(9, 10, "exhaustive") == {
        "k": 9,
        "n": 10,
        "rate": 0.9,
        "ci95": None,
        "basis": "exhaustive",
        "interval": None,
    }


def test_a_repeated_run_counts_its_worst_calls_once(make_result: MakeResult) -> None:
    point = ("tool:pay[0]#1@before",)
    runs = [
        make_result(points=point, measures=Measures(selection_reached=Count(k, 4), unsafe_reached=Count(4 - k, 4)))
        for k in (4, 3, 4)
    ]
    right = call_rate(samples(runs), lambda r: r.measures.selection_reached)
    unsafe = call_rate(samples(runs), lambda r: r.measures.unsafe_reached, every=False)
    assert right is not None
    assert unsafe is not None
    assert (right["k"], right["n"], right["trials"]) == (3, 4, 1)
    assert (unsafe["k"], unsafe["n"]) == (1, 4)


def test_runs_without_a_call_are_no_cluster(make_result: MakeResult) -> None:
    runs = [make_result(measures=Measures(selection_reached=Count(n, n))) for n in (0, 3, 0, 2)]
    rate = call_rate(samples(runs), lambda r: r.measures.selection_reached)
    assert rate is not None
    assert (rate["k"], rate["n"], rate["trials"]) == (5, 5, 2)


@pytest.mark.parametrize(
    ("values", "never", "expected"),
    [
        ([], 0, (None, None, None)),
        ([3.0], 0, (3.0, 3.0, 3.0)),
        ([4.0, 1.0, 3.0, 2.0], 0, (2.0, 4.0, 4.0)),
        ([float(v) for v in range(1, 101)], 0, (50.0, 95.0, 100.0)),
        # One of four never got there: the median is known, the tail is not.
        ([1.0, 2.0, 3.0], 1, (2.0, None, None)),
        ([1.0], 3, (None, None, None)),
    ],
)
def test_percentiles_are_values_that_were_seen(
    values: list[float], never: int, expected: tuple[float | None, ...]
) -> None:
    found = percentiles(values, never)
    assert (found["p50"], found["p95"], found["max"]) == expected
    assert (found["n"], found["reached"]) == (len(values) + never, len(values))
