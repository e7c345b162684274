"""Which faults were recovered from in which class of workflow: a matrix for each SUT × chain, and splits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kintsugi.reports.numbers import DASH, Rate, count, listed, number, pick, rate, seconds, table, usd
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut, rate_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kintsugi.harness.records import TrialResult

__all__ = ["SHADES", "fault_names", "left_out", "matrices", "points_grid", "split_grids", "storm_grid"]

SHADES = ("all recovered", "90% or more", "half or more", "some", "none")
"""What each shade of a cell says; darker with each."""

_MOST, _HALF = 0.9, 0.5

SPLITS = {
    "layers": "By layer",
    "phases": "By phase of the boundary",
    "dealt_with_by": "By what mainly dealt with the fault",
    "strata": "By stratum: points that all share, and a chain’s own model points",
    "after": "Kills after a response, by delay",
}


def fault_names(suts: Sequence[Sut], texts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every fault class that was struck, in the catalogue's order; those it does not know come last."""
    struck = {str(name) for sut in suts for part in ("faults", "not_applicable") for name in table(sut.data, part)}
    return [name for name in texts if name in struck] + sorted(struck - set(texts))


def matrices(
    suts: Sequence[Sut],
    classes: Sequence[str],
    faults: Sequence[str],
    results: Sequence[TrialResult],
    layers: Mapping[str, str],
) -> list[Grid]:
    """Fault class × workflow class for each SUT × chain: recovered k/n, with what went wrong beside."""
    bad = Counter((r.key, r.fault, r.workflow_class, r.verdict) for r in results if _counted(r))
    grids = []
    for sut in suts:
        rows = []
        for fault in faults:
            cells = []
            for name in classes:
                counts = {v: bad[sut.key, fault, name, v] for v in ("corrupted", "lost", "failed")}
                cells.append(_cell(sut, fault, name, counts))
            rows.append(Row(fault, tuple(cells), layers.get(fault, "")))
        grids.append(Grid(sut.key, "Fault class", tuple(classes), (Group("", tuple(rows)),)))
    return grids


def _counted(result: TrialResult) -> bool:
    return result.kind == "fault" and result.injection == "witnessed"


def _cell(sut: Sut, fault: str, workflow_class: str, counts: Mapping[str, int]) -> Cell:
    found = rate(pick(sut.data, "faults", fault, workflow_class))
    if found is None:
        absent = number(pick(sut.data, "not_applicable", fault, workflow_class))
        planned = fault in table(sut.cell(workflow_class), "exposure")
        return Cell("n/a" if absent and not planned else DASH)
    attended = number(pick(sut.data, "faults", fault, workflow_class, "attended"))
    told = tuple(f"{many} {verdict}" for verdict, many in counts.items() if many)
    asked = (f"{attended:g} attended",) if attended else ()
    return Cell(found.counts, asked, shade=shade(found), notes=told)


def shade(found: Rate) -> int:
    """0 where all recovered, up to 4 where none did."""
    if found.k >= found.n:
        return 0
    if not found.k:
        return 4
    return 1 if found.value >= _MOST else 2 if found.value >= _HALF else 3


def split_grids(suts: Sequence[Sut], classes: Sequence[str]) -> list[Grid]:
    """Recovery split by layer, phase and so on, always within a class."""
    grids = []
    for part, caption in SPLITS.items():
        values = sorted({str(value) for sut in suts for value in table(sut.data, part)}, key=_delay)
        groups = tuple(
            Group(
                value or "–",
                tuple(
                    Row(name, tuple(rate_cell(rate(pick(sut.data, part, value, name))) for sut in suts))
                    for name in classes
                    if any(pick(sut.data, part, value, name) for sut in suts)
                ),
            )
            for value in values
        )
        if groups:
            grids.append(Grid(caption, "Class", tuple(sut.key for sut in suts), groups))
    return grids


def _delay(form: str) -> tuple[float, str]:
    """Sorts ``after_5ms`` before ``after_20ms``, and everything else by name."""
    digits = "".join(filter(str.isdigit, form))
    return (float(digits) if form.startswith("after_") and digits else 0.0, form)


def points_grid(suts: Sequence[Sut]) -> Grid | None:
    """How much was struck of what the suite set out to strike whole; None where it only drew."""
    rows: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for sut in suts:
        for row in listed(sut.data, "points"):
            if pick(row, "whole") is True:
                fault, phase = str(pick(row, "fault")), str(pick(row, "phase"))
                counts = (number(pick(row, "covered")) or 0.0, number(pick(row, "total")) or 0.0)
                rows.setdefault(fault, {}).setdefault(phase, {})[sut.key] = counts
    groups = [
        Group(
            fault,
            tuple(Row(phase, tuple(_struck(found.get(sut.key)) for sut in suts)) for phase, found in phases.items()),
        )
        for fault, phases in rows.items()
    ]
    caption = "Every point: witnessed, of all there are, by phase"
    return Grid(caption, "Phase", tuple(sut.key for sut in suts), tuple(groups)) if groups else None


def _struck(counts: tuple[float, float] | None) -> Cell:
    if counts is None:
        return Cell()
    covered, total = counts
    return Cell(f"{covered:g}/{total:g}", shade=-1 if covered == total else 2)


def left_out(suts: Sequence[Sut]) -> list[str]:
    """Every point that was to be struck and was not, by name."""
    return [
        f"{sut.key}: {name}" for sut in suts for row in listed(sut.data, "points") for name in listed(row, "left_out")
    ]


def storm_grid(suts: Sequence[Sut], classes: Sequence[str]) -> Grid | None:
    """How many workflows at once treated one failing tool; None where no storm was witnessed."""
    groups = []
    for name in classes:
        rows = []
        for sut in suts:
            found = table(sut.cell(name), "storms")
            if not found:
                continue
            cells = (
                rate_cell(rate(found.get("within_bounds"))),
                Cell(count(found.get("workflows"))),
                Cell(count(found.get("outage_calls_per_workflow"), 1)),
                Cell(count(found.get("peak_requests_per_second"))),
                Cell(seconds(found.get("drain_seconds"))),
                Cell(usd(found.get("wasted_usd")), (f"{count(found.get('wasted_calls'))} calls",)),
            )
            rows.append(Row(sut.key, cells))
        if rows:
            groups.append(Group(name, tuple(rows)))
    columns = (
        "within bounds",
        "workflows at once",
        "calls per workflow in the outage",
        "peak requests a second",
        "drained after",
        "wasted $ a storm",
    )
    return Grid("Retry storms", "SUT + chain", columns, tuple(groups)) if groups else None
