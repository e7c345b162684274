import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kintsugi.harness.intervals import (
    DRAWN_MIN,
    clopper_pearson,
    cluster_bootstrap,
    cost_bootstrap,
    cost_difference_bootstrap,
    cost_ratio_bootstrap,
    trials_needed,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # A vendor's published figures, and the intervals that metrics.md gives for them.
        (19, 20, 0.751, 0.999),
        (124, 125, 0.956, 0.9998),
        (1, 20, 0.0013, 0.2487),
        (0, 60, 0.0, 0.06),
        # By hand: with k = n the lower end is 0.025 ** (1 / n), with k = 0 the upper one its complement.
        (10, 10, 0.025 ** (1 / 10), 1.0),
        (0, 3, 0.0, 1 - 0.025 ** (1 / 3)),
    ],
)
def test_exact_intervals(k: int, n: int, low: float, high: float) -> None:
    found = clopper_pearson(k, n)
    assert found == pytest.approx((low, high), abs=6e-4)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_exact_interval_is_scipys_and_holds_the_rate(case: tuple[int, int]) -> None:
    k, n = case
    low, high = clopper_pearson(k, n)
    theirs = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= low <= k / n <= high <= 1


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_no_interval_of_what_is_no_proportion(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}"):
        clopper_pearson(k, n)


@pytest.mark.parametrize(
    ("target", "sided", "needed"), [(0.99, 1, 299), (0.999, 1, 2995), (0.99, 2, 368), (0.999, 2, 3688)]
)
def test_trials_needed_without_failures(target: float, sided: int, needed: int) -> None:
    assert trials_needed(target, sided=sided) == needed


def test_trials_needed_with_one_failure_is_the_textbooks() -> None:
    # NIST and sampling-plan tables give 473 for 99% at 95%, one failure, one-sided.
    assert trials_needed(0.99, failures=1) == 473


@given(st.floats(0.5, 0.995), st.integers(0, 6), st.sampled_from([1, 2]))
def test_trials_needed_is_the_least_n_whose_bound_reaches_the_target(target: float, failures: int, sided: int) -> None:
    n = trials_needed(target, failures=failures, sided=sided)
    # The two-sided 90% interval has the one-sided 95% bound as its lower end.
    confidence = 0.95 if sided == 2 else 0.90
    assert clopper_pearson(n - failures, n, confidence)[0] >= target - 1e-9
    if n - 1 > failures:
        assert clopper_pearson(n - 1 - failures, n - 1, confidence)[0] < target + 1e-9


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_a_target_is_a_rate(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        trials_needed(target)


clusters = st.lists(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=25
)


@given(clusters, st.randoms(use_true_random=False))
def test_a_bootstrap_holds_the_rate_whatever_the_order(cases: list[tuple[int, int]], random: object) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    low, high = cluster_bootstrap(cases)
    rate = sum(k for k, _ in cases) / sum(n for _, n in cases)
    assert 0 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1
    assert cluster_bootstrap(shuffled) == (low, high)


def test_calls_that_fall_together_are_less_sure_than_calls_that_fall_alone() -> None:
    # 40 of 50 calls both times: in ten runs of five calls that fail as one, or in fifty runs of one call.
    together = cluster_bootstrap([(5, 5)] * 8 + [(0, 5)] * 2)
    alone = cluster_bootstrap([(1, 1)] * 40 + [(0, 1)] * 10)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_a_bootstrap_of_single_calls_is_near_the_exact_interval() -> None:
    found = cluster_bootstrap([(1, 1)] * 80 + [(0, 1)] * 20)
    assert found == pytest.approx(clopper_pearson(80, 100), abs=0.02)


def test_calls_without_a_failure_are_as_sure_as_their_runs() -> None:
    # Sixty calls in six runs: six independent looks, not sixty, and never the interval [1, 1].
    assert cluster_bootstrap([(10, 10)] * 6) == clopper_pearson(6, 6)
    assert cluster_bootstrap([(0, 10)] * 6) == clopper_pearson(0, 6)


def test_one_wrong_call_makes_a_rate_no_surer_than_none() -> None:
    perfect = cluster_bootstrap([(10, 10)] * 20)
    found = cluster_bootstrap([(10, 10)] * 19 + [(9, 10)])
    # 19.9 of 20 trials: by hand between 19 and 20.
    assert found == (clopper_pearson(19, 20)[0], 1.0)
    assert found[0] < perfect[0]
    assert cluster_bootstrap([(0, 10)] * 19 + [(1, 10)]) == (0.0, clopper_pearson(1, 20)[1])


@pytest.mark.parametrize("runs", [1, 2])
def test_runs_that_are_alike_are_as_unsure_as_they_are_few(runs: int) -> None:
    low, high = cluster_bootstrap([(19, 20)] * runs)
    assert (low, high) == (clopper_pearson(runs - 1, runs)[0], 1.0)


def test_tenths_add_up_to_whole_trials() -> None:
    # Ten trials of a tenth are one of ten, whatever 0.1 + 0.1 + … is in binary.
    assert cluster_bootstrap([(1, 10)] * 10) == clopper_pearson(1, 10)


@given(clusters, st.data())
def test_a_trial_that_goes_wrong_never_leaves_a_rate_surer_than_when_all_go_right(
    cases: list[tuple[int, int]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(cases) - 1))
    k, n = cases[at]
    perfect = [(n, n) for _, n in cases]
    worse = [*perfect[:at], (min(k, n - 1), n), *perfect[at + 1 :]]
    assert cluster_bootstrap(worse)[0] <= cluster_bootstrap(perfect)[0]


def test_no_calls_no_interval() -> None:
    with pytest.raises(ValueError, match="no calls"):
        cluster_bootstrap([(0, 0)])


def test_a_ratio_of_costs_that_never_vary_is_certain() -> None:
    assert cost_ratio_bootstrap([(1.0, 1, 2.0, 1)] * 12) == (0.5, 0.5)


def test_what_pairs_have_in_common_cancels() -> None:
    # Costs vary fourfold from pair to pair, and one is always 0.8 of the other.
    pairs = [(0.8 * cost, 1.0, cost, 1.0) for cost in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert cost_ratio_bootstrap(pairs) == pytest.approx((0.8, 0.8))


def test_a_ratio_without_a_sure_success_has_no_upper_end() -> None:
    found = cost_ratio_bootstrap([(1.0, 1, 1.0, 1)] * 2 + [(1.0, 0, 1.0, 1)] * 3)
    # All five draws without a success come in 0.6 ** 5 of the cases; four or more with one in 8.7%, five in 1%.
    assert found is not None
    assert found[0] == pytest.approx(5 / 4)
    assert found[1] is None


def test_a_cost_per_success_is_bounded_by_its_runs() -> None:
    found = cost_bootstrap([(1.0, 1.0)] * 9 + [(5.0, 1.0)])
    assert found is not None
    low, high = found
    assert high is not None
    assert 1.0 <= low < 1.4 < high <= 5.0
    assert not math.isinf(high)


def test_a_difference_of_costs_that_never_vary_is_certain() -> None:
    assert cost_difference_bootstrap([(1.0, 1, 2.5, 1)] * 12) == (1.5, 1.5)


def test_a_difference_holds_what_pairs_have_in_common_apart_from_what_they_have_not() -> None:
    pairs = [(cost, 1.0, cost + 2.0, 1.0) for cost in (1.0, 5.0, 25.0, 125.0, 625.0)]
    assert cost_difference_bootstrap(pairs) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(
    ("pair", "open_ends"),
    [((1.0, 0, 1.0, 1), (True, False)), ((1.0, 1, 1.0, 0), (False, True)), ((1.0, 0, 1.0, 0), (False, False))],
)
def test_a_difference_is_without_bound_where_one_side_may_have_no_success(
    pair: tuple[float, float, float, float], open_ends: tuple[bool, bool]
) -> None:
    found = cost_difference_bootstrap([pair] * 4 + [(1.0, 1, 1.0, 1)] * 2)
    assert found is not None
    assert (found[0] is None, found[1] is None) == open_ends


def test_no_success_at_all_leaves_a_difference_open() -> None:
    assert cost_difference_bootstrap([(1.0, 0, 1.0, 0)] * 5) == (None, None)


def test_a_few_runs_or_pairs_have_no_interval_of_their_cost() -> None:
    run, pair = (0.07, 1.0), (0.07, 1.0, 0.15, 1.0)
    few, enough = DRAWN_MIN - 1, DRAWN_MIN
    assert (cost_bootstrap([run] * few), cost_bootstrap([run] * enough)) == (None, (0.07, 0.07))
    assert cost_ratio_bootstrap([pair] * few) is None
    assert cost_ratio_bootstrap([pair] * enough) == pytest.approx((7 / 15, 7 / 15))
    assert cost_difference_bootstrap([pair] * few) is None
    assert cost_difference_bootstrap([pair] * enough) == pytest.approx((0.08, 0.08))
