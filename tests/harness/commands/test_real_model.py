"""What the options of a real model come to, before and after a run. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.walk import trajectory
from kintsugi.harness.commands.real_model import REAL, Behind, answered_by, by_real_model, patient, token_source
from kintsugi.harness.models.tokens import ESTIMATE
from kintsugi.harness.records import TrialResult, Usage
from kintsugi.scenarios.planner import plan
from kintsugi.scenarios.suite import load_suite

ASKED = {"model": "openai/m", "record": None, "yes": False}
RECORD = {"name": "openai/m", "from": "provider", "timeout_seconds": None}


def test_nothing_changes_without_a_model() -> None:
    behind = Behind.given({"model": None, "prices": None, "yes": False})
    assert not behind.real
    assert behind.record_of() is None
    suite, workflows = load_suite("standard"), load_workflows()
    assert patient(suite, workflows, None) is suite
    the_plan = plan(suite, workflows, 7, ["minimal+optimized"])
    assert by_real_model(the_plan, None) is the_plan


def test_what_is_kept_of_a_model_is_its_name_and_no_folder() -> None:
    behind = Behind.given({**ASKED, "model_base": "http://127.0.0.1:9/v1", "model_timeout": 60.0, "record": "tapes/m"})
    kept = {"name": "openai/m", "from": "provider", "timeout_seconds": 60.0, "base": "http://127.0.0.1:9/v1"}
    assert behind.record_of() == kept
    assert behind.limit() is None
    assert Behind.given({**ASKED, "spend_limit": "2.5"}).limit() == 2.5


def test_the_trials_of_a_real_model_are_told_from_a_script_s() -> None:
    suite, workflows = load_suite("standard"), load_workflows()
    the_plan = plan(suite, workflows, 7, ["minimal+optimized"])
    real = by_real_model(the_plan, RECORD)
    assert [trial.id for trial in real.trials] == [trial.id for trial in the_plan.trials]
    assert {trial.variance for trial in real.trials} == {REAL}


def test_a_slow_model_is_waited_for_and_the_deadline_allows_for_it() -> None:
    suite, workflows = load_suite("standard"), load_workflows()
    before = {name: workflow.plan["policy"]["model_timeout_seconds"] for name, workflow in workflows.items()}
    slow = patient(suite, workflows, {**RECORD, "timeout_seconds": 60.0})
    assert {workflow.plan["policy"]["model_timeout_seconds"] for workflow in workflows.values()} == {60.0}
    for name, workflow in workflows.items():
        if suite.wants(name):
            longer = (60 - before[name]) * len(trajectory(workflow))
            assert slow.deadline_seconds >= suite.deadline_seconds + longer


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (None, "the scripted model"),
        ({"name": "openai/m", "from": "provider"}, "openai/m, asked through litellm"),
        ({"name": "openai/m", "from": "cassette"}, "openai/m, from a cassette"),
    ],
)
def test_who_answered(model: Any, said: str) -> None:
    assert answered_by({"model": model}) == said


def test_who_counted(make_result: Callable[..., TrialResult]) -> None:
    counted = make_result(usage=Usage(model_calls=5))
    estimated = replace(counted, usage=Usage(model_calls=5, estimated_calls=2))
    assert token_source({}, [estimated]) == ESTIMATE
    assert token_source({"model": RECORD}, [counted]) == "as the provider reports them"
    said = token_source({"model": RECORD}, [counted, estimated])
    assert said.startswith("as the provider reports them; of 10 asks, 2 replies came without (estimate")
