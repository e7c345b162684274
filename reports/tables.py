"""The one form of every table on the scorecard: cells in rows, rows in groups. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kintsugi.reports.numbers import DASH, Rate, rate, table
from kintsugi.reports.targets import TARGETS, Mark, mark, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Cell",
    "Grid",
    "Group",
    "Row",
    "Sut",
    "by_class",
    "classes_of",
    "held_cell",
    "rate_cell",
    "suts_of",
]

CHAIN_ORDER = {"optimized": 0, "own": 1, "naive": 2}


@dataclass(frozen=True)
class Cell:
    """What is read first, what stands small below it, and how it stands to a target or how dark it is."""

    main: str = DASH
    sub: tuple[str, ...] = ()
    mark: Mark | None = None
    shade: int = -1
    """-1: none. 0 (all recovered) to 4 (few or none), darker with each."""
    notes: tuple[str, ...] = ()
    """What must not be overlooked: corrupted or lost trials."""


@dataclass(frozen=True)
class Row:
    """A row: its heading, a word on it, and its cells."""

    head: str
    cells: tuple[Cell, ...]
    sub: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own; an empty title has none."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Grid:
    """A table. `corner` heads the first column; `over` spans columns: (title, how many)."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    over: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Sut:
    """One column of the scorecard: a SUT with a chain, and its part of the summary."""

    name: str
    chain: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """``sut+chain``, as trials name it."""
        return f"{self.name}+{self.chain}" if self.chain else self.name

    def cell(self, workflow_class: str) -> Mapping[str, Any]:
        """The metrics of one class; empty where there are none."""
        return table(self.data, "classes", workflow_class)


def suts_of(summary: Mapping[str, Any]) -> list[Sut]:
    """Every SUT × chain of a summary, gaps among them; the naive reference comes last."""
    found = []
    for name, entry in table(summary, "suts").items():
        data = entry if isinstance(entry, dict) else {}
        plain, _, tail = str(name).partition("+")
        found.append(Sut(str(data.get("sut") or plain), str(data.get("chain") or tail), data))
    for key in table(summary, "gaps"):
        # A gap is shown as one: a column in which nothing was measured.
        name, _, chain = str(key).partition("+")
        found.append(Sut(name, chain, {}))
    return sorted(found, key=lambda s: (s.name == "naive", s.name, CHAIN_ORDER.get(s.chain, 3), s.chain))


def classes_of(suts: Iterable[Sut]) -> list[str]:
    """Every workflow class that any of them was measured on."""
    return sorted({str(name) for sut in suts for name in table(sut.data, "classes")})


def rate_cell(found: Rate | None, said: Mark | None = None) -> Cell:
    """A rate with its counts and interval."""
    if found is None:
        return Cell(DASH, ("n = 0 or not measured",), said)
    return Cell(found.text, (found.counts, found.interval), said)


def by_class(caption: str, suts: list[Sut], classes: list[str], cell: Callable[[Sut, str], Cell]) -> Grid:
    """A row for each class, a column for each SUT × chain."""
    rows = tuple(Row(name, tuple(cell(sut, name) for sut in suts)) for name in classes)
    return Grid(caption, "Class", tuple(sut.key for sut in suts), (Group("", rows),))


def held_cell(sut: Sut, workflow_class: str, metric: str) -> Cell:
    """A metric of a class, held against its target; one that is not that of every class is said."""
    target, cell = target_of(metric, workflow_class), sut.cell(workflow_class)
    held = rate_cell(rate(cell.get(metric)), mark(target, cell, metric))
    if target == TARGETS[metric]:
        return held
    return Cell(held.main, (*held.sub, f"target {target.text}"), held.mark)
