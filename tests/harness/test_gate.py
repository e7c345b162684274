import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.gate import Decision, _difference, judge
from kintsugi.harness.metrics import measure
from kintsugi.harness.readings import Reading
from kintsugi.harness.records import Count, Measures, Storm, Times, TrialResult, Usage
from kintsugi.harness.thresholds import METRICS, Thresholds, load_thresholds

MakeResult = Callable[..., TrialResult]
Ask = Callable[[str], Thresholds]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Thresholds of one line, given as the inside of a TOML table."""

    def load(line: str) -> Thresholds:
        path = tmp_path / "thresholds.toml"
        path.write_text(f"[[lines]]\n{line}\n")
        return load_thresholds(path)

    return load


def test_a_byte_order_mark_before_the_lines_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text("\ufeff[[lines]]\nmetric = 'pass_k'\nat_least = 0.5\n", encoding="utf-8")
    assert [line.metric for line in load_thresholds(path).lines] == ["pass_k"]


def recovering(make: MakeResult, good: int, bad: int = 0, **changes: object) -> list[TrialResult]:
    """So many recoveries, and so many losses."""
    return [make(**changes) for _ in range(good)] + [make(verdict="lost", **changes) for _ in range(bad)]


def told(decision: Decision) -> list[tuple[str, str]]:
    return [(line.workflow_class, line.verdict) for line in decision.lines]


RECOVERY = 'metric = "fault_recovery_rate"\nat_least = 0.9\n'


@pytest.mark.parametrize(
    ("good", "bad", "extra", "verdict", "code"),
    [
        (9, 1, "", "pass", 0),
        (8, 1, "", "fail", 1),
        (9, 1, "min_n = 11", "inconclusive", 3),
        (9, 1, "min_n = 10", "pass", 0),
        # 9/10 spans 0.9 (0.555 to 0.997), 36/36 begins at 0.903, 34/34 at 0.897, 5/10 ends at 0.813.
        (9, 1, 'mode = "interval"', "inconclusive", 3),
        (36, 0, 'mode = "interval"', "pass", 0),
        (34, 0, 'mode = "interval"', "inconclusive", 3),
        (5, 5, 'mode = "interval"', "fail", 1),
    ],
)
def test_point_and_interval(
    make_result: MakeResult, ask: Ask, good: int, bad: int, extra: str, verdict: str, code: int
) -> None:
    decision = judge(measure(recovering(make_result, good, bad)), ask(RECOVERY + extra))
    assert (decision.verdict, decision.exit_code) == (verdict, code)
    assert told(decision) == [("finance", verdict)]


def test_the_claim_of_99_percent_takes_368_trials_in_interval_mode(make_result: MakeResult, ask: Ask) -> None:
    thresholds = ask('metric = "fault_recovery_rate"\nat_least = 0.99\nmode = "interval"')
    results = recovering(make_result, 368)
    assert judge(measure(results), thresholds).verdict == "pass"
    assert judge(measure(results[1:]), thresholds).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("key", "rate", "verdict"), [("below", 0.1, "fail"), ("at_most", 0.1, "pass"), ("below", 0.11, "pass")]
)
def test_below_is_strict_and_at_most_is_not(
    make_result: MakeResult, ask: Ask, key: str, rate: float, verdict: str
) -> None:
    results = [make_result(kind="clean") for _ in range(9)] + [make_result(kind="clean", verdict="failed")]
    assert judge(measure(results), ask(f'metric = "unplanned_repair_rate"\n{key} = {rate}')).verdict == verdict


def test_a_count_that_must_be_zero(make_result: MakeResult, ask: Ask) -> None:
    thresholds = ask('metric = "corruption_rate"\nmode = "zero"\nmin_n = 20')
    clean = recovering(make_result, 60)
    decision = judge(measure(clean), thresholds)
    assert decision.verdict == "pass"
    assert decision.lines[0].why == "at most 5.96% at 95%"
    assert judge(measure(clean[:19]), thresholds).verdict == "inconclusive"
    # One is too many, however few the trials, and even where the fault was not witnessed.
    for injection in ("witnessed", "not_exposed"):
        wrong = make_result(verdict="corrupted", injection=injection)
        assert judge(measure([*clean[:3], wrong]), thresholds).verdict == "fail"


def test_calls_rest_on_trials(make_result: MakeResult, ask: Ask) -> None:
    measures = Measures(unsafe_reached=Count(0, 30))
    thresholds = ask('metric = "unsafe_action_rate"\nmode = "zero"\nmin_n = 3')
    results = [make_result(measures=measures) for _ in range(3)]
    assert judge(measure(results), thresholds).verdict == "pass"
    assert judge(measure(results[:2]), thresholds).verdict == "inconclusive"


def test_every_class_is_judged_for_itself(make_result: MakeResult, ask: Ask) -> None:
    results = recovering(make_result, 99) + recovering(make_result, 0, 1, workflow="data/dead_letter_replay")
    decision = judge(measure(results), ask(RECOVERY))
    assert told(decision) == [("data", "fail"), ("finance", "pass")]
    assert decision.verdict == "fail"


def test_a_line_may_name_class_fault_and_sut(make_result: MakeResult, ask: Ask) -> None:
    results = [
        *recovering(make_result, 3),
        *recovering(make_result, 0, 2, fault="loop"),
        *recovering(make_result, 0, 3, sut="naive", chain="naive"),
        *recovering(make_result, 0, 3, workflow="data/dead_letter_replay"),
    ]
    summary = measure(results)
    assert judge(summary, ask(RECOVERY + 'class = "finance"\nfault = "worker_kill"')).verdict == "pass"
    assert judge(summary, ask(RECOVERY + 'class = "finance"\nfault = "loop"')).verdict == "fail"
    assert told(judge(summary, ask(RECOVERY + 'class = "finance"\nsut = "naive+naive"'))) == [("finance", "fail")]
    # Where a SUT runs one chain only, its key is its plain name; both names find it.
    assert told(judge(summary, ask(RECOVERY + 'class = "finance"\nsut = "naive"'))) == [("finance", "fail")]


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ('sut = "minimla+optimized"', "did you mean 'minimal+optimized'?"),
        ('class = "research"', "no results of this class"),
        ('fault = "loop"', "n = 0"),
    ],
)
def test_a_missing_cell_is_inconclusive(make_result: MakeResult, ask: Ask, extra: str, why: str) -> None:
    decision = judge(measure(recovering(make_result, 9)), ask(RECOVERY + extra))
    assert decision.verdict == "inconclusive"
    assert why in decision.lines[0].why
    assert decision.lines[0].measured == "not measured"


def test_no_results_are_inconclusive(ask: Ask) -> None:
    assert judge(measure([]), ask(RECOVERY)).exit_code == 3


def test_a_fault_that_does_not_apply_decides_nothing(make_result: MakeResult, ask: Ask) -> None:
    missing = [("minimal+optimized", "finance/invoice_payment", "loop")]
    results = [*recovering(make_result, 9), make_result(workflow="data/dead_letter_replay", fault="loop")]
    decision = judge(measure(results, not_applicable=missing), ask(RECOVERY + 'fault = "loop"'))
    assert told(decision) == [("data", "pass"), ("finance", "not_applicable")]
    assert decision.verdict == "pass"


@pytest.mark.parametrize("injection", ["not_exposed", "invalid_injection", "baseline_failed"])
def test_a_fault_that_applied_and_was_never_witnessed_is_not_one_that_does_not_apply(
    make_result: MakeResult, ask: Ask, injection: str
) -> None:
    missing = [("minimal+optimized", "finance/customer_refund", "loop")]
    results = [*recovering(make_result, 9), make_result(fault="loop", injection=injection, verdict=None)]
    decision = judge(measure(results, not_applicable=missing), ask(RECOVERY + 'fault = "loop"'))
    assert told(decision) == [("finance", "inconclusive")]
    gap = measure(recovering(make_result, 9), not_applicable=missing, fault_gaps={"loop": "1 trials: root"})
    assert told(judge(gap, ask(RECOVERY + 'fault = "loop"'))) == [("finance", "inconclusive")]


def test_a_failed_baseline_leaves_recovery_open_but_not_completion(make_result: MakeResult, ask: Ask) -> None:
    results = [
        *recovering(make_result, 50),
        make_result(kind="baseline", workflow="finance/customer_refund", verdict="failed"),
    ]
    decision = judge(measure(results), ask(RECOVERY))
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why == "baseline failed: finance/customer_refund"
    assert judge(measure(results), ask('metric = "workflow_completion_rate"\nat_least = 0.9')).verdict == "fail"
    wrong = make_result(verdict="corrupted")
    assert judge(measure([*results, wrong]), ask('metric = "corruption_rate"\nmode = "zero"')).verdict == "fail"


def test_what_the_harness_could_not_judge_can_not_pass(make_result: MakeResult, ask: Ask) -> None:
    broken = [make_result(verdict="harness_error") for _ in range(3)]
    assert judge(measure(recovering(make_result, 40) + broken), ask(RECOVERY)).verdict == "inconclusive"
    assert judge(measure(recovering(make_result, 400) + broken), ask(RECOVERY)).verdict == "pass"


@pytest.mark.parametrize("fate", ["not_exposed", "invalid_injection", "harness_error"])
@pytest.mark.parametrize(
    ("struck", "missed", "verdict"),
    [
        (12, 0, "pass"),
        (11, 1, "pass"),
        (3, 1, "pass"),
        (15, 5, "pass"),
        (14, 6, "inconclusive"),
        (1, 39, "inconclusive"),
    ],
)
def test_a_fault_class_that_was_hardly_struck_can_not_pass(
    make_result: MakeResult, ask: Ask, fate: str, struck: int, missed: int, verdict: str
) -> None:
    unsaid = {"verdict": "harness_error"} if fate == "harness_error" else {"injection": fate, "verdict": None}
    loops = recovering(make_result, struck, fault="loop") + [make_result(fault="loop", **unsaid) for _ in range(missed)]
    # Many trials of another class do not make up for it.
    summary = measure(recovering(make_result, 2000) + loops)
    for extra in ("", 'fault = "loop"'):
        assert judge(summary, ask(RECOVERY + extra)).verdict == verdict
    assert judge(summary, ask(RECOVERY + 'fault = "worker_kill"')).verdict == "pass"
    assert judge(summary, ask('metric = "corruption_rate"\nmode = "zero"')).verdict == verdict


def test_how_much_may_go_without_a_witness_is_the_files_to_say(make_result: MakeResult, tmp_path: Path) -> None:
    summary = measure([*recovering(make_result, 9), make_result(injection="not_exposed", verdict=None)])
    path = tmp_path / "thresholds.toml"
    for allowed, verdict in ((0.1, "pass"), (0.09, "inconclusive")):
        path.write_text(f"unwitnessed_max = {allowed}\n[[lines]]\n{RECOVERY}")
        assert judge(summary, load_thresholds(path)).verdict == verdict


def test_what_was_not_struck_leaves_open_only_what_rests_on_faults(make_result: MakeResult, ask: Ask) -> None:
    results = [make_result(kind="clean") for _ in range(20)] + recovering(make_result, 20)
    results += [make_result(fault="loop", injection="not_exposed", verdict=None) for _ in range(5)]
    summary = measure(results)
    assert judge(summary, ask('metric = "workflow_completion_rate"\nat_least = 0.9')).verdict == "pass"
    assert judge(summary, ask('metric = "machine_cost_usd"\nat_most = 9')).verdict == "pass"
    for metric in ("workflow_completion_rate_under_faults", "unattended_recovery_rate", "resumed_exactly"):
        assert judge(summary, ask(f'metric = "{metric}"\nat_least = 0.9')).verdict == "inconclusive"


def test_a_fault_class_without_one_witness_leaves_the_whole_class_open(make_result: MakeResult, ask: Ask) -> None:
    storm = make_result(fault="retry_storm", injection="invalid_injection", verdict=None)
    elsewhere = recovering(make_result, 20, workflow="data/dead_letter_replay")
    decision = judge(measure([*recovering(make_result, 20), storm, *elsewhere]), ask(RECOVERY))
    assert told(decision) == [("data", "pass"), ("finance", "inconclusive")]
    assert decision.lines[1].why == "n = 0 for retry_storm, of 1 trials"


def test_a_fault_class_that_could_not_be_run_leaves_recovery_open(make_result: MakeResult, ask: Ask) -> None:
    summary = measure(recovering(make_result, 20), fault_gaps={"power_loss": "3 trials: needs root"})
    decision = judge(summary, ask(RECOVERY))
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why == "power_loss was not run whole here: 3 trials: needs root"
    assert judge(summary, ask(RECOVERY + 'fault = "worker_kill"')).verdict == "pass"
    assert judge(summary, ask('metric = "corruption_rate"\nmode = "zero"')).verdict == "pass"


def test_an_earlier_summary_is_judged_by_what_it_says_of_all_faults(make_result: MakeResult, ask: Ask) -> None:
    missed = [make_result(injection="not_exposed", verdict=None) for _ in range(20)]
    for results, verdict in (
        (recovering(make_result, 20), "pass"),
        ([*recovering(make_result, 20), *missed], "inconclusive"),
    ):
        summary = measure(results, not_applicable=[("minimal+optimized", "finance/customer_refund", "loop")])
        for name in ("exposure", "exposure_timing", "fault_gaps"):
            del summary["suts"]["minimal"]["classes"]["finance"][name]
        assert judge(summary, ask(RECOVERY)).verdict == verdict
        assert told(judge(summary, ask(RECOVERY + 'fault = "loop"'))) == [("finance", "inconclusive")]


def test_a_storm_that_was_not_witnessed_is_no_matter_of_other_faults(make_result: MakeResult, ask: Ask) -> None:
    storm = Storm(50, 2.0, 9.0, 1.0, within_bounds=True)
    results = [make_result(fault="retry_storm", storm=storm), make_result(injection="not_exposed", verdict=None)]
    line = 'metric = "storms.outage_calls_per_workflow_max"\nat_most = 3'
    assert judge(measure(results), ask(line)).verdict == "pass"
    results += [make_result(fault="retry_storm", injection="not_exposed", verdict=None)]
    assert judge(measure(results), ask(line)).verdict == "inconclusive"


def test_times_of_which_most_were_not_struck_are_open(make_result: MakeResult, ask: Ask) -> None:
    results = [make_result(kind="timing", times=Times(9.0, 0.5, 1.0, 2.0))]
    line = 'metric = "recovery_seconds.end.max"\nat_most = 5'
    assert judge(measure(results), ask(line)).verdict == "pass"
    results += [make_result(kind="timing", injection="not_exposed", verdict=None) for _ in range(3)]
    assert judge(measure(results), ask(line)).verdict == "inconclusive"


def test_an_interrupted_run_can_not_pass(make_result: MakeResult, ask: Ask) -> None:
    results = [*recovering(make_result, 9), make_result(injection="baseline_failed", verdict=None)]
    decision = judge(measure(results, planned=12), ask(RECOVERY.replace("0.9", "0.5")))
    assert (decision.lines[0].metric, decision.lines[0].measured) == ("trials", "10 run")
    assert decision.verdict == "inconclusive"
    # What a failed baseline kept from being run is not what was interrupted.
    assert [line.metric for line in judge(measure(results, planned=10), ask(RECOVERY)).lines] == ["fault_recovery_rate"]


def test_an_exhaustive_rate_needs_no_interval_and_no_n(make_result: MakeResult, ask: Ask) -> None:
    thresholds = ask('metric = "fault_recovery_rate"\nat_least = 0.99\nmode = "interval"\nmin_n = 100')
    summary = measure(recovering(make_result, 7), exhaustive={("worker_kill", "finance/invoice_payment")})
    assert judge(summary, thresholds).verdict == "pass"


def test_a_rate_of_a_suite_that_did_not_strike_everything_needs_both(make_result: MakeResult, ask: Ask) -> None:
    thresholds = ask('metric = "fault_recovery_rate"\nat_least = 0.99\nmode = "interval"\nmin_n = 4')
    results = [*recovering(make_result, 7), make_result(injection="not_exposed", verdict=None)]
    decision = judge(measure(results, exhaustive={("worker_kill", "finance/invoice_payment")}), thresholds)
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why == "the 95% interval spans the target"


@pytest.mark.parametrize(("covered", "verdict"), [(4, "pass"), (3, "fail")])
def test_coverage_can_be_gated(make_result: MakeResult, ask: Ask, covered: int, verdict: str) -> None:
    points = [f"tool:pay[{number}]#1@before" for number in range(4)]
    results = [make_result(points=(point,)) for point in points[:covered]]
    summary = measure(results, frame={("optimized", "finance/invoice_payment"): points})
    assert judge(summary, ask('metric = "coverage"\nat_least = 1.0')).verdict == verdict


def paired(make: MakeResult, dearer: list[float]) -> list[TrialResult]:
    """Clean pairs in which the naive chain costs so many times as much."""
    return [
        make(kind="clean", seed=seed, chain=chain, usage=Usage(tool_usd=cost))
        for seed, factor in enumerate(dearer)
        for chain, cost in (("optimized", 1.0), ("naive", factor))
    ]


@pytest.mark.parametrize(
    ("dearer", "extra", "verdict"),
    [
        ([2.0] * 10, "", "pass"),
        ([1.2] * 10, "", "fail"),
        ([2.0] * 10, "min_n = 11", "inconclusive"),
        ([2.0] * 10, 'mode = "interval"', "pass"),
        ([1.2] * 10, 'mode = "interval"', "fail"),
        ([1.0, 2.5] * 5, 'mode = "interval"', "inconclusive"),
        # Of so few pairs there is no interval, however dear one of them is.
        ([2.0] * 4, "", "pass"),
        ([2.0] * 4, 'mode = "interval"', "inconclusive"),
        ([1.2] * 4, 'mode = "interval"', "inconclusive"),
    ],
)
def test_cost_against_the_naive_chain(
    make_result: MakeResult, ask: Ask, dearer: list[float], extra: str, verdict: str
) -> None:
    line = f'metric = "cost_saving"\nagainst = "minimal+naive"\nat_least = 0.3\n{extra}'
    assert judge(measure(paired(make_result, dearer)), ask(line)).verdict == verdict


def test_a_cost_of_a_few_runs_is_no_matter_of_intervals(make_result: MakeResult, ask: Ask) -> None:
    line = 'metric = "machine_cost_usd"\nat_most = 5\nmode = "interval"'
    runs = [make_result(kind="clean", seed=seed, usage=Usage(tool_usd=1.0)) for seed in range(5)]
    decision = judge(measure(runs[:4]), ask(line))
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why == "no interval of fewer than 5 runs or pairs"
    assert judge(measure(runs), ask(line)).verdict == "pass"
    relative = ask('metric = "machine_cost_usd"\ncheaper_by = 0.1\nmode = "interval"')
    assert judge(measure(runs[:4]), relative, measure(runs)).verdict == "inconclusive"


def test_a_saving_without_the_other_side_is_inconclusive(make_result: MakeResult, ask: Ask) -> None:
    results = [make_result(kind="clean", usage=Usage(tool_usd=1.0))]
    line = 'metric = "cost_saving"\nagainst = "naive+naive"\nat_least = 0.3'
    decision = judge(measure(results), ask(line))
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why == "no trials in common, or no success on one side"


def test_times_that_never_came_fail_and_are_told(make_result: MakeResult, ask: Ask) -> None:
    results = [make_result(kind="timing", times=Times(9.0, 0.5, 1.0, end)) for end in (1.0, 2.0)]
    thresholds = ask('metric = "recovery_seconds.end.max"\nat_most = 5')
    decision = judge(measure(results), thresholds)
    assert decision.verdict == "pass"
    assert decision.lines[0].measured == "2.00 s (2 of 2 got there)"
    lost = make_result(kind="timing", times=Times(90.0), verdict="lost")
    decision = judge(measure([*results, lost]), thresholds)
    assert decision.verdict == "fail"
    assert decision.lines[0].measured == "never (2 of 3 got there)"


@pytest.mark.parametrize(
    ("before", "now", "extra", "verdict"),
    [
        ((9, 1), (9, 1), "no_worse_by = 0", "pass"),
        ((9, 1), (8, 2), "no_worse_by = 0", "fail"),
        ((9, 1), (8, 2), "no_worse_by = 0.1", "pass"),
        ((9, 1), (8, 2), "no_worse_by = 0.1\nmin_n = 11", "inconclusive"),
        # Clearly better, clearly worse, unclear.
        ((20, 20), (40, 0), 'no_worse_by = 0\nmode = "interval"', "pass"),
        ((40, 0), (20, 20), 'no_worse_by = 0\nmode = "interval"', "fail"),
        ((9, 1), (9, 1), 'no_worse_by = 0.01\nmode = "interval"', "inconclusive"),
    ],
)
def test_no_worse_than_a_baseline(
    make_result: MakeResult, ask: Ask, before: tuple[int, int], now: tuple[int, int], extra: str, verdict: str
) -> None:
    earlier, later = (measure(recovering(make_result, *counts)) for counts in (before, now))
    decision = judge(later, ask(f'metric = "fault_recovery_rate"\n{extra}'), earlier)
    assert decision.verdict == verdict
    if verdict != "inconclusive":
        assert decision.lines[0].why.startswith("baseline ")


def test_the_distance_of_two_rates_is_newcombes() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table II (a), method 10: 56/70 and 48/80 differ by 0.0524 to
    # 0.3339, when the interval of each rate is Wilson's.
    rates = [(56, 70), (48, 80)]
    wilson = [binomtest(k, n).proportion_ci(method="wilson") for k, n in rates]
    here, there = (Reading(k / n, n, "", i.low, i.high) for (k, n), i in zip(rates, wilson, strict=True))
    assert _difference(here, there, "higher") == pytest.approx((0.0524, 0.2, 0.3339), abs=5e-5)
    assert _difference(here, there, "lower") == pytest.approx((-0.3339, -0.2, -0.0524), abs=5e-5)


def test_no_worse_is_turned_round_where_less_is_better(make_result: MakeResult, ask: Ask) -> None:
    def run(failed: int) -> dict[str, Any]:
        verdicts = ["failed"] * failed + ["correct"] * (10 - failed)
        return measure([make_result(kind="clean", verdict=verdict) for verdict in verdicts])

    thresholds = ask('metric = "unplanned_repair_rate"\nno_worse_by = 0.05')
    assert judge(run(1), thresholds, run(2)).verdict == "pass"
    assert judge(run(2), thresholds, run(1)).verdict == "fail"


@pytest.mark.parametrize(
    ("now", "extra", "verdict"),
    [
        (0.8, "cheaper_by = 0.2", "pass"),
        (0.81, "cheaper_by = 0.2", "fail"),
        (1.04, "no_worse_by = 0.05", "pass"),
        (1.06, "no_worse_by = 0.05", "fail"),
        (0.7, 'cheaper_by = 0.2\nmode = "interval"', "pass"),
        (0.9, 'cheaper_by = 0.2\nmode = "interval"', "fail"),
    ],
)
def test_cheaper_than_a_baseline(make_result: MakeResult, ask: Ask, now: float, extra: str, verdict: str) -> None:
    def run(cost: float) -> dict[str, Any]:
        return measure([make_result(kind="clean", usage=Usage(tool_usd=cost)) for _ in range(10)])

    assert judge(run(now), ask(f'metric = "machine_cost_usd"\n{extra}'), run(1.0)).verdict == verdict


def test_a_relative_line_says_what_it_lacks(make_result: MakeResult, ask: Ask) -> None:
    thresholds = ask('metric = "fault_recovery_rate"\nno_worse_by = 0')
    summary = measure(recovering(make_result, 9), suite="standard 1")
    assert judge(summary, thresholds).lines[0].why == "this line needs --baseline"
    other = measure(recovering(make_result, 9), suite="smoke 1")
    assert "of suite 'smoke 1'" in judge(summary, thresholds, other).lines[0].why
    empty = measure([make_result(kind="clean")], suite="standard 1")
    decision = judge(summary, thresholds, empty)
    assert decision.verdict == "inconclusive"
    assert decision.lines[0].why.startswith("in the baseline: n = 0")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('metric = "fault_recovery_rates"\nat_least = 1', "did you mean 'fault_recovery_rate'?"),
        ('metric = "fault_recovery_rate"\nat_least = 1\nmode = "intervall"', "did you mean 'interval'?"),
        ('metric = "fault_recovery_rate"\nat_least = 1\nfault = "worker_kil"', "did you mean 'worker_kill'?"),
        ('metric = "fault_recovery_rate"\nat_last = 1', "did you mean 'at_least'?"),
        ('metric = "fault_recovery_rate"', "exactly one of"),
        ('metric = "fault_recovery_rate"\nat_least = 1\nbelow = 1', "found at_least, below"),
        ('metric = "fault_recovery_rate"\nat_least = "1%"', "at_least"),
        ('metric = "fault_recovery_rate"\nat_least = 1\nmode = "zero"', "leave this key out"),
        ('metric = "machine_cost_usd"\nmode = "zero"', "'zero' goes with a rate"),
        ('metric = "recovery_seconds.end.p95"\nat_most = 9\nmode = "interval"', "has no interval"),
        ('metric = "pass_k"\nat_least = 1\nfault = "loop"', "told apart by fault"),
        ('metric = "pass_k"\nat_least = 1\nif_present = true', "goes with a class"),
        ('metric = "cost_saving"\nat_least = 0.3', "sut+chain to compare with"),
        ('metric = "pass_k"\nat_least = 1\nagainst = "naive"', "only a cost_saving has it"),
        ('metric = "fault_recovery_rate"\ncheaper_by = 0.1', "goes with a cost"),
        ('metric = "cost_saving"\nagainst = "naive"\nno_worse_by = 0', "relative already"),
        ('metric = "fault_recovery_rate"\nat_least = 1\nmin_n = 0', "min_n"),
        ("metric = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(ask: Ask, tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(FileProblem) as caught:
        ask(line)
    assert found in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_class_is_named_with_the_nearest(make_result: MakeResult, ask: Ask) -> None:
    with pytest.raises(FileProblem, match="did you mean 'finance'"):
        judge(measure([make_result()]), ask(RECOVERY + 'class = "finanse"'))


@pytest.mark.parametrize(("present", "verdicts"), [("true", []), ("false", [("data", "inconclusive")])])
def test_a_class_that_a_run_does_not_have_leaves_the_gate_open_unless_the_line_says_so(
    make_result: MakeResult, ask: Ask, present: str, verdicts: list[tuple[str, str]]
) -> None:
    results = recovering(make_result, 3)
    assert told(judge(measure(results), ask(f'{RECOVERY}class = "data"\nif_present = {present}'))) == verdicts


def test_a_class_of_ones_own_is_known_from_its_results(make_result: MakeResult, ask: Ask) -> None:
    results = recovering(make_result, 3, workflow="plumbing/leak")
    assert told(judge(measure(results), ask(RECOVERY + 'class = "plumbing"'))) == [("plumbing", "pass")]


def test_the_default_targets(make_result: MakeResult) -> None:
    good = Measures(
        selection_reached=Count(4, 4),
        arguments_reached=Count(9, 9),
        trajectory_in_order=Count(1, 1),
        unsafe_reached=Count(0, 2),
    )
    chains = (("minimal", "optimized", 1.0), ("minimal", "naive", 2.0), ("naive", "naive", 2.0))
    results = [
        make_result(kind="clean", sut=sut, chain=chain, seed=seed, measures=good, usage=Usage(tool_usd=cost))
        for sut, chain, cost in chains
        for seed in range(20)
    ]
    results += [
        make_result(sut=sut, chain=chain, points=(f"tool:pay[{n}]#1@before",), usage=Usage(tool_usd=cost))
        for sut, chain, cost in chains
        for n in range(25)
    ]
    decision = judge(measure(results), load_thresholds())
    assert [line.verdict for line in decision.lines] == ["pass"] * len(decision.lines)
    assert {line.metric for line in decision.lines} == {
        "workflow_completion_rate",
        "fault_recovery_rate",
        "tool_selection_accuracy_reached",
        "tool_parameter_accuracy_reached",
        "trajectory_match_rate",
        "unsafe_action_rate",
        "corruption_rate",
        "cost_saving",
        "cost_saving_under_faults",
        "unplanned_repair_rate",
    }
    assert json.loads(json.dumps(decision.to_json()))["exit_code"] == 0
    assert str(decision).splitlines()[-1] == "gate: pass"


@pytest.mark.parametrize(
    ("workflow", "wrong", "arguments", "fails"),
    [
        ("support/lost_parcel", 0, 98, []),
        ("support/lost_parcel", 1, 98, ["unplanned_repair_rate < 5%", "workflow_completion_rate ≥ 98%"]),
        ("support/lost_parcel", 0, 97, ["tool_parameter_accuracy_reached ≥ 98%"]),
        ("finance/expense_batch", 1, 99, []),
        ("finance/expense_batch", 0, 98, ["tool_parameter_accuracy_reached ≥ 99%"]),
        ("research/literature_review", 1, 95, []),
    ],
)
def test_the_default_targets_ask_more_where_a_customer_waits_or_money_moves(
    make_result: MakeResult, workflow: str, wrong: int, arguments: int, fails: list[str]
) -> None:
    filled_in = Measures(arguments_reached=Count(arguments, 100))
    verdicts = ["lost"] * wrong + ["correct"] * (20 - wrong)
    results = [
        make_result(kind="clean", workflow=workflow, seed=seed, verdict=verdict, measures=filled_in)
        for seed, verdict in enumerate(verdicts)
    ]
    lines = judge(measure(results), load_thresholds()).lines
    assert sorted(f"{line.metric} {line.target}" for line in lines if line.verdict == "fail") == fails


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_can_be_read(make_result: MakeResult, ask: Ask, name: str) -> None:
    against = 'against = "minimal+naive"\n' if METRICS[name].kind == "saving" else ""
    results = [make_result(), make_result(kind="clean"), make_result(kind="timing")]
    decision = judge(measure(results), ask(f'metric = "{name}"\n{against}at_least = 0'))
    assert decision.verdict in {"pass", "inconclusive"}
