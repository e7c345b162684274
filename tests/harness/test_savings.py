"""Where a difference in cost comes from: the parts are the whole, and each is what its name says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.harness.comparisons import comparisons, two_by_two
from kintsugi.harness.cost import spent
from kintsugi.harness.prices import load_prices
from kintsugi.harness.rates import completed
from kintsugi.harness.records import Halt, Human, TrialResult, Usage
from kintsugi.harness.savings import MACHINE_PARTS, PEOPLE_PARTS, clean_work, saved_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MakeResult = Callable[..., TrialResult]
ROUND = load_prices(Path(__file__).with_name("round_prices.toml"))
MILLION = 1_000_000
REFUND = "finance/customer_refund"


def used(calls: int, tokens: int, tool: float = 0.0, cpu: float = 0.0) -> Usage:
    """A usage of so many calls and dollars: `tokens` in millions."""
    return Usage(model_calls=calls, prompt_tokens=tokens * MILLION, tool_usd=tool, cpu_seconds=cpu)


def split(first: Sequence[TrialResult], second: Sequence[TrialResult]) -> dict[str, float]:
    """What the fault trials of the one save against those of the other, by hand's prices."""
    clean = clean_work([*first, *second], ROUND)
    struck = [[result for result in side if result.kind == "fault"] for side in (first, second)]
    found = saved_by(struck[0], struck[1], clean, ROUND)
    assert found is not None
    return found


def only(found: Mapping[str, float], **parts: float) -> None:
    """Every part is as given, and none where it is not."""
    assert found == pytest.approx({**dict.fromkeys([*MACHINE_PARTS, *PEOPLE_PARTS], 0.0), **parts})


# --- each part ----------------------------------------------------------------------------------------------


def test_an_example_by_hand(make_result: MakeResult) -> None:
    """2 calls of $3 against 6 of $5; tools $1 against $2; a CPU second each.

    Under faults both do a call more once; and one of two trials of the naive chain fails, having cost $10.
    """
    lean, rich = {"chain": "optimized"}, {"chain": "naive"}
    first = [
        make_result(kind="baseline", usage=used(2, 6, 1.0, 1.0), **lean),
        make_result(usage=used(2, 6, 1.0, 1.0), **lean),
        make_result(usage=used(3, 9, 1.0, 1.0), **lean),
    ]
    second = [
        make_result(kind="baseline", usage=used(6, 30, 2.0, 1.0), **rich),
        make_result(usage=used(7, 35, 2.0, 1.0), **rich),
        make_result(usage=used(1, 7, 2.0, 1.0), verdict="lost", repair_minutes=4.0, **rich),
    ]
    found = split(first, second)
    # Model: 6 calls × $5 - 2 × $3 = $24, of it (5 - 3) × 4 by context and (6 - 2) × 4 by calls.
    # Again: $5 in the success against $3 in two. Failures: $10 that only one success carries.
    only(
        found,
        less_context=8.0,
        fewer_calls=16.0,
        tools=1.0,
        less_repeated=5.0 - 3.0 / 2,
        fewer_failures=10.0,
        fewer_repairs=4.0,
    )
    machine = (38.0 + 10.0) - (8.0 + 11.0) / 2
    assert sum(found[name] for name in MACHINE_PARTS) == pytest.approx(machine)


def test_only_the_context_differs(make_result: MakeResult) -> None:
    sides = [
        [make_result(kind=kind, chain=chain, usage=used(4, tokens)) for kind in ("baseline", "fault")]
        for chain, tokens in (("optimized", 4), ("naive", 12))
    ]
    only(split(*sides), less_context=8.0)


def test_only_the_number_of_calls_differs(make_result: MakeResult) -> None:
    sides = [
        [make_result(kind=kind, chain=chain, usage=used(calls, 2 * calls)) for kind in ("baseline", "fault")]
        for chain, calls in (("optimized", 1), ("naive", 5))
    ]
    only(split(*sides), fewer_calls=8.0)


def test_a_side_that_asks_no_model_saves_calls_and_no_context(make_result: MakeResult) -> None:
    sides = [
        [make_result(kind=kind, chain=chain, usage=used(calls, 2 * calls)) for kind in ("baseline", "fault")]
        for chain, calls in (("optimized", 0), ("naive", 5))
    ]
    only(split(*sides), fewer_calls=10.0)
    only(split(*reversed(sides)), fewer_calls=-10.0)


def test_what_is_done_again_is_held_against_the_same_workflows_clean_run(make_result: MakeResult) -> None:
    def side(sut: str, again: float) -> list[TrialResult]:
        return [
            make_result(kind="baseline", sut=sut, usage=used(1, 1, cpu=1.0)),
            make_result(kind="baseline", sut=sut, workflow=REFUND, usage=used(1, 1, cpu=9.0)),
            make_result(sut=sut, usage=used(1, 1, cpu=1.0)),
            make_result(sut=sut, workflow=REFUND, usage=used(1, 1, cpu=9.0 + again)),
        ]

    only(split(side("minimal", 1.0), side("naive", 5.0)), less_repeated=2.0)


def test_that_the_dear_workflows_fail_is_no_other_way_of_working(make_result: MakeResult) -> None:
    """All that differs is that one side loses the dear workflow: no part but the failures' moves."""

    def side(sut: str, verdict: str) -> list[TrialResult]:
        return [
            make_result(kind="baseline", sut=sut, usage=used(1, 1)),
            make_result(kind="baseline", sut=sut, workflow=REFUND, usage=used(10, 90)),
            make_result(sut=sut, usage=used(1, 1)),
            make_result(sut=sut, workflow=REFUND, usage=used(10, 90), verdict=verdict),
        ]

    only(split(side("minimal", "correct"), side("naive", "failed")), fewer_failures=91.0 - 45.5)


def test_people_are_apart_from_the_machine(make_result: MakeResult) -> None:
    halts = (Halt("in_doubt", "tell", justified=True, why=""),)

    def side(sut: str, minutes: float, stops: tuple[Halt, ...]) -> list[TrialResult]:
        human = Human(halts=stops)
        struck = make_result(sut=sut, usage=used(1, 1), review_minutes=minutes, repair_minutes=5.0, human=human)
        return [make_result(kind="baseline", sut=sut, usage=used(1, 1)), struck]

    only(split(side("minimal", 2.0, ()), side("naive", 3.0, halts)), fewer_reviews=1.0, fewer_repairs=5.0)


def test_a_storm_is_held_against_one_clean_workflow(make_result: MakeResult) -> None:
    alone = make_result(kind="baseline", usage=used(2, 6))
    storm = make_result(usage=used(100, 300), trial={"copies": 50})
    (work,) = clean_work([alone], ROUND).values()
    assert (work.calls, work.machine) == pytest.approx((2, 6))
    found = saved_by([storm], [storm], {(alone.key, alone.workflow): work}, ROUND)
    assert found is not None
    only(found)


# --- the whole ----------------------------------------------------------------------------------------------

USAGES = st.builds(
    Usage,
    model_calls=st.integers(0, 30),
    prompt_tokens=st.integers(0, 3 * MILLION),
    completion_tokens=st.integers(0, MILLION),
    cached_prompt_tokens=st.integers(0, MILLION),
    tool_usd=st.floats(0, 5),
    cpu_seconds=st.floats(0, 50),
)
ENDINGS = st.tuples(
    USAGES,
    st.sampled_from(["correct", "correct", "correct_halt", "needless_halt", "failed", "lost", "corrupted"]),
    st.floats(0, 10),
)
WORKFLOWS = ("finance/invoice_payment", REFUND)
TRIALS = st.lists(st.tuples(st.sampled_from(WORKFLOWS), ENDINGS, ENDINGS), min_size=1, max_size=8)
KEYS = {"first": ("minimal", "optimized"), "second": ("naive", "naive")}
slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def made(make_result: MakeResult, who: str, workflow: str, ending: Any, kind: str = "fault", n: int = 0) -> TrialResult:
    (sut, chain), (usage, verdict, minutes) = KEYS[who], ending
    calls = {"review_minutes": minutes, "repair_minutes": 10 - minutes}
    points = (f"tool:pay[{n}]#1@before",) if kind == "fault" else ()
    plain = make_result(kind=kind, sut=sut, chain=chain, workflow=workflow, usage=usage, verdict=verdict, **calls)
    return replace(plain, points=points)


@slow
@given(trials=TRIALS, clean=st.tuples(USAGES, USAGES, USAGES, USAGES))
def test_the_parts_are_the_whole(
    make_result: MakeResult, trials: list[tuple[str, Any, Any]], clean: tuple[Usage, ...]
) -> None:
    sides = [
        [made(make_result, who, workflow, ending[side], n=n) for n, (workflow, *ending) in enumerate(trials)]
        for side, who in enumerate(KEYS)
    ]
    cells = [(who, workflow) for who in KEYS for workflow in WORKFLOWS]
    runs = [
        made(make_result, *cell, (usage, "correct", 0.0), "baseline") for cell, usage in zip(cells, clean, strict=True)
    ]
    found = saved_by(sides[0], sides[1], clean_work(runs, ROUND), ROUND)
    good = [sum(map(completed, side)) for side in sides]
    if not all(good):
        assert found is None
        return
    assert found is not None
    for cost, parts in (("machine", MACHINE_PARTS), ("all_in", MACHINE_PARTS + PEOPLE_PARTS)):
        here, there = (
            sum(getattr(spent(r, ROUND), cost) for r in side) / n for side, n in zip(sides, good, strict=True)
        )
        assert sum(found[part] for part in parts) == pytest.approx(there - here, rel=1e-9, abs=1e-7)
    assert set(found) == {*MACHINE_PARTS, *PEOPLE_PARTS}


@slow
@given(trials=TRIALS, clean=st.tuples(USAGES, USAGES))
def test_sides_exchanged_give_the_same_with_the_other_sign_and_equal_ones_nothing(
    make_result: MakeResult, trials: list[tuple[str, Any, Any]], clean: tuple[Usage, Usage]
) -> None:
    one, other = (
        [made(make_result, who, workflow, ending[side], n=n) for n, (workflow, *ending) in enumerate(trials)]
        for side, who in enumerate(KEYS)
    )
    runs = zip(KEYS, clean, strict=True)
    bases = [made(make_result, who, w, (usage, "correct", 0.0), "baseline") for who, usage in runs for w in WORKFLOWS]
    known = clean_work(bases, ROUND)
    there, back = saved_by(one, other, known, ROUND), saved_by(other, one, known, ROUND)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert {name: -part for name, part in back.items()} == pytest.approx(there, abs=1e-9)
        same = saved_by(one, one, known, ROUND)
        assert same is not None
        assert set(same.values()) == {0.0}


def test_without_a_clean_run_on_either_side_nothing_is_split(make_result: MakeResult) -> None:
    shared = ("tool:pay[0]#1@before",)
    results = [make_result(chain=chain, points=shared, usage=used(1, 2)) for chain in ("optimized", "naive")]
    (row,) = comparisons([*results, make_result(kind="baseline", usage=used(1, 1))], ROUND)
    assert row["saved_by"] is None
    assert row["saved_machine_usd"] == 0.0


def test_a_baseline_that_failed_is_no_clean_run(make_result: MakeResult) -> None:
    assert clean_work([make_result(kind="baseline", verdict="failed"), make_result()], ROUND) == {}


# --- shown beside the 2 × 2 ---------------------------------------------------------------------------------


def test_the_square_compares_along_across_and_down_on_the_trials_of_all_four(make_result: MakeResult) -> None:
    prices = {("minimal", "optimized"): 1.0, ("minimal", "naive"): 2.0, ("naive", "optimized"): 3.0}
    prices[("naive", "naive")] = 4.0
    results = [
        make_result(kind=kind, sut=sut, chain=chain, seed=seed, usage=Usage(tool_usd=cost * seed))
        for (sut, chain), cost in prices.items()
        for kind, seed in (("baseline", 1), *(("clean", seed) for seed in range(1, 7)))
        if (sut, chain, seed) != ("naive", "naive", 6)
    ]
    (square,) = two_by_two(results, ROUND)
    found = {(row["sut"], row["against"]): row for row in square["comparisons"]}
    assert {key: row["differs"] for key, row in found.items()} == {
        ("minimal+optimized", "minimal+naive"): "chain",
        ("naive+optimized", "naive+naive"): "chain",
        ("minimal+optimized", "naive+optimized"): "runtime",
        ("minimal+naive", "naive+naive"): "runtime",
        ("minimal+optimized", "naive+naive"): "both",
    }
    across = found["minimal+optimized", "naive+naive"]
    assert {row["pairs"] for row in found.values()} == {square["pairs"]} == {5}
    assert across["saved_machine_usd"] == pytest.approx(3.0 * 3.0)
    low, high = across["saved_machine_usd_ci95"]
    assert 3.0 <= low <= 9.0 <= high <= 15.0
    assert (across["saving"], across["saving_ci95"]) == (pytest.approx(0.75), pytest.approx([0.75, 0.75]))
    assert across["saved_by"]["tools"] == pytest.approx(3.0)
    assert across["saved_by"]["less_repeated"] == pytest.approx(6.0)
    for row in found.values():
        assert sum(row["saved_by"].values()) == pytest.approx(row["saved_machine_usd"])


def test_the_saving_of_a_comparison_has_the_ends_of_its_ratio(make_result: MakeResult) -> None:
    results = [
        make_result(kind="clean", chain=chain, seed=seed, usage=Usage(tool_usd=cost), verdict=verdict)
        for seed in range(12)
        for chain, cost, verdict in (
            ("optimized", 1.0 + seed % 3, "correct"),
            ("naive", 4.0 + seed % 2, "correct" if seed % 2 else "lost"),
        )
    ]
    (row,) = comparisons(results, ROUND)
    low, high = row["ci95"]
    assert row["saving_ci95"] == pytest.approx([1 - high, 1 - low])
    assert row["saving_ci95"][0] <= row["saving"] <= row["saving_ci95"][1]
    assert row["saved_machine_usd_ci95"][0] < row["saved_machine_usd"] < row["saved_machine_usd_ci95"][1]


def test_the_document_names_every_part() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    for name in (*MACHINE_PARTS, *PEOPLE_PARTS, "saved_machine_usd", "saved_all_in_usd_ci95", "saving_ci95"):
        assert f"`{name}`" in text
