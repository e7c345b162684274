"""What broke and why, and what is counted apart: trials grouped so that each cause stands once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kintsugi.reports.numbers import DASH, listed, number, pick, table
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut

if TYPE_CHECKING:
    from kintsugi.harness.records import TrialResult

__all__ = ["Breakage", "apart_grid", "apart_reasons", "breakages", "failed_baselines"]

PASSING = frozenset({"correct", "correct_halt"})
STORMED = "storm out of bounds"
SEVERITY = ("corrupted", "lost", "failed", STORMED, "needless_halt")
APART = {
    "not_exposed": "not exposed",
    "invalid_injection": "invalid injection",
    "baseline_failed": "baseline failed",
    "harness_error": "harness error",
}

# What differs between two trials that broke in the same way: the step, tool, values and numbers of each.
_PARTICULAR = re.compile(
    r"""'[^']*' | "[^"]*" | \([^)]*\) | \bstep\ \w+ | \b[\w-]+(?:\.[\w-]+)+ | \b[\w.#-]*\d[\w.#-]*""", re.VERBOSE
)


@dataclass(frozen=True)
class Breakage:
    """Trials of one SUT × chain that ended alike under the same fault."""

    key: str
    where: str
    """Under which fault, or in what kind of run without one."""
    ending: str
    reason: str
    """That of the example."""
    count: int
    example: str
    command: str


def breakages(results: Sequence[TrialResult], folder: str) -> dict[str, list[Breakage]]:
    """Every non-passing trial by SUT × chain, grouped by fault, verdict and reason; the gravest first."""
    found = _grouped([r for r in results if _ending(r)], _ending, folder)
    by_key: dict[str, list[Breakage]] = {}
    for breakage in sorted(found, key=lambda b: (SEVERITY.index(b.ending), -b.count, b.where, b.example)):
        by_key.setdefault(breakage.key, []).append(breakage)
    return by_key


def _ending(result: TrialResult) -> str:
    """How a trial that did not pass ended; empty for one that did, or that there is no verdict on."""
    if result.verdict is None or result.verdict == "harness_error":
        return ""
    if result.verdict not in PASSING:
        return result.verdict
    return STORMED if result.storm is not None and not result.storm.within_bounds else ""


def _why(result: TrialResult) -> str:
    if _ending(result) == STORMED and result.storm is not None:
        return f"{result.storm.outage_calls_per_workflow:.1f} calls a workflow while the tool was out"
    return result.reason


def apart_reasons(results: Sequence[TrialResult], folder: str) -> list[Breakage]:
    """The trials that are in no denominator, grouped by why."""
    apart = [r for r in results if _fate(r)]
    return sorted(_grouped(apart, _fate, folder), key=lambda b: (b.key, b.ending, -b.count, b.example))


def _fate(result: TrialResult) -> str:
    fate = "harness_error" if result.verdict == "harness_error" else result.injection
    return APART.get(fate, "")


def _grouped(results: Sequence[TrialResult], ending: Callable[[TrialResult], str], folder: str) -> list[Breakage]:
    groups: dict[tuple[str, str, str, str], list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: r.id):
        cause = _PARTICULAR.sub("…", _why(result))
        groups.setdefault((result.key, _what(result), ending(result), cause), []).append(result)
    return [
        Breakage(key, where, how, _why(found[0]), len(found), found[0].id, _replay(folder, found[0].id))
        for (key, where, how, _), found in groups.items()
    ]


def _what(result: TrialResult) -> str:
    """Under which fault, or in what kind of run without one."""
    return f"under {result.fault}" if result.fault else f"in a {result.kind} run without a fault"


def _replay(folder: str, trial: str) -> str:
    return f"kintsugi replay {shlex.quote(folder)} --trial {shlex.quote(trial)}"


def apart_grid(suts: Sequence[Sut]) -> Grid:
    """How many trials of each SUT × chain are in no denominator, by why, as the summary counts them."""
    rows = []
    for sut in suts:
        cells = table(sut.data, "classes").values()
        counted = [[number(pick(cell, "trials", fate)) for cell in cells] for fate in APART]
        counted.append([number(n) for split in _splits(sut, "not_applicable") for n in split.values()])
        counted.append([number(pick(cell, "corrupted_unwitnessed")) for cell in cells])
        rows.append(Row(sut.key, tuple(map(_sum, counted))))
    columns = (*APART.values(), "not applicable", "corrupted all the same")
    return Grid("Trials and cells in no denominator", "SUT + chain", columns, (Group("", tuple(rows)),))


def _splits(sut: Sut, part: str) -> list[Mapping[str, Any]]:
    return [split for split in table(sut.data, part).values() if isinstance(split, Mapping)]


def _sum(found: Sequence[float | None]) -> Cell:
    """A sum; a dash where a part of it is not known."""
    known = [value for value in found if value is not None]
    return Cell(f"{sum(known):g}" if len(known) == len(found) else DASH)


def failed_baselines(suts: Sequence[Sut]) -> list[tuple[str, str]]:
    """(sut+chain, workflow) whose clean run did not end correctly, so that its faults could not be scored."""
    return [
        (sut.key, str(workflow))
        for sut in suts
        for cell in table(sut.data, "classes").values()
        for workflow in listed(cell, "baselines", "failed")
    ]
