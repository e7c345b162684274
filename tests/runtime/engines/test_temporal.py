"""Temporal for real: its development server, its workers, and the faults that an engine has to deal with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from kintsugi.faults.points import Point
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = [pytest.mark.engines, pytest.mark.process]

WORKFLOW = "finance/invoice_payment"


def struck(sut: str, fault: str, form: str, point: str, nodes: int = 1) -> Trial:
    return Trial("fault", sut, "naive", WORKFLOW, (Strike(fault, form, Point.parse(point)),), seed=7, nodes=nodes)


CLEAN = {sut: Trial("baseline", sut, "naive", WORKFLOW, seed=7) for sut in ("temporal", "temporal_default")}
KILLED = struck("temporal", "worker_kill", "at_boundary", "tool:pay[0]#1@committed")
OPAQUE = struck("temporal", "worker_kill", "at_boundary", "tool:tell[0]#1@committed")
APPROVED_LATE = struck("temporal", "approval_delay", "late_after_restart", "human:pay[0]#1@waiting")
NODE_LOST = struck("temporal", "node_loss", "process", "tool:order[0]#1@before", nodes=2)
TRIALS = [*CLEAN.values(), KILLED, OPAQUE, APPROVED_LATE, NODE_LOST]


def outcome(results: Results, trial: Trial) -> TrialResult:
    found: Mapping[str, TrialResult] = results.trials()
    return found[trial.id]


@pytest.mark.parametrize("sut", CLEAN)
def test_a_clean_run_is_correct(results: Results, sut: str) -> None:
    result = outcome(results, CLEAN[sut])
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")


def test_a_payment_is_made_once_though_its_worker_was_killed_before_it_heard(results: Results) -> None:
    result = outcome(results, KILLED)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert result.generations == 2


def test_an_opaque_call_is_not_made_again_by_itself(results: Results) -> None:
    result = outcome(results, OPAQUE)
    assert (result.injection, result.verdict) == ("witnessed", "correct_halt")
    sent = [e for e in of(results.history(OPAQUE.id), "world", "request") if e["step"] == "tell"]
    assert len(sent) == 1


def test_an_approval_that_comes_after_a_restart_is_found(results: Results) -> None:
    result = outcome(results, APPROVED_LATE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert (result.generations, result.human.checkpoints, result.human.re_asked) == (2, 1, 0)


def test_another_node_takes_over_what_a_lost_one_had(results: Results) -> None:
    result = outcome(results, NODE_LOST)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    by = {e["generation"] for e in of(results.history(NODE_LOST.id), "world", "effect")}
    assert len(by) == 1


def test_nothing_of_it_is_left(results: Results) -> None:
    """The server and the workers all stand in folders of the run."""
    standing = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            standing.append(str((process / "cwd").readlink()))
    assert [folder for folder in standing if folder.startswith(str(results.state_folder))] == []
    assert not results.state_folder.exists()


def test_the_settings_that_a_reader_is_shown_are_those_in_force() -> None:
    pytest.importorskip("temporalio", reason="temporalio is not installed; pip install 'kintsugi-bench[temporal]'")
    from kintsugi.harness.adapters import temporal as adapter
    from kintsugi.runtime.engines import temporal, temporal_workflow

    assert adapter.ADDRESS == temporal.ADDRESS
    tuned, default = ADAPTERS["temporal"].settings, ADAPTERS["temporal_default"].settings
    beat = f"{temporal_workflow.HEARTBEAT_TIMEOUT.seconds} s, a heartbeat every {temporal.HEARTBEAT_SECONDS} s"
    assert tuned["heartbeat_timeout"] == beat
    assert tuned["sticky_queue_schedule_to_start_timeout"] == f"{temporal.STICKY_TIMEOUT.seconds} s"
    assert tuned["workflow task_timeout"] == f"{temporal.TASK_TIMEOUT.seconds} s"
    assert default["activities"].endswith(f"start_to_close_timeout {temporal_workflow.TUTORIAL_TIMEOUT.seconds} s")
    assert temporal_workflow.TUTORIAL_RETRY.maximum_attempts == 3
    assert default["activity retry"].startswith("three attempts")
