"""Threshold files: what the gate asks of a summary. What is wrong in one is said in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.problems import FileProblem, nearest, read_toml, validation_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVERY_CLASS", "METRICS", "STORM", "UNWITNESSED_MAX", "Line", "Metric", "Thresholds", "load_thresholds"]

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden_workflows"
EVERY_CLASS = "*"
STORM = "retry_storm"
"""The only fault class that the metrics of storms rest on."""
UNWITNESSED_MAX = 0.25
"""Of a fault class, the share of trials that may go without a witnessed and judged strike.

What was not struck says nothing of the SUT, and a SUT that seldom comes to where it would be struck is not one that
recovers. The smallest classes of a standard suite have four trials in a cell: one of them may miss, and no more.
"""
MODES = ("point", "interval", "zero")
TARGETS = ("at_least", "at_most", "below", "no_worse_by", "cheaper_by")
MARKS = ("p50", "p95", "max")
BY_FAULT = ("fault_recovery_rate", "unattended_recovery_rate")
HIGHER = (
    "workflow_completion_rate",
    "tool_selection_accuracy",
    "tool_selection_accuracy_reached",
    "tool_parameter_accuracy",
    "tool_parameter_accuracy_reached",
    "tool_call_accuracy",
    "tool_call_accuracy_reached",
    "trajectory_match_rate",
    "trajectory_exact_rate",
    "trajectory_any_order_rate",
)
LOWER = ("unplanned_repair_rate", "planned_checkpoint_rate", "human_override_rate")


@dataclass(frozen=True)
class Metric:
    """A metric that can be gated: where it stands in a class's cell, and which way is better."""

    kind: Literal["rate", "cost", "seconds", "number", "saving"]
    path: tuple[str, ...]
    better: Literal["higher", "lower"]
    under_faults: bool = False
    """Whether it rests on fault trials, so that a failed baseline leaves it open."""
    exposure: str = ""
    """The part of a cell that says how many of the fault trials it rests on were witnessed; empty for no part."""

    @property
    def has_interval(self) -> bool:
        """Whether the summary says how sure it is."""
        return self.kind in {"rate", "saving"} or self.path[-1] == "machine"


def _metrics() -> dict[str, Metric]:
    found = {"pass_k": Metric("rate", ("pass_k",), "higher")}
    for name in ("unsafe_action_rate", "unsafe_action_rate_proposed", "corruption_rate"):
        found[name] = Metric("rate", (name,), "lower", exposure="exposure")
    for name in ("fault_recovery_rate", "unattended_recovery_rate", "resumed_exactly"):
        found[name] = Metric("rate", (name,), "higher", under_faults=True, exposure="exposure")
    # Coverage is itself the share that was witnessed.
    found["coverage"] = Metric("rate", ("coverage",), "higher", under_faults=True)
    for suffix in ("", "_under_faults"):
        found |= _twice(suffix)
    for name in ("detect", "progress", "end", "added"):
        for mark in MARKS:
            found[f"recovery_seconds.{name}.{mark}"] = Metric(
                "seconds", ("recovery_seconds", name, mark), "lower", under_faults=True, exposure="exposure_timing"
            )
    for name in ("outage_calls_per_workflow_max", "peak_requests_per_second", "drain_seconds", "wasted_usd"):
        found[f"storms.{name}"] = Metric("number", ("storms", name), "lower", under_faults=True, exposure="exposure")
    return found


def _twice(suffix: str) -> dict[str, Metric]:
    """The metrics that are measured clean and under faults; `suffix` says which."""
    faults = bool(suffix)
    exposure = "exposure" if faults else ""
    found = {}
    for name in HIGHER:
        found[name + suffix] = Metric("rate", (name + suffix,), "higher", faults, exposure)
    for name in LOWER:
        found[name + suffix] = Metric("rate", (name + suffix,), "lower", faults, exposure)
    for name in ("machine", "all_in", "waste"):
        path = (f"cost_per_successful_workflow_usd{suffix}", name)
        found[f"{name}_cost_usd{suffix}"] = Metric("cost", path, "lower", faults, exposure)
    found[f"cost_saving{suffix}"] = Metric("saving", (), "higher", faults, exposure)
    for mark in MARKS:
        name = f"approval_completion_seconds{suffix}"
        found[f"{name}.{mark}"] = Metric("seconds", (name, mark), "lower", faults, exposure)
    return found


METRICS = _metrics()
"""Every metric that a line may name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Strict):
    """One thing that must hold, of one class or of each; see thresholds.toml for what each key means."""

    metric: str
    sut: str = ""
    workflow_class: str = Field(default=EVERY_CLASS, alias="class")
    if_present: bool = False
    """Whether the line is passed over where no SUT of the summary has that class, instead of being inconclusive."""
    fault: str = ""
    mode: str = "point"
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    no_worse_by: float | None = Field(default=None, ge=0)
    cheaper_by: float | None = Field(default=None, ge=0, lt=1)
    against: str = ""
    min_n: int = Field(default=1, ge=1)

    @property
    def target(self) -> tuple[str, float]:
        """The key that gives the target, and its value; ``("zero", 0.0)`` in mode zero."""
        for key in TARGETS:
            value = getattr(self, key)
            if value is not None:
                return key, float(value)
        return "zero", 0.0

    @property
    def relative(self) -> bool:
        """Whether the line compares with a baseline run."""
        return self.target[0] in {"no_worse_by", "cheaper_by"}


class _File(_Strict):
    sut: str = "minimal+optimized"
    unjudged_max: float = Field(default=0.02, ge=0, le=1)
    unwitnessed_max: float = Field(default=UNWITNESSED_MAX, ge=0, le=1)
    lines: list[Line] = Field(min_length=1)


@dataclass(frozen=True)
class Thresholds:
    """A checked threshold file. `classes` are those that are known without looking at results."""

    path: Path
    lines: tuple[Line, ...]
    unjudged_max: float
    classes: frozenset[str]
    unwitnessed_max: float = UNWITNESSED_MAX


def load_thresholds(path: Path | None = None) -> Thresholds:
    """The thresholds of a TOML file (default: the targets of the metrics). Raises FileProblem."""
    path = path or HERE / "thresholds.toml"
    try:
        file = _File.model_validate(read_toml(path))
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, _File)}") from error
    for position, line in enumerate(file.lines, start=1):
        _check(line, path, position)
    lines = tuple(line if line.sut else line.model_copy(update={"sut": file.sut}) for line in file.lines)
    classes = frozenset(found.parent.name for found in GOLDEN.glob("*/*.toml")) - {"tools"}
    return Thresholds(path, lines, file.unjudged_max, classes, file.unwitnessed_max)


def _check(line: Line, path: Path, position: int) -> None:
    """Raises FileProblem where names or targets of the `position`-th line do not fit together."""
    names = [("metric", METRICS), ("mode", MODES)] + ([("fault", FAULTS)] if line.fault else [])
    for key, known in names:
        found = getattr(line, key)
        if found not in known:
            raise FileProblem(f"{path}: line {position}, {key}: no {key} is called {found!r}{nearest(found, known)}")
    for key, what in _misfits(line, METRICS[line.metric]):
        raise FileProblem(f"{path}: line {position} ({line.metric}), {key}: {what}")


def _misfits(line: Line, metric: Metric) -> Iterator[tuple[str, str]]:
    """What does not fit together in a line: the key, and what to do about it."""
    yield from _target_misfits(line, metric)
    if line.if_present and line.workflow_class == EVERY_CLASS:
        yield "if_present", "goes with a class; a line of every class is judged for those that are there anyway"
    if line.fault and line.metric not in BY_FAULT:
        yield "fault", f"only {' and '.join(BY_FAULT)} are told apart by fault"
    if line.mode == "interval" and not metric.has_interval:
        yield "mode", "this metric has no interval; use 'point'"
    if metric.kind == "saving" and not line.against:
        yield "against", "this key is missing; it names the sut+chain to compare with"
    if metric.kind != "saving" and line.against:
        yield "against", "only a cost_saving has it"


def _target_misfits(line: Line, metric: Metric) -> Iterator[tuple[str, str]]:
    given = [key for key in TARGETS if getattr(line, key) is not None]
    if line.mode == "zero":
        if given:
            yield given[0], "mode 'zero' has no other target; leave this key out"
        if metric.kind != "rate":
            yield "mode", "'zero' goes with a rate; use at_most here"
    elif len(given) != 1:
        yield "target", f"exactly one of {', '.join(TARGETS)} is needed, found {', '.join(given) or 'none'}"
    if line.cheaper_by is not None and metric.kind != "cost":
        yield "cheaper_by", "this goes with a cost; use no_worse_by here"
    if line.relative and metric.kind == "saving":
        yield "target", "a saving is relative already; use at_least"
