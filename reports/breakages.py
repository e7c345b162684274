"""What broke and why, and what is counted apart: trials grouped so that each cause stands once."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kintsugi.reports.numbers import DASH, listed, number, table
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

# What differs between two trials that broke in the same way: quoted values, identifiers with digits, numbers.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\b[\w.-]*\d[\w.-]*\b")


@dataclass(frozen=True)
class Breakage:
    """Trials of one SUT × chain that ended alike under the same fault."""

    key: str
    fault: str
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
    for breakage in sorted(found, key=lambda b: (SEVERITY.index(b.ending), -b.count, b.fault, b.example)):
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


def _grouped(
    results: Sequence[TrialResult], ending: Callable[[TrialResult], str], folder: str
) -> list[Breakage]:
    groups: dict[tuple[str, str, str, str], list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: r.id):
        cause = _PARTICULAR.sub("…", _why(result))
        groups.setdefault((result.key, _what(result), ending(result), cause), []).append(result)
    return [
        Breakage(key, fault, how, _why(found[0]), len(found), found[0].id, _replay(folder, found[0].id))
        for (key, fault, how, _), found in groups.items()
    ]


def _what(result: TrialResult) -> str:
    """The fault, or what kind of run it was without one."""
    return result.fault or f"none ({result.kind} run)"


def _replay(folder: str, trial: str) -> str:
    return f"kintsugi replay {shlex.quote(folder)} --trial {shlex.quote(trial)}"


def apart_grid(suts: Sequence[Sut], results: Sequence[TrialResult]) -> Grid:
    """How many trials of each SUT × chain are in no denominator, and why."""
    counts = Counter((r.key, _fate(r)) for r in results)
    rows = []
    for sut in suts:
        absent = [
            number(n) or 0.0 for split in table(sut.data, "not_applicable").values() for n in _values(split)
        ]
        told = "not_applicable" in sut.data
        cells = [Cell(str(counts[sut.key, fate])) for fate in APART.values()]
        cells.append(Cell(f"{sum(absent):g}" if told else DASH))
        rows.append(Row(sut.key, tuple(cells)))
    columns = (*APART.values(), "not applicable")
    return Grid("Trials and cells in no denominator", "SUT + chain", columns, (Group("", tuple(rows)),))


def _values(split: object) -> list[object]:
    return list(split.values()) if isinstance(split, Mapping) else []


def failed_baselines(suts: Sequence[Sut]) -> list[tuple[str, str]]:
    """(sut+chain, workflow) whose clean run did not end correctly, so that its faults could not be scored."""
    return [
        (sut.key, str(workflow))
        for sut in suts
        for cell in table(sut.data, "classes").values()
        for workflow in listed(cell, "baselines", "failed")
    ]
