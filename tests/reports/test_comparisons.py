from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.harness.savings import MACHINE_PARTS
from kintsugi.reports.comparisons import PARTS, comparison_grid, split_grid, squares

if TYPE_CHECKING:
    from tests.reports.conftest import Run


def entry(**changes: Any) -> dict[str, Any]:
    """A comparison as the harness measures it."""
    plain = {
        "class": "finance",
        "condition": "clean",
        "sut": "minimal+optimized",
        "against": "naive+naive",
        "differs": "both",
        "pairs": 20,
        "successes": 20,
        "successes_against": 15,
        "machine": 0.04,
        "machine_against": 0.10,
        "ci95": [0.3, 0.5],
        "saving": 0.6,
        "saving_ci95": [0.5, 0.7],
        "saved_machine_usd": 0.06,
        "saved_machine_usd_ci95": [0.05, 0.08],
        "saved_all_in_usd": 1.5,
        "saved_all_in_usd_ci95": [1.0, 2.0],
        "saved_by": {
            "less_context": 0.02,
            "fewer_calls": 0.03,
            "tools": 0.0,
            "compute": -0.01,
            "less_repeated": 0.005,
            "fewer_failures": 0.015,
            "fewer_reviews": 0.0,
            "fewer_repairs": 1.44,
        },
    }
    return {**plain, **changes}


def test_a_difference_is_a_share_and_dollars_each_with_its_interval() -> None:
    grid = comparison_grid({"cost_comparisons": [entry()]}, under_faults=False)
    assert grid is not None
    cell = grid.groups[0].rows[0].cells[-1]
    assert cell.main == "−60.0%"
    assert cell.sub == ("−70.0% to −50.0%", "−$0.0600 (−$0.0800 to −$0.0500)")


def test_an_end_without_bound_is_said_to_be_one() -> None:
    changed = entry(ci95=[0.3, None], saved_machine_usd_ci95=[None, 0.08])
    grid = comparison_grid({"cost_comparisons": [changed]}, under_faults=False)
    assert grid is not None
    assert grid.groups[0].rows[0].cells[-1].sub == (
        "−70.0% to without bound",
        "−$0.0600 (−$0.0800 to without bound)",
    )


def test_a_difference_of_a_few_pairs_has_no_interval() -> None:
    few = entry(pairs=1, ci95=None, saving_ci95=None, saved_machine_usd_ci95=None, saved_all_in_usd_ci95=None)
    grid = comparison_grid({"cost_comparisons": [few]}, under_faults=False)
    assert grid is not None
    cell = grid.groups[0].rows[0].cells[-1]
    assert (cell.main, cell.sub) == ("−60.0%", ("−$0.0600",))


def test_where_the_difference_comes_from_is_a_row_of_dollars() -> None:
    assert tuple(PARTS) == MACHINE_PARTS
    grid = split_grid({"cost_comparisons": [entry(), entry(condition="under_faults")]}, under_faults=False)
    assert grid is not None
    assert grid.columns == (*PARTS.values(), "machine", "reviews", "repairs", "all-in")
    (row,) = grid.groups[0].rows
    shown = ["$0.0200", "$0.0300", "$0", "−$0.0100", "$0.00500", "$0.0150", "$0.0600", "$0", "$1.44", "$1.50"]
    assert [cell.main for cell in row.cells] == shown
    assert row.head == "minimal+optimized against naive+naive"
    assert sum(width for _, width in grid.over) == 1 + len(grid.columns)


@pytest.mark.parametrize("summary", [{}, {"cost_comparisons": [entry(saved_by=None)]}])
def test_what_was_not_split_is_not_shown(summary: dict[str, Any]) -> None:
    assert split_grid(summary, under_faults=False) is None


def test_the_square_has_its_differences_at_the_ends_of_rows_and_columns() -> None:
    keys = [(sut, chain) for sut in ("minimal", "naive") for chain in ("optimized", "naive")]
    cells = {"+".join(key): {"machine": 0.1, "successes": 4} for key in keys}
    pairs = {
        ("minimal+optimized", "minimal+naive"): 0.1,
        ("naive+optimized", "naive+naive"): 0.2,
        ("minimal+optimized", "naive+optimized"): 0.3,
        ("minimal+naive", "naive+naive"): 0.4,
        ("minimal+optimized", "naive+naive"): 0.5,
    }
    compared = [entry(sut=sut, against=other, saving=saving) for (sut, other), saving in pairs.items()]
    square = {"class": "finance", "condition": "clean", "sut": "minimal", "against": "naive", "pairs": 4}
    (grid,) = squares({"cost_two_by_two": [square | {"cells": cells, "comparisons": compared}]})
    shown = [[cell.main for cell in row.cells] for row in grid.groups[0].rows]
    assert shown == [
        ["$0.1000", "$0.1000", "−10.0%"],
        ["$0.1000", "$0.1000", "−20.0%"],
        ["−30.0%", "−40.0%", "−50.0%"],
    ]
    (older,) = squares({"cost_two_by_two": [square | {"cells": cells}]})
    assert [len(row.cells) for row in older.groups[0].rows] == [2, 2], "a summary from before has no differences"


def test_a_run_has_all_of_it(run: Run, page: str) -> None:
    for condition in (False, True):
        grid = split_grid(run.summary, under_faults=condition)
        assert grid is not None
        assert len(grid.groups) == 4
        assert "Where the difference comes from" in page
    assert {len(grid.groups[0].rows) for grid in squares(run.summary)} == {3}
