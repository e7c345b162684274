"""What one way of working costs against another, on the trials that both have run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kintsugi.harness.cost import spent
from kintsugi.harness.intervals import cost_difference_bootstrap, cost_ratio_bootstrap
from kintsugi.harness.rates import clean_attempts, completed, witnessed
from kintsugi.harness.records import TrialResult
from kintsugi.harness.savings import Clean, clean_work, saved_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kintsugi.harness.prices import Prices

__all__ = ["comparisons", "two_by_two"]

REFERENCE_SUT = "naive"

Pair = tuple[str, str, int, tuple[str, ...]]
"""Workflow, variance, seed and schedule: what two trials must share to be compared."""
Table = dict[tuple[str, str], dict[Pair, TrialResult]]
"""For each (sut, chain), its trials by what they can be paired on."""


def comparisons(results: Sequence[TrialResult], prices: Prices) -> list[dict[str, Any]]:
    """Cost per success of one SUT and chain against another, on the same trials, by class and condition.

    A pair shares workflow, schedule, seed and variance; under faults only shared points count (not the
    model's, which each chain has its own of), and the fault must be witnessed on both sides. Compared are the
    two chains of one SUT (``differs`` "chain"), a SUT with the naive SUT on the same chain ("runtime"), and a
    SUT's optimized or own chain with naive+naive ("both": a difference that must not be attributed to the
    runtime alone).
    """
    clean = clean_work(results, prices)
    return [
        {"class": name, "condition": condition} | row
        for name, condition, table in _tables(results)
        for row in _compared(table, clean, prices)
    ]


def two_by_two(results: Sequence[TrialResult], prices: Prices) -> list[dict[str, Any]]:
    """Cost per success of a SUT and the naive one with both chains each, on the trials all four share.

    ``comparisons`` says of these very trials what each cell saves against another: along a row, down a column, and
    across.
    """
    clean = clean_work(results, prices)
    found = []
    for name, condition, table in _tables(results):
        both = sorted({sut for sut, _ in table if (sut, "naive") in table and (sut, "optimized") in table})
        for sut in both:
            if sut == REFERENCE_SUT or REFERENCE_SUT not in both:
                continue
            keys = [(s, c) for s in (sut, REFERENCE_SUT) for c in ("optimized", "naive")]
            common = sorted(set.intersection(*(set(table[key]) for key in keys)))
            cells = {"+".join(key): _figures([table[key][pair] for pair in common], prices) for key in keys}
            shared = {key: {pair: table[key][pair] for pair in common} for key in keys}
            named = {"class": name, "condition": condition, "sut": sut, "against": REFERENCE_SUT}
            rows = _compared(shared, clean, prices)
            found.append(named | {"pairs": len(common), "cells": cells, "comparisons": rows})
    return found


def _compared(table: Table, clean: Clean, prices: Prices) -> list[dict[str, Any]]:
    """Every comparison that a table has, each on the trials that both sides share."""
    return [
        {"sut": "+".join(key), "against": "+".join(other), "differs": differs}
        | _compare(table[key], table[other], clean, prices)
        for key in sorted(table)
        for other in sorted(table)
        if (differs := _differs(key, other))
    ]


def _tables(results: Sequence[TrialResult]) -> list[tuple[str, str, Table]]:
    """For each class and condition: the comparable trials of each (sut, chain)."""
    ordered = sorted(results, key=lambda r: r.id)
    chosen = {
        "clean": [r for r in clean_attempts(ordered) if r.kind == "clean"],
        "under_faults": [r for r in witnessed(ordered) if not any(p.startswith("model:") for p in r.points)],
    }
    tables: dict[tuple[str, str], Table] = {}
    for condition, members in chosen.items():
        for result in members:
            table = tables.setdefault((result.workflow_class, condition), {})
            # A repeated trial is represented by its first run.
            table.setdefault((result.sut, result.chain), {}).setdefault(_pair(result), result)
    return [(name, condition, table) for (name, condition), table in sorted(tables.items())]


def _pair(result: TrialResult) -> Pair:
    forms = [strike["form"] for strike in result.trial.get("schedule", ())] or [result.form]
    schedule = (result.fault, *forms, *result.points, str(result.trial.get("drift", "")))
    return result.workflow, result.variance, result.seed, schedule


def _differs(key: tuple[str, str], other: tuple[str, str]) -> str:
    (sut, chain), (other_sut, other_chain) = key, other
    if sut == other_sut:
        return "chain" if (chain, other_chain) == ("optimized", "naive") else ""
    if other_sut != REFERENCE_SUT:
        return ""
    if chain == other_chain:
        return "runtime"
    return "both" if other_chain == "naive" else ""


def _figures(chosen: Sequence[TrialResult], prices: Prices) -> dict[str, Any]:
    good = sum(map(completed, chosen))
    costs = [spent(result, prices) for result in chosen]
    return {
        "successes": good,
        "machine": sum(c.machine for c in costs) / good if good else None,
        "all_in": sum(c.all_in for c in costs) / good if good else None,
    }


def _compare(
    first: Mapping[Pair, TrialResult], second: Mapping[Pair, TrialResult], clean: Clean, prices: Prices
) -> dict[str, Any]:
    common = sorted(set(first) & set(second))
    mine, others = [first[pair] for pair in common], [second[pair] for pair in common]
    here, there = _figures(mine, prices), _figures(others, prices)
    known = here["machine"] is not None and there["machine"]
    ratio = here["machine"] / there["machine"] if known else None
    ends = cost_ratio_bootstrap(_pairs(mine, others, prices, "machine")) if ratio is not None else None
    return {
        "pairs": len(common),
        "successes": here["successes"],
        "successes_against": there["successes"],
        "machine": here["machine"],
        "machine_against": there["machine"],
        "all_in": here["all_in"],
        "all_in_against": there["all_in"],
        "ratio": ratio,
        "ci95": None if ends is None else list(ends),
        "saving": None if ratio is None else 1 - ratio,
        "saving_ci95": None if ends is None else [None if ends[1] is None else 1 - ends[1], 1 - ends[0]],
        **_saved(mine, others, prices, "machine"),
        **_saved(mine, others, prices, "all_in"),
        "saved_by": saved_by(mine, others, clean, prices),
    }


def _saved(mine: Sequence[TrialResult], others: Sequence[TrialResult], prices: Prices, cost: str) -> dict[str, Any]:
    """Dollars per success that the first saves, with the interval; None where a side has no success.

    Too few pairs have no interval.
    """
    here, there = _figures(mine, prices)[cost], _figures(others, prices)[cost]
    name, known = f"saved_{cost}_usd", here is not None and there is not None
    ends = cost_difference_bootstrap(_pairs(mine, others, prices, cost)) if known else None
    return {name: there - here if known else None, f"{name}_ci95": None if ends is None else list(ends)}


def _pairs(
    mine: Sequence[TrialResult], others: Sequence[TrialResult], prices: Prices, cost: str
) -> list[tuple[float, float, float, float]]:
    """Each pair as (cost, successes, cost, successes)."""
    return [
        (
            getattr(spent(one, prices), cost),
            float(completed(one)),
            getattr(spent(other, prices), cost),
            float(completed(other)),
        )
        for one, other in zip(mine, others, strict=True)
    ]
