"""The cost part: the split, the waste, the 2 × 2 of SUT and chain, and how assumptions move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.reports.numbers import DASH, count, listed, number, percent, pick, table, usd, usd_interval
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut
from kintsugi.reports.targets import Mark, mark_saving

__all__ = [
    "comparison_grid",
    "cost_grid",
    "machine_parts",
    "repeats_grid",
    "saving_mark",
    "sensitivity_grid",
    "squares",
]

COST = "cost_per_successful_workflow_usd"
MACHINE_PARTS = ("model", "tool", "compute")
CONDITIONS = {"clean": "without faults", "under_faults": "under faults"}
DIFFERS = {
    "chain": "the chain",
    "runtime": "the runtime",
    "both": "runtime and chain; not the runtime alone",
}


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


def squares(summary: Mapping[str, Any]) -> list[Grid]:
    """A 2 × 2 of SUT × chain for each class and condition: machine cost per success on shared trials."""
    found = []
    for square in _entries(summary, "cost_two_by_two"):
        chosen, reference = str(square.get("sut", "")), str(square.get("against", "naive"))
        rows = tuple(
            Row(
                sut,
                tuple(_square_cell(pick(square, "cells", f"{sut}+{chain}")) for chain in ("optimized", "naive")),
            )
            for sut in (chosen, reference)
        )
        condition = CONDITIONS.get(str(square.get("condition")), str(square.get("condition")))
        caption = f"{square.get('class')}, {condition}; shared trials: {count(square.get('pairs'))}"
        found.append(Grid(caption, "SUT", ("optimized chain", "naive chain"), (Group("", rows),)))
    return found


def _square_cell(cell: object) -> Cell:
    return Cell(usd(pick(cell, "machine")), (_successes(pick(cell, "successes")),))


def _successes(value: object) -> str:
    return f"{count(value)} success{'' if value == 1 else 'es'}"


def comparison_grid(summary: Mapping[str, Any], *, under_faults: bool) -> Grid | None:
    """Paired differences in machine cost per success; None where there are none."""
    condition = "under_faults" if under_faults else "clean"
    groups: dict[str, list[Row]] = {}
    for entry in _entries(summary, "cost_comparisons"):
        if entry.get("condition") != condition:
            continue
        differs = str(entry.get("differs"))
        said = _marked(entry) if differs in {"chain", "both"} and not under_faults else None
        cells = (
            Cell(DIFFERS.get(differs, differs)),
            Cell(count(entry.get("pairs"))),
            Cell(usd(entry.get("machine")), (_successes(entry.get("successes")),)),
            Cell(usd(entry.get("machine_against")), (_successes(entry.get("successes_against")),)),
            _change(entry, said),
        )
        head = f"{_name(entry.get('sut'))} against {_name(entry.get('against'))}"
        groups.setdefault(str(entry.get("class")), []).append(Row(head, cells))
    if not groups:
        return None
    return Grid(
        f"Paired differences, {CONDITIONS[condition]}: same workflows, schedules and seeds",
        "Compared",
        ("what differs", "pairs", "first", "second", "difference"),
        tuple(Group(name, tuple(rows)) for name, rows in sorted(groups.items())),
    )


def _change(entry: Mapping[str, Any], said: Mark | None) -> Cell:
    saving = number(entry.get("saving"))
    if saving is None:
        return Cell(DASH, ("a side had no success",), said)
    low, high = _saving_ends(entry)
    ends = [DASH if end is None else _signed(-end) for end in (high, low)]
    interval = "" if ends[0] == ends[1] else " to ".join(ends).replace(DASH, "without bound")
    return Cell(_signed(-saving), (interval,) if interval else (), said)


def _signed(share: float) -> str:
    # A machine's arithmetic: what is no difference must not be shown as a tiny one.
    share = 0.0 if abs(share) < 1e-9 else share
    return f"{'−' if share < 0 else '+' if share > 0 else ''}{percent(abs(share))}"


def _saving_ends(entry: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The interval of the saving: that of the cost ratio, taken from 1."""
    ends = entry.get("ci95")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return None, None
    low, high = number(ends[0]), number(ends[1])
    return (None if high is None else 1 - high), (None if low is None else 1 - low)


def _marked(entry: Mapping[str, Any]) -> Mark:
    return mark_saving(number(entry.get("saving")), _saving_ends(entry)[0], number(entry.get("pairs")))


def saving_mark(summary: Mapping[str, Any], sut: Sut, workflow_class: str) -> Mark | None:
    """How a SUT's cost without faults stands to the target, against naive+naive or else its own naive chain.

    None for a naive chain: it is what others are compared with.
    """
    if sut.chain == "naive":
        return None
    mine = [
        entry
        for entry in _entries(summary, "cost_comparisons")
        if (entry.get("class"), entry.get("condition"), _name(entry.get("sut"))) == (workflow_class, "clean", sut.key)
        and _name(entry.get("against")) in {"naive+naive", f"{sut.name}+naive"}
    ]
    best = sorted(mine, key=lambda entry: _name(entry.get("against")) != "naive+naive")
    return _marked(best[0]) if best else mark_saving(None, None, None)


def _name(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _entries(summary: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in listed(summary, name) if isinstance(entry, Mapping)]


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
