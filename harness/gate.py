"""Judges a summary by thresholds: pass, fail or inconclusive, line by line and class by class. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kintsugi.golden_workflows.spec import FileProblem, nearest
from kintsugi.harness.intervals import DRAWN_MIN
from kintsugi.harness.readings import Reading, block_of, keys, read
from kintsugi.harness.thresholds import EVERY_CLASS, METRICS, STORM, Line, Thresholds, load_thresholds

__all__ = ["Decision", "JudgedLine", "judge", "load_thresholds"]

Verdict = Literal["pass", "fail", "inconclusive", "not_applicable"]
Summary = Mapping[str, Any]
EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
WHY_MISSING = {
    "rate": "n = 0",
    "cost": "no success, no figure",
    "saving": "no trials in common, or no success on one side",
    "seconds": "no trials that were timed",
    "number": "no storm was witnessed",
}
ROUNDING = 1e-12
"""So that a figure is never worse than itself."""


@dataclass(frozen=True)
class JudgedLine:
    """What came of one line for one class. ``not_applicable`` decides nothing."""

    metric: str
    sut: str
    workflow_class: str
    fault: str
    mode: str
    target: str
    measured: str
    verdict: Verdict
    why: str

    def __str__(self) -> str:
        name = f"{self.metric}[{self.fault}]" if self.fault else self.metric
        why = f": {self.why}" if self.why else ""
        where = f"{self.verdict:<14} {self.workflow_class:<10}"
        return f"{where} {name} {self.measured}, target {self.target} ({self.sut}){why}"


@dataclass(frozen=True)
class Decision:
    """The gate's word: fail if any line fails, else inconclusive if any is or none passes, else pass."""

    verdict: Literal["pass", "fail", "inconclusive"]
    lines: tuple[JudgedLine, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The decision as JSON."""
        return asdict(self) | {"exit_code": self.exit_code}

    def __str__(self) -> str:
        return "\n".join([*map(str, self.lines), f"gate: {self.verdict}"])


@dataclass(frozen=True)
class _Finding:
    verdict: Verdict
    why: str = ""


def judge(summary: Summary, thresholds: Thresholds, baseline: Summary | None = None) -> Decision:
    """Judges every line for every class it applies to; relative lines look at `baseline`, another summary.

    A line of all classes is judged for each class that any SUT of the summary has. FileProblem where a line
    names a class that neither the shipped workflows nor the summary have.
    """
    present = {name for block in summary["suts"].values() for name in block["classes"]}
    judged = _incomplete(summary)
    for line in thresholds.lines:
        for name in _classes(line, present, thresholds):
            reading = read(line, name, summary)
            finding = _unsettled(line, name, reading, summary, thresholds)
            if finding is None and reading is not None:
                if not line.relative:
                    finding = _settle(line, reading)
                elif baseline is not None:
                    finding = _beside(line, name, reading, summary, baseline, thresholds)
            judged.append(
                _judged(line, name, reading, finding or _Finding("inconclusive", "this line needs --baseline"))
            )
    verdicts = {line.verdict for line in judged}
    if "fail" in verdicts:
        return Decision("fail", tuple(judged))
    sure = "pass" in verdicts and "inconclusive" not in verdicts
    return Decision("pass" if sure else "inconclusive", tuple(judged))


def _classes(line: Line, present: set[str], thresholds: Thresholds) -> list[str]:
    if line.workflow_class == EVERY_CLASS:
        return sorted(present) or [EVERY_CLASS]
    known = present | thresholds.classes
    if line.workflow_class not in known:
        hint = nearest(line.workflow_class, known)
        where = f"{thresholds.path}: {line.metric}, class"
        raise FileProblem(f"{where}: no workflow class is called {line.workflow_class!r}{hint}")
    return [] if line.if_present and line.workflow_class not in present else [line.workflow_class]


def _incomplete(summary: Summary) -> list[JudgedLine]:
    """A line that stands for the trials that were planned and not run: what is not known can't pass."""
    trials = summary["trials"]
    planned, done = trials.get("planned"), trials["run"] + trials["baseline_failed"]
    if planned is None or planned <= done:
        return []
    target, measured, why = f"{planned} run", f"{done} run", "the run was interrupted; resume it"
    return [JudgedLine("trials", "all", EVERY_CLASS, "", "point", target, measured, "inconclusive", why)]


def _judged(line: Line, name: str, reading: Reading | None, finding: _Finding) -> JudgedLine:
    sut = f"{line.sut} against {line.against}" if line.against else line.sut
    measured = reading.text if reading else "not measured"
    return JudgedLine(
        line.metric, sut, name, line.fault, line.mode, _target(line), measured, finding.verdict, finding.why
    )


def _unsettled(
    line: Line, name: str, reading: Reading | None, summary: Summary, thresholds: Thresholds
) -> _Finding | None:
    """What ends a line before its target is looked at; None where the reading is to be trusted.

    A count that must be 0 and is not fails whatever else is missing.
    """
    block = block_of(summary, line.sut)
    if block is None:
        return _Finding("inconclusive", f"no results of this SUT{nearest(line.sut, keys(summary))}")
    if line.mode == "zero" and reading is not None and reading.k:
        return _Finding("fail")
    if name not in block["classes"]:
        return _Finding("inconclusive", "no results of this class")
    cell = block["classes"][name]
    why = _doubt(line, cell, reading, summary.get("fault_gaps", {}), thresholds)
    absent = block["not_applicable"].get(line.fault, {}).get(name)
    if why and reading is None and absent and not _planned(line.fault, cell):
        return _Finding("not_applicable", "no form of this fault applies")
    return _Finding("inconclusive", why) if why else None


def _planned(fault: str, cell: Summary) -> bool:
    """Whether a class has trials of a fault, run or not; an earlier summary, which does not say so, may have."""
    return "exposure" not in cell or fault in cell["exposure"] or fault in cell["fault_gaps"]


def _doubt(
    line: Line, cell: Summary, reading: Reading | None, fault_gaps: Mapping[str, str], thresholds: Thresholds
) -> str:
    """Why a cell can't be judged; empty where it can."""
    failed, trials = cell["baselines"]["failed"], cell["trials"]
    if METRICS[line.metric].under_faults and failed:
        return f"baseline failed: {', '.join(failed)}"
    if trials["harness_error"] > thresholds.unjudged_max * trials["run"]:
        return f"the harness could not judge {trials['harness_error']} of {trials['run']} trials"
    if reading is None:
        return WHY_MISSING[METRICS[line.metric].kind]
    if why := _unexposed(line, cell, thresholds.unwitnessed_max) or _gap(line, cell, fault_gaps):
        return why
    if reading.n < line.min_n and not reading.exhaustive:
        return f"n = {reading.n}, at least {line.min_n} needed"
    return ""


def _unexposed(line: Line, cell: Summary, unwitnessed_max: float) -> str:
    """Which fault class was hardly struck, or, under faults, not at all; empty where each was.

    Where none exceeds the limit, all of them together don't either. An earlier summary tells only of all of them.
    """
    metric = METRICS[line.metric]
    if not metric.exposure:
        return ""
    for fault, fates in cell.get(metric.exposure, {"faults": cell["trials"]}).items():
        missed = sum(fates[name] for name in ("not_exposed", "invalid_injection", "harness_error"))
        struck, run = fates["witnessed"], fates["witnessed"] + missed
        if not _counts(line, fault) or not run:
            continue
        if metric.under_faults and not struck:
            return f"n = 0 for {fault}, of {run} trials"
        if missed > unwitnessed_max * run:
            return f"only {struck} of {run} trials of {fault} were witnessed"
    return ""


def _gap(line: Line, cell: Summary, fault_gaps: Mapping[str, str]) -> str:
    """Which fault class could not be run whole, where a line under faults counts it."""
    metric = METRICS[line.metric]
    if not metric.under_faults or metric.exposure != "exposure":
        return ""
    found = (fault for fault in cell.get("fault_gaps", fault_gaps) if _counts(line, fault))
    return next((f"{fault} was not run whole here: {fault_gaps[fault]}" for fault in found), "")


def _counts(line: Line, fault: str) -> bool:
    """Whether trials of a fault class are among what a line's figure is made of."""
    if METRICS[line.metric].kind == "number":
        return STORM in fault.split("+")
    return line.fault in {"", fault}


def _settle(line: Line, reading: Reading) -> _Finding:
    """Whether a trusted reading meets an absolute target."""
    key, target = line.target
    if key == "zero":
        return _Finding("pass", "" if reading.high is None else f"at most {reading.high:.2%} at 95%")

    def meets(value: float) -> bool:
        return {"at_least": value >= target, "at_most": value <= target, "below": value < target}[key]

    if line.mode == "point" or reading.exhaustive:
        return _Finding("pass" if meets(reading.value) else "fail")
    if reading.low is None and reading.high is None:
        return _Finding("inconclusive", f"no interval of fewer than {DRAWN_MIN} runs or pairs")
    # An end that is missing is without bound, and meets nothing.
    return _spanned([end is not None and meets(end) for end in (reading.low, reading.high)])


def _spanned(ends_meet: list[bool]) -> _Finding:
    if all(ends_meet):
        return _Finding("pass")
    if any(ends_meet):
        return _Finding("inconclusive", "the 95% interval spans the target")
    return _Finding("fail")


def _beside(
    line: Line, name: str, reading: Reading, summary: Summary, baseline: Summary, thresholds: Thresholds
) -> _Finding:
    """Whether a reading is good enough beside that of a baseline run of the same suite."""
    if baseline["suite"] != summary["suite"]:
        why = f"the baseline is of suite {baseline['suite']!r}, this one of {summary['suite']!r}"
        return _Finding("inconclusive", why)
    other = read(line, name, baseline)
    unsettled = _unsettled(line, name, other, baseline, thresholds)
    if unsettled is not None or other is None:
        return _Finding("inconclusive", f"in the baseline: {unsettled.why if unsettled else ''}")
    if METRICS[line.metric].kind == "rate":
        low, point, high = _difference(reading, other, METRICS[line.metric].better)
    else:
        low, point, high = _saving(reading, other)
    if math.isnan(point):
        return _Finding("inconclusive", f"baseline {other.text}: nothing can be a share of it")
    key, allowed = line.target
    limit = (allowed if key == "cheaper_by" else -allowed) - ROUNDING
    if line.mode == "point":
        return _Finding("pass" if point >= limit else "fail", f"baseline {other.text}")
    found = _spanned([low >= limit, high >= limit])
    return _Finding(found.verdict, f"baseline {other.text}{f'; {found.why}' if found.why else ''}")


def _difference(here: Reading, there: Reading, better: str) -> tuple[float, float, float]:
    """How much better one rate is than another: lower end, estimate, upper end.

    From the two intervals, by the method of variance estimates recovery (Zou and Donner, Statistics in
    Medicine 27, 2008). An exhaustive rate is known exactly.
    """
    (l1, p1, u1), (l2, p2, u2) = (
        (r.value if r.low is None else r.low, r.value, r.value if r.high is None else r.high) for r in (here, there)
    )
    point = p1 - p2
    low, high = point - math.hypot(p1 - l1, u2 - p2), point + math.hypot(u1 - p1, p2 - l2)
    return (low, point, high) if better == "higher" else (-high, -point, -low)


def _saving(here: Reading, there: Reading) -> tuple[float, float, float]:
    """By what share one cost or time is below another: lower end, estimate, upper end.

    The same method on logarithms; without bound where an interval is. NaN where the other is 0 or infinite.
    """
    if not there.value or math.isinf(there.value):
        return math.nan, math.nan, math.nan
    point = 1 - here.value / there.value
    logs = []
    for reading in (here, there):
        if not (reading.low and reading.value and reading.high) or math.isinf(reading.value):
            return -math.inf, point, math.inf
        logs.append((math.log(reading.low), math.log(reading.value), math.log(reading.high)))
    (l1, p1, u1), (l2, p2, u2) = logs
    low, high = p1 - p2 - math.hypot(p1 - l1, u2 - p2), p1 - p2 + math.hypot(u1 - p1, p2 - l2)
    return 1 - math.exp(high), point, 1 - math.exp(low)


def _target(line: Line) -> str:
    """A line's target in words."""
    key, value = line.target
    if key == "zero":
        return "0"
    shown = {"cost": f"${value:.4f}", "seconds": f"{value:g} s", "number": f"{value:g}"}
    amount = f"{value * 100:g}%" if line.relative else shown.get(METRICS[line.metric].kind, f"{value * 100:g}%")
    return {
        "at_least": f"≥ {amount}",
        "at_most": f"≤ {amount}",
        "below": f"< {amount}",
        "no_worse_by": f"no worse than baseline by more than {amount}",
        "cheaper_by": f"at least {amount} cheaper than baseline",
    }[key]
