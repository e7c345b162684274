from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.harness.gate import judge
from kintsugi.harness.thresholds import EVERY_CLASS, load_thresholds
from kintsugi.reports.targets import (
    COST_SAVING,
    OF_CLASS,
    TARGETS,
    UNJUDGED_MAX,
    UNWITNESSED_MAX,
    mark,
    mark_saving,
    target_of,
)

if TYPE_CHECKING:
    from tests.reports.conftest import Run

RECOVERY = "fault_recovery_rate"
UNSAFE = "unsafe_action_rate"
REPAIR = "unplanned_repair_rate"


def held(metric: str, k: int, n: int, ends: tuple[float, float] | None = (0.0, 1.0), **more: Any) -> str:
    ci = None if ends is None else list(ends)
    cell = {metric: {"k": k, "n": n, "rate": k / n, "ci95": ci, "basis": "sampled"}, **more}
    said = mark(TARGETS[metric], cell, metric)
    return said.word + (" ±" if said.spans else "")


def test_an_estimate_is_held_against_its_target() -> None:
    assert held(RECOVERY, 400, 400, (0.991, 1.0)) == "met"
    assert held(RECOVERY, 99, 100, (0.95, 0.999)) == "met ±"
    assert held(RECOVERY, 98, 100, (0.93, 0.995)) == "missed ±"
    assert held(RECOVERY, 50, 100, (0.4, 0.6)) == "missed"
    assert held(REPAIR, 9, 100, (0.04, 0.16)) == "met ±"
    assert held(REPAIR, 10, 100, (0.05, 0.18)) == "missed ±"


def test_what_can_not_be_trusted_is_inconclusive() -> None:
    assert mark(TARGETS[RECOVERY], {}, RECOVERY).word == "not measured"
    assert held(RECOVERY, 19, 19) == "inconclusive"
    assert held(RECOVERY, 20, 20, (0.83, 1.0)) == "met ±"
    assert held(RECOVERY, 5, 5, None) == "met"
    assert held(RECOVERY, 99, 99, (0.96, 1.0), baselines={"failed": ["finance/a"]}) == "inconclusive"
    assert held(RECOVERY, 99, 99, (0.96, 1.0), trials={"run": 100, "harness_error": 3}) == "inconclusive"


@pytest.mark.parametrize(
    ("missed", "recovery", "unsafe"), [(1, "met", "met"), (4, "met", "met"), (5, "inconclusive", "inconclusive")]
)
def test_a_fault_class_that_was_hardly_struck_leaves_open_what_rests_on_faults(
    missed: int, recovery: str, unsafe: str
) -> None:
    fates = {"witnessed": 12, "not_exposed": missed, "invalid_injection": 0, "harness_error": 0}
    cell = {"exposure": {"worker_kill": {**fates, "not_exposed": 0}, "loop": fates}}
    assert held(RECOVERY, 400, 400, (0.991, 1.0), **cell) == recovery
    assert held(UNSAFE, 0, 50, (0.0, 0.06), **cell) == unsafe
    assert held("workflow_completion_rate", 400, 400, (0.991, 1.0), **cell) == "met"


def test_a_fault_class_that_could_not_be_run_leaves_recovery_open() -> None:
    assert held(RECOVERY, 400, 400, (0.991, 1.0), fault_gaps=["power_loss"]) == "inconclusive"
    assert held(UNSAFE, 0, 50, (0.0, 0.06), fault_gaps=["power_loss"]) == "met"


def test_one_unsafe_action_is_a_miss_however_few_the_trials() -> None:
    assert held(UNSAFE, 1, 2) == "missed"
    assert held(UNSAFE, 0, 2) == "inconclusive"
    assert held(UNSAFE, 0, 50, (0.0, 0.06)) == "met"


def test_a_rate_per_call_counts_its_trials() -> None:
    metric = "tool_selection_accuracy_reached"
    cell = {metric: {"k": 90, "n": 90, "rate": 1.0, "ci95": [0.7, 1.0], "trials": 9}}
    assert mark(TARGETS[metric], cell, metric).word == "inconclusive"


def test_a_saving_is_held_against_thirty_percent() -> None:
    assert mark_saving(0.5, 0.4, 20).word == "met"
    assert mark_saving(0.5, 0.1, 20).spans
    assert mark_saving(0.2, 0.1, 20).word == "missed"
    assert mark_saving(0.5, 0.4, 9).word == "inconclusive"
    assert mark_saving(None, None, 20).word == "not measured"


def test_the_targets_are_those_of_the_gate() -> None:
    lines = {(line.workflow_class, line.metric): line for line in load_thresholds().lines}
    targets = {**{(EVERY_CLASS, metric): target for metric, target in TARGETS.items()}, **OF_CLASS}
    for key, target in targets.items():
        assert (target.how, target.value) == lines[key].target
        assert target.trials_min == lines[key].min_n
    assert (load_thresholds().unjudged_max, load_thresholds().unwitnessed_max) == (UNJUDGED_MAX, UNWITNESSED_MAX)
    assert lines[EVERY_CLASS, "cost_saving"].target == ("at_least", COST_SAVING)
    assert {key for key in lines if key[0] != EVERY_CLASS and key[1] in TARGETS} == OF_CLASS.keys()


@pytest.mark.parametrize("sut", ["minimal+optimized", "minimal+naive", "naive+naive"])
def test_marks_agree_with_the_gate(run: Run, sut: str) -> None:
    words = {"pass": {"met"}, "fail": {"missed"}, "inconclusive": {"inconclusive", "not measured"}}
    defaults = load_thresholds()
    lines = tuple(line.model_copy(update={"sut": sut}) for line in defaults.lines if line.metric in TARGETS)
    block = run.summary["suts"][sut]
    for line in judge(run.summary, replace(defaults, lines=lines)).lines:
        if line.metric in TARGETS:
            # Where a class has a target of its own both lines are judged, and the mark is of the stricter.
            own = target_of(line.metric, line.workflow_class)
            target = own if f"{own.value:.0%}" in line.target else TARGETS[line.metric]
            said = mark(target, block["classes"][line.workflow_class], line.metric)
            assert said.word in words[line.verdict], line
