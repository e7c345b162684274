"""The figures behind the five metrics, by class: folded away on screen, and printed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kintsugi.reports.numbers import DASH, count, number, percent, pick, rate, seconds, table
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut, rate_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["UNDER", "people_behind", "rates_behind", "recovery_behind"]

UNDER = "_under_faults"
"""How the summary names what was measured under faults."""

Measure = tuple[str, str]
"""What a rate is called here, and in the summary."""


def rates_behind(
    suts: Sequence[Sut], classes: Sequence[str], measures: Sequence[Measure], more: Sequence[Group] = ()
) -> Grid:
    """A group of rows for each rate that was measured anywhere, and then further groups."""
    groups = [
        _group(title, suts, classes, partial(_rate, metric))
        for title, metric in measures
        if any(rate(sut.cell(name).get(metric)) for sut in suts for name in classes)
    ]
    return Grid("Figures behind it", "Class", tuple(sut.key for sut in suts), (*groups, *more))


def recovery_behind(suts: Sequence[Sut], classes: Sequence[str]) -> Grid:
    """How exactly it resumed, the rate by weight, and how much of the frame was struck."""
    measures = [
        ("Resumed exactly: after a worker’s death, recovered with nothing done again", "resumed_exactly"),
        ("Corrupted where the model errs, without injected faults", "corruption_rate_model_errs"),
    ]
    more = [
        _group("Recovery rate weighted by the points that each trial stands for", suts, classes, _weighted),
        _group("Coverage: points struck, of the frame’s; how they came out", suts, classes, _coverage),
    ]
    return rates_behind(suts, classes, measures, more)


def people_behind(suts: Sequence[Sut], classes: Sequence[str]) -> Grid:
    """Planned approvals, overrides, repairs under faults, and how long a person took."""
    measures = [
        ("Planned checkpoints: workflows that asked for an approval", "planned_checkpoint_rate"),
        ("Overrides: decisions that rejected or amended", "human_override_rate"),
        ("Under faults: unplanned repair", f"unplanned_repair_rate{UNDER}"),
    ]
    more = [
        _group("Of these, unavoidable: the tool is opaque and its answer was lost", suts, classes, _unavoidable),
        _group("From asking for an approval to its decision: median, p95", suts, classes, _wait),
    ]
    return rates_behind(suts, classes, measures, more)


def _group(title: str, suts: Sequence[Sut], classes: Sequence[str], cell: Callable[[Sut, str], Cell]) -> Group:
    return Group(title, tuple(Row(name, tuple(cell(sut, name) for sut in suts)) for name in classes))


def _rate(metric: str, sut: Sut, workflow_class: str) -> Cell:
    return rate_cell(rate(sut.cell(workflow_class).get(metric)))


def _weighted(sut: Sut, workflow_class: str) -> Cell:
    return Cell(percent(pick(sut.cell(workflow_class), "fault_recovery_rate", "rate_weighted")))


def _coverage(sut: Sut, workflow_class: str) -> Cell:
    found = table(sut.cell(workflow_class), "coverage")
    outcomes = [(name, number(found.get(name))) for name in ("always", "sometimes", "never")]
    told = tuple(f"{many:g} {name}" for name, many in outcomes if many)
    return Cell(f"{count(found.get('covered'))}/{count(found.get('total'))}" if found else DASH, told)


def _wait(sut: Sut, workflow_class: str) -> Cell:
    found = table(sut.cell(workflow_class), "approval_completion_seconds")
    return Cell(seconds(found.get("p50")), (f"p95 {seconds(found.get('p95'))}",) if found.get("n", 1) else ())


def _unavoidable(sut: Sut, workflow_class: str) -> Cell:
    found = pick(sut.cell(workflow_class), f"unplanned_repair_rate{UNDER}")
    many, rated = number(pick(found, "unavoidable")), rate(found)
    return Cell(DASH if many is None or rated is None else f"{many:g} of {rated.k:g}")
