"""The scorecard's figures, as SVG that can stand inline in HTML. Same numbers, same bytes.

Every figure is narrow, so that several stand side by side on a desk and below each other on a phone. Shapes
and hatches tell things apart, never colour alone. Text stays text, in the font of the page. matplotlib is
imported when the first figure is drawn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from kintsugi.reports.numbers import Rate

__all__ = [
    "COST_PARTS",
    "Span",
    "Step",
    "after_curve",
    "cost_legend",
    "costs",
    "recovery_rates",
    "recovery_times",
]

INK, MUTED, RULE, GOLD = "#20262e", "#5a6470", "#d9d5cb", "#8a6100"
COST_PARTS = {
    "model": ("#2f4b66", ""),
    "tool": ("#9db6cc", ""),
    "compute": ("#ffffff", "////"),
}
"""Colour and hatch of each part of the machine cost. In grey they run dark, light, striped."""

_FONT = 10.0
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kintsugi",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": _FONT,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "hatch.linewidth": 0.7,
}
_WIDTH, _ROW, _EDGE = 360.0, 24.0, 30.0
_POINTS_PER_INCH = 72.0
_LETTER = 6.2
"""About the width of a letter, so that labels get the room they need."""
_LABELS_MOST = 0.5
_RIGHT = 0.03


@dataclass(frozen=True)
class Span:
    """Median, 95th percentile and maximum of a time, in seconds; and the median of the clean runs."""

    p50: float
    p95: float
    max: float
    clean: float | None = None


@dataclass(frozen=True)
class Step:
    """One delay of the after-kill curve: of `n` kills that long after a response, what came of them."""

    milliseconds: float
    recovered: int
    exactly: int
    n: int


def recovery_rates(name: str, rows: Sequence[tuple[str, Rate | None]], target: float) -> str:
    """A row for each SUT: its recovery rate as a dot, the interval as a bar, the target as a dashed line."""
    lowest = min([target, *(rate.value if rate.low is None else rate.low for _, rate in rows if rate)])
    left = max(0.0, lowest - 0.06)

    def draw(axes: Axes) -> None:
        axes.axvline(target, color=GOLD, linewidth=1.1, linestyle=(0, (4, 2)))
        for y, (_, rate) in enumerate(rows):
            if rate is None:
                axes.text(left, y, "  not measured", va="center", color=MUTED)
                continue
            if rate.low is not None and rate.high is not None:
                axes.plot([rate.low, rate.high], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
            axes.plot([rate.value], [y], marker="o", color=INK, markersize=6.5, markeredgecolor="white")
        axes.set_xlim(left, 1.0 + (1.0 - left) * 0.03)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")

    return _rows(name, [label for label, _ in rows], draw)


def recovery_times(name: str, rows: Sequence[tuple[str, Span | None]]) -> str:
    """A row for each SUT: median as a dot, p95 as a bar's end, maximum as a ring, clean run as a tick."""
    longest = max([1e-9, *(max(span.max, span.clean or 0.0) for _, span in rows if span)])

    def draw(axes: Axes) -> None:
        for y, (_, span) in enumerate(rows):
            if span is None:
                axes.text(0, y, "  not measured", va="center", color=MUTED)
                continue
            axes.plot([span.p50, span.p95], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
            axes.plot([span.p95, span.max], [y, y], color=INK, linewidth=0.7)
            axes.plot([span.p50], [y], marker="o", color=INK, markersize=6.5, markeredgecolor="white")
            axes.plot([span.max], [y], marker="o", color=INK, markersize=5.5, markerfacecolor="white")
            if span.clean is not None:
                axes.plot([span.clean], [y], marker="|", color=GOLD, markersize=13, markeredgewidth=2)
        axes.set_xlim(0, longest * 1.06)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g} s")

    return _rows(name, [label for label, _ in rows], draw)


def costs(name: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]], float | None]]) -> str:
    """A row for each SUT: the parts of its machine cost without faults, and a tick at that under faults."""
    sums = [sum(amount for _, amount in parts) for _, parts, _ in rows]
    longest = max([1e-9, *sums, *(struck for _, _, struck in rows if struck is not None)])

    def draw(axes: Axes) -> None:
        for y, (_, parts, struck) in enumerate(rows):
            start = 0.0
            if not parts:
                axes.text(0, y, "  no success, no figure", va="center", color=MUTED)
            for part, amount in parts:
                colour, hatch = COST_PARTS[part]
                axes.barh(y, amount, 0.56, start, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.5)
                start += amount
            if struck is not None:
                axes.plot([struck], [y], marker="|", color=GOLD, markersize=17, markeredgewidth=2.4)
        axes.set_xlim(0, longest * 1.06)
        axes.xaxis.set_major_formatter(lambda x, _: f"${x:g}")

    return _rows(name, [label for label, _, _ in rows], draw)


def cost_legend() -> str:
    """What the parts of the cost figures look like."""

    def draw(axes: Axes) -> None:
        for place, (part, (colour, hatch)) in enumerate(COST_PARTS.items()):
            x = place * 0.21
            axes.barh(0, 0.05, 0.5, x, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.5)
            axes.text(x + 0.06, 0, part, va="center")
        axes.plot([0.68], [0], marker="|", color=GOLD, markersize=13, markeredgewidth=2.4)
        axes.text(0.7, 0, "sum, under faults", va="center")
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.5, 0.5)
        axes.set_axis_off()

    return _figure("cost-legend", 22.0, (0.01, 0.0, 0.98, 1.0), draw)


def after_curve(name: str, steps: Sequence[Step], before: float | None) -> str:
    """Share recovered (line, dots) and resumed exactly (dashes, squares), by the delay after a response.

    `before` is the share recovered of kills just before a boundary: the deterministic neighbour.
    """
    places = range(len(steps))

    def draw(axes: Axes) -> None:
        if before is not None:
            axes.axhline(before, color=GOLD, linewidth=1.1, linestyle=(0, (4, 2)))
        recovered = [step.recovered / step.n for step in steps]
        exactly = [step.exactly / step.n for step in steps]
        dashes: dict[str, Any] = {
            "linestyle": (0, (2, 2)),
            "marker": "s",
            "markerfacecolor": "white",
            "clip_on": False,
        }
        axes.plot(places, exactly, color=MUTED, linewidth=1.2, markersize=9, **dashes)
        axes.plot(places, recovered, color=INK, linewidth=1.6, marker="o", markersize=5, clip_on=False)
        axes.set_xticks(list(places), [f"{step.milliseconds:g} ms\nn = {step.n}" for step in steps])
        axes.set_ylim(-0.09, 1.06)
        axes.set_xlim(-0.3, max(0.3, len(steps) - 0.7))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        _plain(axes, "left", "bottom")

    return _figure(name, 170.0, (0.13, 0.22, 0.85, 0.74), draw)


def _rows(name: str, labels: Sequence[str], draw: Callable[[Axes], None]) -> str:
    """A figure with a labelled row for each entry and a common scale below."""
    height = _ROW * len(labels) + _EDGE
    bottom = (_EDGE - 6) / height
    wanted = (max(map(len, labels)) * _LETTER + 14) / _WIDTH
    left = min(wanted, _LABELS_MOST)
    size = _FONT * min(1.0, left / wanted)

    def all_of_it(axes: Axes) -> None:
        for y, label in enumerate(labels):
            axes.text(-0.03, y, label, ha="right", va="center", fontsize=size, transform=axes.get_yaxis_transform())
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        draw(axes)
        _plain(axes, "bottom")

    return _figure(name, height, (left, bottom, 1 - left - _RIGHT, 1 - bottom), all_of_it)


def _plain(axes: Axes, *kept: str) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in kept)
    axes.tick_params(length=0, pad=4)


def _figure(name: str, height: float, box: tuple[float, float, float, float], draw: Callable[[Axes], None]) -> str:
    """The drawn figure as inline SVG; `name` makes its ids unique within the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    written = StringIO()
    style: dict[Any, Any] = dict(_STYLE)
    with rc_context(style):
        figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        draw(figure.add_axes(box))
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), name)


def _inline(document: str, name: str) -> str:
    """An SVG document without its prolog, metadata and namespaces, and with ids of its own."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # The style element would reach the whole page; the scorecard's own style sheet says the same for figures.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", body)
    opening, rest = body.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening) + ' aria-hidden="true" focusable="false">'
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'(url\(|href=")#', rf"\1#{name}-", rest)
    return opening + re.sub(r"\n\s*", "\n", rest)
