"""What broke and why, and what is counted apart: trials grouped so that each cause stands once, with its replay."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kintsugi.harness.records import TrialResult
from kintsugi.reports.numbers import DASH, number, pick, table
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut

__all__ = ["Breakage", "apart_grid", "apart_reasons", "breakages", "failed_baselines"]

PASSING = frozenset({"correct", "correct_halt"})
SEVERITY = ("corrupted", "lost", "failed", "needless_halt")
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
    """Every non-passing trial by SUT × chain, grouped by fault, verdict and reason; the gravest and largest first."""
    bad = [r for r in results if r.verdict is not None and r.verdict not in PASSING and r.verdict != "harness_error"]
    found = _grouped(bad, lambda r: str(r.verdict), folder)
    by_key: dict[str, list[Breakage]] = {}
    for breakage in sorted(found, key=lambda b: (SEVERITY.index(b.ending), -b.count, b.fault, b.example)):
        by_key.setdefault(breakage.key, []).append(breakage)
    return by_key


def apart_reasons(results: Sequence[TrialResult], folder: str) -> list[Breakage]:
    """The trials that are in no denominator, grouped by why."""
    apart = [r for r in results if _fate(r)]
    return sorted(_grouped(apart, _fate, folder), key=lambda b: (b.key, b.ending, -b.count, b.example))


def _fate(result: TrialResult) -> str:
    fate = "harness_error" if result.verdict == "harness_error" else result.injection
    return APART.get(fate, "")


def _grouped(results: Sequence[TrialResult], ending: Any, folder: str) -> list[Breakage]:  # noqa: ANN401 - a function
    groups: dict[tuple[str, str, str, str], list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: r.id):
        cause = _PARTICULAR.sub("…", result.reason)
        groups.setdefault((result.key, _what(result), ending(result), cause), []).append(result)
    return [
        Breakage(key, fault, how, found[0].reason, len(found), found[0].id, _replay(folder, found[0].id))
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
        absent = [number(n) or 0.0 for split in table(sut.data, "not_applicable").values() for n in _values(split)]
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
        for workflow in pick(cell, "baselines", "failed") or ()
    ]
