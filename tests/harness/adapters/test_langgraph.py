"""LangGraph for real: its workers under the plain supervisor, and the faults that an engine has to deal with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from kintsugi.faults.points import Point
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.scenarios.trial import Strike, Trial

WORKFLOW = "finance/invoice_payment"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "langgraph":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS["langgraph"].must_be_there()
    assert str(caught.value) == (
        "langgraph: langgraph is not installed; pip install 'kintsugi-bench[langgraph]', or in a clone: make engines"
    )


# --- for real -------------------------------------------------------------------------------------------------


def struck(sut: str, fault: str, form: str, point: str, nodes: int = 1) -> Trial:
    return Trial("fault", sut, "naive", WORKFLOW, (Strike(fault, form, Point.parse(point)),), seed=7, nodes=nodes)


CLEAN = {
    sut: Trial("baseline", sut, "naive", WORKFLOW, seed=7)
    for sut in ("langgraph", "langgraph_default", "langgraph_postgres")
}
KILLED = {
    sut: struck(sut, "worker_kill", "at_boundary", "tool:pay[0]#1@committed")
    for sut in ("langgraph", "langgraph_postgres")
}
OPAQUE = struck("langgraph", "worker_kill", "at_boundary", "tool:tell[0]#1@committed")
APPROVED_LATE = struck("langgraph", "approval_delay", "late_after_restart", "human:pay[0]#1@waiting")
NODE_LOST = struck("langgraph", "node_loss", "process", "tool:order[0]#1@before", nodes=2)
TRIALS = [*CLEAN.values(), *KILLED.values(), OPAQUE, APPROVED_LATE, NODE_LOST]


def outcome(results: Results, trial: Trial) -> TrialResult:
    found: Mapping[str, TrialResult] = results.trials()
    return found[trial.id]


@pytest.mark.engines
@pytest.mark.process
@pytest.mark.parametrize("sut", CLEAN)
def test_a_clean_run_is_correct(results: Results, sut: str) -> None:
    result = outcome(results, CLEAN[sut])
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")
    assert [event["state"] for event in of(results.history(CLEAN[sut].id), "runner", "status")] == ["completed"]


@pytest.mark.engines
@pytest.mark.process
@pytest.mark.parametrize("sut", KILLED)
def test_a_payment_is_made_once_though_its_worker_was_killed_before_it_heard(results: Results, sut: str) -> None:
    result = outcome(results, KILLED[sut])
    assert (result.injection, result.verdict, result.resumed_exactly) == ("witnessed", "correct", True)
    assert result.generations == 2


@pytest.mark.engines
@pytest.mark.process
def test_an_opaque_call_is_not_made_again_by_itself(results: Results) -> None:
    result = outcome(results, OPAQUE)
    assert (result.injection, result.verdict) == ("witnessed", "correct_halt")
    sent = [e for e in of(results.history(OPAQUE.id), "world", "request") if e["step"] == "tell"]
    assert len(sent) == 1


@pytest.mark.engines
@pytest.mark.process
def test_an_approval_that_comes_after_a_restart_is_found(results: Results) -> None:
    result = outcome(results, APPROVED_LATE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert (result.generations, result.human.checkpoints, result.human.re_asked) == (2, 1, 0)


@pytest.mark.engines
@pytest.mark.process
def test_another_node_takes_over_what_a_lost_one_had(results: Results) -> None:
    result = outcome(results, NODE_LOST)
    assert (result.injection, result.verdict, result.resumed_exactly) == ("witnessed", "correct", True)
    by = {e["generation"] for e in of(results.history(NODE_LOST.id), "world", "effect")}
    assert len(by) == 1


@pytest.mark.engines
@pytest.mark.process
def test_nothing_of_it_is_left(results: Results) -> None:
    """The server and the workers all stand in folders of the run, or the server in one of its own."""
    standing = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            standing.append(str((process / "cwd").readlink()))
    assert [folder for folder in standing if folder.startswith(str(results.state_folder))] == []
    assert not results.state_folder.exists()
