"""One way of working against another: the 2 × 2 of SUT and chain, paired differences, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kintsugi.reports.cost import CONDITIONS
from kintsugi.reports.numbers import DASH, count, listed, number, percent, pick, table, usd
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut
from kintsugi.reports.targets import Mark, mark_saving

__all__ = ["comparison_grid", "saving_mark", "split_grid", "squares"]

DIFFERS = {
    "chain": "the chain",
    "runtime": "the runtime",
    "both": "runtime and chain; not the runtime alone",
}
CHAINS = ("optimized", "naive")
DIFFERENCE = "difference"
PARTS = {
    "less_context": "less context",
    "fewer_calls": "fewer calls",
    "tools": "tools",
    "compute": "compute",
    "less_repeated": "less done again",
    "fewer_failures": "fewer failures",
}
"""The parts of a difference in machine cost, as the harness names them and as they are shown."""


def squares(summary: Mapping[str, Any]) -> list[Grid]:
    """A 2 × 2 of SUT × chain for each class and condition: machine cost per success on shared trials.

    Beside it the differences: along each row, down each column, and in the corner across.
    """
    found = []
    for square in _entries(summary, "cost_two_by_two"):
        chosen, reference = str(square.get("sut", "")), str(square.get("against", "naive"))
        compared = {
            (_name(entry.get("sut")), _name(entry.get("against"))): entry for entry in _entries(square, "comparisons")
        }

        def difference(one: str, other: str, compared: Mapping[tuple[str, str], Any] = compared) -> tuple[Cell, ...]:
            return (_change(compared.get((one, other), {}), None),) if compared else ()

        rows = [
            Row(
                sut,
                (
                    *(_square_cell(pick(square, "cells", f"{sut}+{chain}")) for chain in CHAINS),
                    *difference(f"{sut}+optimized", f"{sut}+naive"),
                ),
            )
            for sut in (chosen, reference)
        ]
        if compared:
            down = [cell for chain in CHAINS for cell in difference(f"{chosen}+{chain}", f"{reference}+{chain}")]
            rows.append(Row(DIFFERENCE, (*down, *difference(f"{chosen}+optimized", f"{reference}+naive"))))
        condition = CONDITIONS.get(str(square.get("condition")), str(square.get("condition")))
        caption = f"{square.get('class')}, {condition}; shared trials: {count(square.get('pairs'))}"
        columns = ("optimized chain", "naive chain", *([DIFFERENCE] if compared else []))
        found.append(Grid(caption, "SUT", columns, (Group("", tuple(rows)),)))
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
    """By how much the first is cheaper, as a share and in dollars, each with its interval."""
    saving = number(entry.get("saving"))
    if saving is None:
        return Cell(DASH, ("a side had no success",), said)
    told = [_span(*_saving_ends(entry), _signed)]
    saved, ends = number(entry.get("saved_machine_usd")), listed(entry, "saved_machine_usd_ci95")
    if saved is not None:
        span = _span(number(ends[0]), number(ends[1]), usd) if len(ends) == 2 else ""
        told.append(f"{usd(-saved)} ({span})" if span else usd(-saved))
    return Cell(_signed(-saving), tuple(filter(None, told)), said)


def _span(low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    """The interval of what is saved, as one of what is spent less; empty where it is a single value or none."""
    ends = ["without bound" if end is None else written(-end) for end in (high, low)]
    return "" if ends[0] == ends[1] else " to ".join(ends)


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


def split_grid(summary: Mapping[str, Any], *, under_faults: bool) -> Grid | None:
    """What each difference is made of, in dollars per success; None where that was not measured."""
    condition = "under_faults" if under_faults else "clean"
    groups: dict[str, list[Row]] = {}
    for entry in _entries(summary, "cost_comparisons"):
        parts = table(entry, "saved_by")
        if entry.get("condition") != condition or not parts:
            continue
        names = (*PARTS, "saved_machine_usd", "fewer_reviews", "fewer_repairs", "saved_all_in_usd")
        cells = tuple(Cell(usd({**entry, **parts}.get(name))) for name in names)
        head = f"{_name(entry.get('sut'))} against {_name(entry.get('against'))}"
        groups.setdefault(str(entry.get("class")), []).append(Row(head, cells))
    if not groups:
        return None
    return Grid(
        f"Where the difference comes from, {CONDITIONS[condition]}: dollars per success that the first saves",
        "Compared",
        (*PARTS.values(), "machine", "reviews", "repairs", "all-in"),
        tuple(Group(name, tuple(rows)) for name, rows in sorted(groups.items())),
        (("", 1), ("Machine", len(PARTS) + 1), ("People", 2), ("", 1)),
    )


def _name(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _entries(summary: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in listed(summary, name) if isinstance(entry, Mapping)]
