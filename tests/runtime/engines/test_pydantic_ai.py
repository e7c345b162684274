"""pydantic-ai's agent for real: through the workflows on DBOS, with the faults that its loop has to survive."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.chains import naive
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.engines

SUT = "pydantic_ai"
WORKFLOW = "finance/invoice_payment"
NEEDS = "pydantic-ai-slim is not installed; pip install 'kintsugi-bench[pydantic-ai]'"


def struck(fault: str, form: str, point: str, nodes: int = 1) -> Trial:
    return Trial("fault", SUT, "own", WORKFLOW, (Strike(fault, form, Point.parse(point)),), seed=7, nodes=nodes)


CLEAN = Trial("baseline", SUT, "own", WORKFLOW, seed=7)
KILLED = struck("worker_kill", "at_boundary", "tool:pay[0]#1@committed")
OPAQUE = struck("worker_kill", "at_boundary", "tool:tell[0]#1@committed")
APPROVED_LATE = struck("approval_delay", "late_after_restart", "human:pay[0]#1@waiting")
NODE_LOST = struck("node_loss", "process", "tool:order[0]#1@before", nodes=2)
EMPTY = struck("malformed_output", "empty_reply", "model:pay[0]#1@during")
TWICE = struck("malformed_output", "same_call_twice", "model:tell[0]#1@during")
TRIALS = [CLEAN, KILLED, OPAQUE, APPROVED_LATE, NODE_LOST, EMPTY, TWICE]


def outcome(results: Results, trial: Trial) -> TrialResult:
    found: Mapping[str, TrialResult] = results.trials()
    return found[trial.id]


@pytest.mark.process
def test_a_clean_run_is_correct(results: Results) -> None:
    result = outcome(results, CLEAN)
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")


@pytest.mark.process
@pytest.mark.parametrize("trial", [KILLED, NODE_LOST], ids=["killed", "node lost"])
def test_the_agent_goes_on_where_its_worker_died(results: Results, trial: Trial) -> None:
    result = outcome(results, trial)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    asked = [(event["step"], event["n"]) for event in of(results.history(trial.id), "gateway", "ask")]
    assert len(asked) == len(of(results.history(CLEAN.id), "gateway", "ask"))


@pytest.mark.process
def test_an_opaque_call_is_not_made_again_by_itself(results: Results) -> None:
    result = outcome(results, OPAQUE)
    assert (result.injection, result.verdict) == ("witnessed", "correct_halt")
    sent = [event for event in of(results.history(OPAQUE.id), "world", "request") if event["step"] == "tell"]
    assert len(sent) == 1


@pytest.mark.process
def test_an_approval_that_comes_after_a_restart_is_found(results: Results) -> None:
    result = outcome(results, APPROVED_LATE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert (result.generations, result.human.checkpoints, result.human.re_asked) == (2, 1, 0)


@pytest.mark.process
def test_an_empty_reply_is_asked_for_again_by_the_agent(results: Results) -> None:
    result = outcome(results, EMPTY)
    assert (result.injection, result.verdict) == ("witnessed", "correct")


@pytest.mark.process
def test_a_write_that_is_proposed_twice_at_once_is_made_once(results: Results) -> None:
    result = outcome(results, TWICE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")


def test_the_tools_bear_the_names_that_the_scripted_model_knows() -> None:
    pytest.importorskip("pydantic_ai", reason=NEEDS)
    from kintsugi.runtime.engines import pydantic_ai

    assert pydantic_ai.APPROVAL_FUNCTION == naive.APPROVAL_FUNCTION
    assert pydantic_ai.WAIT_FUNCTION == naive.WAIT_FUNCTION
    for workflow in load_workflows().values():
        assert workflow.plan["model"] == pydantic_ai.MODEL
        for tool in workflow.tools:
            assert pydantic_ai.function_name(tool) == naive.function_name(tool)


def test_the_settings_that_a_reader_is_shown_are_those_in_force() -> None:
    pytest.importorskip("pydantic_ai", reason=NEEDS)
    from kintsugi.runtime.engines import pydantic_ai

    retries = pydantic_ai.MODEL_RETRIES
    shown = ADAPTERS[SUT].settings["model_step_config"]
    assert f"max_attempts {retries.attempts}, interval_seconds {retries.base_seconds:g}" in shown


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "pydantic-ai-slim":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS[SUT].must_be_there()
    assert str(caught.value).startswith(
        "pydantic_ai: pydantic-ai-slim is not installed; pip install 'kintsugi-bench[pydantic-ai]'"
    )
