"""The cost part: what it went to, the waste, and how assumptions move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.reports.numbers import DASH, count, listed, number, pick, table, usd, usd_interval
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut

__all__ = [
    "CONDITIONS",
    "cost_grid",
    "machine_parts",
    "repeats_grid",
    "sensitivity_grid",
]

COST = "cost_per_successful_workflow_usd"
MACHINE_PARTS = ("model", "tool", "compute")
CONDITIONS = {"clean": "without faults", "under_faults": "under faults"}


def machine_parts(sut: Sut, workflow_class: str) -> tuple[list[tuple[str, float]], float | None]:
    """The parts of the machine cost without faults, for the figure; and the machine cost under faults."""
    clean = table(sut.cell(workflow_class), COST)
    parts = [(name, number(clean.get(name))) for name in MACHINE_PARTS]
    struck = number(pick(sut.cell(workflow_class), f"{COST}_under_faults", "machine"))
    return [(name, amount) for name, amount in parts if amount is not None], struck


def cost_grid(suts: Sequence[Sut], classes: Sequence[str], *, under_faults: bool) -> Grid:
    """Dollars per successful workflow, by what they went to."""
    suffix = "_under_faults" if under_faults else ""
    groups = tuple(
        Group(name, tuple(_cost_row(sut, table(sut.cell(name), COST + suffix)) for sut in suts)) for name in classes
    )
    return Grid(
        f"Dollars per successful workflow, {CONDITIONS['under_faults' if under_faults else 'clean']}",
        "SUT + chain",
        ("successes", "model", "tool", "compute", "machine", "of it waste", "review", "repair", "all-in"),
        groups,
        (("", 2), ("Machine", 5), ("People", 2), ("", 1)),
    )


def _cost_row(sut: Sut, block: Mapping[str, Any]) -> Row:
    successes, trials = number(block.get("successes")), number(block.get("trials"))
    counts = DASH if successes is None or trials is None else f"{successes:g}/{trials:g}"
    cells = [Cell(counts)]
    for name in (*MACHINE_PARTS, "machine", "waste", "review", "repair", "all_in"):
        interval = usd_interval(block.get("machine_ci95")) if name == "machine" else ""
        cells.append(Cell(usd(block.get(name)), (interval,) if interval else ()))
    return Row(sut.key, tuple(cells))


def repeats_grid(suts: Sequence[Sut], classes: Sequence[str]) -> Grid | None:
    """What was done again per trial with a witnessed fault; None where that was not measured."""
    names = {
        "model_calls": "model calls",
        "tool_calls": "tool calls",
        "tokens": "tokens",
        "approvals_re_asked": "approvals asked again",
    }
    if not any(table(sut.cell(name), "repeats") for sut in suts for name in classes):
        return None
    groups = []
    for name in classes:
        rows = []
        for sut in suts:
            found = table(sut.cell(name), "repeats")
            cells = [Cell(count(found.get("trials")))]
            cells += [Cell(count(pick(found, "per_trial", key), 1), (_all(found.get(key)),)) for key in names]
            rows.append(Row(sut.key, tuple(cells)))
        groups.append(Group(name, tuple(rows)))
    caption = "Done again because of faults, although the answer had been delivered: per trial, and in all"
    return Grid(caption, "SUT + chain", ("trials", *names.values()), tuple(groups))


def _all(value: object) -> str:
    return "" if number(value) is None else f"{count(value)} in all"


def sensitivity_grid(suts: Sequence[Sut], classes: Sequence[str]) -> Grid | None:
    """All-in cost under faults for other repair minutes and hourly rates; None where it was not measured."""
    name = "all_in_sensitivity_under_faults"
    tables = {(sut.key, group): listed(sut.cell(group), name) for sut in suts for group in classes}
    found = next(filter(None, tables.values()), None)
    if found is None:
        return None
    columns = [_assumed(entry) for entry in found]
    groups = []
    for group in classes:
        rows = []
        for sut in suts:
            known = {_assumed(entry): entry for entry in tables[sut.key, group]}
            rows.append(Row(sut.key, tuple(Cell(usd(pick(known.get(column), "all_in"))) for column in columns)))
        groups.append(Group(group, tuple(rows)))
    rates = list(dict.fromkeys(rate for rate, _ in columns))
    return Grid(
        "All-in cost per successful workflow under faults, as the assumptions move",
        "SUT + chain",
        tuple(f"{count(factor, 1).removesuffix('.0')}× minutes" for _, factor in columns),
        tuple(groups),
        (("", 1), *((f"{usd(rate)} an hour", sum(r == rate for r, _ in columns)) for rate in rates)),
    )


def _assumed(entry: object) -> tuple[float | None, float | None]:
    return number(pick(entry, "human_usd_per_hour")), number(pick(entry, "repair_minutes_factor"))
