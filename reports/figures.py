"""Which figures stand on the scorecard, each with the words that say the same to who can't see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kintsugi.reports import charts
from kintsugi.reports.cost import machine_parts
from kintsugi.reports.numbers import percent, rate, seconds, usd
from kintsugi.reports.recovery import after_steps, before_share, span
from kintsugi.reports.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kintsugi.harness.records import TrialResult
    from kintsugi.reports.tables import Sut

__all__ = ["Drawing", "after_drawings", "cost_drawings", "rate_drawings", "time_drawings"]


@dataclass(frozen=True)
class Drawing:
    """A figure: inline SVG, its title, and its content in words."""

    title: str
    svg: str
    words: str


def rate_drawings(suts: Sequence[Sut], classes: Sequence[str]) -> list[Drawing]:
    """Recovery rate and interval of each SUT, one figure for each class."""
    drawings = []
    for number, name in enumerate(classes):
        rows = [(sut.key, rate(sut.cell(name).get("fault_recovery_rate"))) for sut in suts]
        if not any(found for _, found in rows):
            continue
        words = "; ".join(
            f"{key}: {found.text}, {found.counts}, interval {found.interval}" if found else f"{key}: not measured"
            for key, found in rows
        )
        svg = charts.recovery_rates(f"rate{number}", rows, TARGETS["fault_recovery_rate"].value)
        drawings.append(Drawing(name, svg, words))
    return drawings


def time_drawings(suts: Sequence[Sut], classes: Sequence[str]) -> list[Drawing]:
    """Seconds to the first new step of each SUT, one figure for each class."""
    drawings = []
    for number, name in enumerate(classes):
        rows = [(sut.key, span(sut, name)) for sut in suts]
        if not any(found for _, found in rows):
            continue
        words = "; ".join(
            f"{key}: median {seconds(found.p50)}, p95 {seconds(found.p95)}, maximum {seconds(found.max)}, "
            f"clean run {seconds(found.clean)}"
            if found
            else f"{key}: not measured, or not always reached"
            for key, found in rows
        )
        drawings.append(Drawing(name, charts.recovery_times(f"time{number}", rows), words))
    return drawings


def after_drawings(suts: Sequence[Sut], results: Sequence[TrialResult]) -> list[Drawing]:
    """What a kill does by its delay after a response, one figure for each SUT."""
    drawings = []
    for number, sut in enumerate(suts):
        steps = after_steps(sut)
        if not steps:
            continue
        before = before_share(sut, results)
        told = [
            f"{step.milliseconds:g} ms: {step.recovered} of {step.n} recovered, {step.exactly} exactly"
            for step in steps
        ]
        if before is not None:
            told.append(f"kill before a boundary: {percent(before)} recovered")
        drawings.append(Drawing(sut.key, charts.after_curve(f"after{number}", steps, before), "; ".join(told)))
    return drawings


def cost_drawings(suts: Sequence[Sut], classes: Sequence[str]) -> list[Drawing]:
    """The parts of the machine cost of each SUT, one figure for each class."""
    drawings = []
    for number, name in enumerate(classes):
        found: Mapping[str, tuple[list[tuple[str, float]], float | None]]
        found = {sut.key: machine_parts(sut, name) for sut in suts}
        if not any(parts for parts, _ in found.values()):
            continue
        words = "; ".join(
            f"{key}: {', '.join(f'{part} {usd(amount)}' for part, amount in parts) or 'no success'}; "
            f"under faults {usd(struck)}"
            for key, (parts, struck) in found.items()
        )
        rows = [(key, parts, struck) for key, (parts, struck) in found.items()]
        drawings.append(Drawing(name, charts.costs(f"cost{number}", rows), words))
    return drawings
