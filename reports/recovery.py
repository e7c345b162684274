"""How long recovery took, and what a kill does that comes just after a response."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kintsugi.reports.charts import Span, Step
from kintsugi.reports.numbers import DASH, number, pick, seconds, table
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut

if TYPE_CHECKING:
    from kintsugi.harness.records import TrialResult

__all__ = ["after_steps", "before_share", "recovery_grid", "span"]

PARTS = {"detect": "Detection", "progress": "First new step", "end": "End"}
QUANTILES = ("p50", "p95", "max")
NEVER = "never"
"""Shown for a percentile that falls on a run that did not get there at all."""

_AFTER = re.compile(r"after_(\d+(?:\.\d+)?)ms")


def recovery_grid(suts: Sequence[Sut], classes: Sequence[str]) -> Grid:
    """Seconds from the fault to detection, the first new step and the end, beside the clean run's time."""
    groups = []
    for name in classes:
        rows = []
        for sut in suts:
            found = table(sut.cell(name), "recovery_seconds")
            cells = [_quantile(table(found, part), q) for part in PARTS for q in QUANTILES]
            clean, added = table(found, "clean"), table(found, "added")
            n = number(pick(found, "end", "n"))
            cells += [_quantile(clean, "p50"), _quantile(clean, "max"), _quantile(added, "p50")]
            rows.append(Row(sut.key, tuple(cells), "" if n is None else f"n = {n:g}"))
        groups.append(Group(name, tuple(rows)))
    return Grid(
        "Time from the fault, in a pass of its own with cold-started workers",
        "SUT + chain",
        (*(q for _ in PARTS for q in QUANTILES), "p50", "max", "p50"),
        tuple(groups),
        (
            ("", 1),
            *((title, len(QUANTILES)) for title in PARTS.values()),
            ("Clean run, whole", 2),
            ("Added", 1),
        ),
    )


def _quantile(found: Mapping[str, object], name: str) -> Cell:
    value = number(found.get(name))
    if value is not None:
        return Cell(seconds(value))
    return Cell(NEVER if number(found.get("n")) and name in found else DASH)


def span(sut: Sut, workflow_class: str) -> Span | None:
    """The times to the first new step, for the figure; None where one is not known or without bound."""
    found = table(sut.cell(workflow_class), "recovery_seconds")
    p50, p95, most = (number(pick(found, "progress", name)) for name in QUANTILES)
    if p50 is None or p95 is None or most is None:
        return None
    return Span(p50, p95, most, number(pick(found, "clean", "p50")))


def after_steps(sut: Sut) -> list[Step]:
    """The after-kill curve of a SUT: all classes together, since each alone has few kills at each delay."""
    steps = []
    for form, split in table(sut.data, "after").items():
        delay = _AFTER.fullmatch(str(form))
        cells = list(split.values()) if delay and isinstance(split, Mapping) else []
        k, n, exactly = (
            sum(number(pick(cell, name)) or 0.0 for cell in cells) for name in ("k", "n", "resumed_exactly")
        )
        if delay and n:
            steps.append(Step(float(delay[1]), int(k), int(exactly), int(n)))
    return sorted(steps, key=lambda step: step.milliseconds)


def before_share(sut: Sut, results: Sequence[TrialResult]) -> float | None:
    """The share recovered of kills just before a boundary: the deterministic neighbour of the curve."""
    struck = [
        r
        for r in results
        if r.key == sut.key and r.fault == "worker_kill" and r.phase == "before"
        and len(r.points) == 1
        and r.kind == "fault" and r.injection == "witnessed" and r.verdict is not None
    ]  # fmt: skip
    return sum(r.verdict in {"correct", "correct_halt"} for r in struck) / len(struck) if struck else None
