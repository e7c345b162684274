from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kintsugi.harness.comparisons import comparisons, two_by_two
from kintsugi.harness.cost import repairs, sensitivity, spent
from kintsugi.harness.metrics import measure
from kintsugi.harness.prices import load_prices
from kintsugi.harness.records import Halt, Human, Storm, TrialResult, Usage

MakeResult = Callable[..., TrialResult]
ROUND = load_prices(Path(__file__).with_name("round_prices.toml"))


def usd(amount: float) -> Usage:
    """A usage that costs so much."""
    return Usage(tool_usd=amount)


def costs_of(results: list[TrialResult], suffix: str = "") -> dict[str, Any]:
    (block,) = measure(results, prices=ROUND)["suts"].values()
    found: dict[str, Any] = block["classes"]["finance"][f"cost_per_successful_workflow_usd{suffix}"]
    return found


def test_each_part_by_hand(make_result: MakeResult) -> None:
    usage = Usage(
        prompt_tokens=2_000_000,
        cached_prompt_tokens=400_000,
        completion_tokens=50_000,
        tool_usd=0.25,
        cpu_seconds=0.125,
    )
    halts = (Halt("in_doubt", "tell", justified=True, why=""),)
    result = make_result(
        verdict="corrupted", usage=usage, human=Human(halts=halts), review_minutes=2.0, repair_minutes=15.0
    )
    found = spent(result, ROUND)
    # 1.6 M at 1 + 0.4 M at 0.5 + 0.05 M at 10; and two repairs, for the halt and for the corruption.
    assert found.model == pytest.approx(1.6 + 0.2 + 0.5)
    assert (found.tool, found.compute) == pytest.approx((0.25, 0.125))
    assert (found.review, found.repair) == pytest.approx((2.0, 30.0))
    assert found.machine == pytest.approx(2.675)
    assert found.all_in == pytest.approx(34.675)


@pytest.mark.parametrize(
    ("verdict", "halts", "expected"),
    [("correct", 0, 0), ("correct_halt", 1, 1), ("needless_halt", 2, 2), ("failed", 0, 1), ("lost", 1, 2)],
)
def test_what_a_person_mends(make_result: MakeResult, verdict: str, halts: int, expected: int) -> None:
    halt = Halt("verify", "pay", justified=False, why="")
    assert repairs(make_result(verdict=verdict, human=Human(halts=(halt,) * halts))) == expected


def test_a_storm_is_charged_as_its_average_workflow(make_result: MakeResult) -> None:
    storm = Storm(50, 3.0, 90.0, 1.0, within_bounds=True)
    result = make_result(usage=Usage(tool_usd=5.0, cpu_seconds=10.0), storm=storm, review_minutes=100.0)
    found = spent(result, ROUND)
    assert [found.tool, found.compute, found.review] == pytest.approx([0.1, 0.2, 2.0])
    copies = make_result(usage=Usage(tool_usd=5.0), trial={"copies": 50})
    assert spent(copies, ROUND).tool == pytest.approx(0.1)


def test_a_failure_makes_the_successes_dearer(make_result: MakeResult) -> None:
    results = [
        make_result(kind="baseline", usage=usd(1.0)),
        make_result(kind="clean", usage=usd(1.0)),
        make_result(kind="clean", usage=usd(2.0)),
        make_result(kind="clean", usage=usd(3.0), verdict="failed", repair_minutes=10.0),
    ]
    found = costs_of(results)
    assert (found["successes"], found["trials"]) == (2, 3)
    assert found["machine"] == pytest.approx(6.0 / 2)
    assert found["repair"] == pytest.approx(10.0 / 2)
    assert found["all_in"] == pytest.approx(8.0)
    # Beyond two clean baselines of 1: 0 + 1 in the successes, 3 in the failure.
    assert found["waste"] == pytest.approx(4.0 / 2)
    assert found["machine_ci95"] is None, "three runs are too few to say how sure that is"


def test_a_cost_has_an_interval_from_five_runs_and_no_upper_end_where_success_is_not_sure(
    make_result: MakeResult,
) -> None:
    good = [make_result(kind="clean", usage=usd(1.0))]
    lost = [make_result(kind="clean", usage=usd(3.0), verdict="failed") for _ in range(3)]
    assert costs_of(good + lost)["machine_ci95"] is None
    found = costs_of([*good, *lost, make_result(kind="clean", usage=usd(1.0))])
    low, high = found["machine_ci95"]
    assert low <= found["machine"] == pytest.approx(11.0 / 2)
    assert high is None, "a draw of the failures alone has no success"


def test_waste_is_against_the_same_workflows_baseline(make_result: MakeResult) -> None:
    refund = "finance/customer_refund"
    results = [
        make_result(kind="baseline", usage=usd(1.0)),
        make_result(kind="baseline", usage=usd(10.0), workflow=refund),
        make_result(usage=usd(1.5)),
        make_result(usage=usd(10.5), workflow=refund, verdict="correct_halt"),
    ]
    found = costs_of(results, "_under_faults")
    assert found["machine"] == pytest.approx(6.0)
    assert found["waste"] == pytest.approx(0.5)


def test_waste_is_unknown_without_a_baseline(make_result: MakeResult) -> None:
    assert costs_of([make_result(usage=usd(1.0))], "_under_faults")["waste"] is None


def test_no_success_no_figure(make_result: MakeResult) -> None:
    found = costs_of([make_result(kind="clean", usage=usd(1.0), verdict="lost")])
    assert (found["successes"], found["trials"]) == (0, 1)
    assert {found[name] for name in found if name not in {"successes", "trials"}} == {None}


def test_clean_and_struck_costs_stay_apart(make_result: MakeResult) -> None:
    results = [
        make_result(kind="clean", usage=usd(1.0)),
        make_result(usage=usd(2.0)),
        make_result(usage=usd(50.0), injection="not_exposed", verdict=None),
        make_result(kind="timing", usage=usd(50.0)),
    ]
    assert costs_of(results)["machine"] == pytest.approx(1.0)
    assert costs_of(results, "_under_faults")["machine"] == pytest.approx(2.0)


def test_the_all_in_cost_moves_with_minutes_and_rates(make_result: MakeResult) -> None:
    results = [
        make_result(usage=usd(1.0), review_minutes=2.0),
        make_result(usage=usd(1.0), review_minutes=2.0, verdict="lost", repair_minutes=10.0),
    ]
    table = {
        (row["repair_minutes_factor"], row["human_usd_per_hour"]): row["all_in"] for row in sensitivity(results, ROUND)
    }
    assert table[1.0, 60.0] == pytest.approx(2 + 4 + 10)
    assert table[2.0, 60.0] == pytest.approx(2 + 4 + 20)
    assert table[0.5, 120.0] == pytest.approx(2 + 2 * (4 + 5))
    assert len(table) == 9
    assert sensitivity([make_result(verdict="lost")], ROUND) == []


def test_chains_are_compared_on_the_same_trials(make_result: MakeResult) -> None:
    shared, own = ("tool:pay[0]#1@before",), ("model:judge[0]#1@during",)
    unmatched = ("tool:pay[0]#1@committed",)
    results = [
        make_result(usage=usd(1.0), points=shared),
        make_result(usage=usd(4.0), points=shared, chain="naive"),
        # Not compared: the model's own points, what one side did not run, what one side did not witness.
        make_result(usage=usd(70.0), points=own),
        make_result(usage=usd(70.0), points=own, chain="naive"),
        make_result(usage=usd(70.0), points=unmatched),
        make_result(usage=usd(70.0), points=shared, form="other"),
        make_result(usage=usd(70.0), points=shared, form="other", chain="naive", injection="not_exposed", verdict=None),
    ]
    (row,) = comparisons(results, ROUND)
    assert (row["class"], row["condition"], row["differs"]) == ("finance", "under_faults", "chain")
    assert (row["sut"], row["against"], row["pairs"]) == ("minimal+optimized", "minimal+naive", 1)
    assert (row["machine"], row["machine_against"]) == (1.0, 4.0)
    assert (row["ratio"], row["saving"], row["ci95"]) == (0.25, 0.75, None)


def test_clean_trials_are_paired_by_seed(make_result: MakeResult) -> None:
    results = [
        make_result(kind="clean", chain=chain, seed=seed, usage=usd(cost))
        for chain, seed, cost in [
            ("optimized", 1, 1.0),
            ("optimized", 2, 1.0),
            ("naive", 2, 2.0),
            ("naive", 3, 9.0),
        ]
    ]
    (row,) = comparisons(results, ROUND)
    assert (row["condition"], row["pairs"], row["ratio"]) == ("clean", 1, 0.5)


def test_what_differs_is_said_and_a_runtime_never_credited_with_a_chain(make_result: MakeResult) -> None:
    keys = [
        ("minimal", "optimized"),
        ("minimal", "naive"),
        ("naive", "optimized"),
        ("naive", "naive"),
        ("own", "own"),
    ]
    results = [make_result(kind="clean", sut=sut, chain=chain, seed=1, usage=usd(1.0)) for sut, chain in keys]
    told = {(row["sut"], row["against"]): row["differs"] for row in comparisons(results, ROUND)}
    assert told == {
        ("minimal+optimized", "minimal+naive"): "chain",
        ("naive+optimized", "naive+naive"): "chain",
        ("minimal+optimized", "naive+optimized"): "runtime",
        ("minimal+naive", "naive+naive"): "runtime",
        ("minimal+optimized", "naive+naive"): "both",
        ("own+own", "naive+naive"): "both",
    }


def test_without_a_success_on_either_side_there_is_no_ratio(make_result: MakeResult) -> None:
    results = [
        make_result(kind="clean", seed=1, usage=usd(1.0)),
        make_result(kind="clean", seed=1, usage=usd(1.0), chain="naive", verdict="lost"),
    ]
    (row,) = comparisons(results, ROUND)
    assert (row["ratio"], row["saving"], row["ci95"], row["machine_against"]) == (None, None, None, None)
    assert row["machine"] == 1.0


def test_a_free_way_of_working_has_nothing_to_compare(make_result: MakeResult) -> None:
    results = [make_result(kind="clean", seed=1, chain=chain) for chain in ("optimized", "naive")]
    (row,) = comparisons(results, ROUND)
    assert (row["pairs"], row["ratio"]) == (1, None)


def test_two_by_two_is_on_what_all_four_share(make_result: MakeResult) -> None:
    prices = {
        ("minimal", "optimized"): 1.0,
        ("minimal", "naive"): 2.0,
        ("naive", "optimized"): 3.0,
        ("naive", "naive"): 4.0,
    }
    results = [
        make_result(kind="clean", sut=sut, chain=chain, seed=seed, usage=usd(cost))
        for (sut, chain), cost in prices.items()
        for seed in (1, 2)
        if (sut, chain, seed) != ("naive", "naive", 2)
    ]
    (table,) = two_by_two(results, ROUND)
    assert (table["sut"], table["against"], table["condition"], table["pairs"]) == (
        "minimal",
        "naive",
        "clean",
        1,
    )
    assert {key: cell["machine"] for key, cell in table["cells"].items()} == {"+".join(k): v for k, v in prices.items()}
    assert two_by_two(results[:-1], ROUND) == []
