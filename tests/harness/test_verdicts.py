"""A history becomes a line of ``trials.jsonl``."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.measures import delivered
from kintsugi.harness.rates import samples
from kintsugi.harness.records import INJECTIONS, VERDICTS, Repeats, TrialResult
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Trial

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.harness.history import Event
    from kintsugi.harness.measures import Delivered

INVOICE = load_workflows()["finance/invoice_payment"]
KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"


@pytest.fixture
def clean(write_history: WriteHistory) -> Delivered:
    """What a correct baseline delivers."""
    return delivered(write_history(INVOICE.name).is_correct().events)


@pytest.fixture
def killed(write_history: WriteHistory) -> HandWritten:
    """A run whose worker was killed at the payment, and that recovered."""
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay")
    run.calls("pay")
    return run.struck().dies().does("pay").goes_on("note").ends()


def result_of(trial: Trial, events: list[Event], clean: Delivered | None) -> TrialResult:
    return judge_trial(INVOICE, trial, events, clean, 5.0)


def test_a_result_says_what_was_tried_and_what_came_of_it(
    killed: HandWritten, clean: Delivered, make_trial: MakeTrial
) -> None:
    trial = make_trial(INVOICE.name, KILL, weight=2.5)
    found = result_of(trial, killed.closed(), clean)
    assert (found.id, found.kind, found.key) == (trial.id, "fault", "minimal+optimized")
    assert (found.workflow, found.workflow_class, found.seed, found.variance) == (INVOICE.name, "finance", 7, "none")
    assert (found.fault, found.form, found.phase) == ("worker_kill", "at_boundary", "before")
    assert found.points == ("tool:pay[0]#1@before",)
    assert (found.layer, found.dealt_with_by) == (FAULTS["worker_kill"].layer, FAULTS["worker_kill"].dealt_with_by)
    assert (found.injection, found.verdict, found.resumed_exactly) == ("witnessed", "correct", True)
    assert (found.weight, found.generations) == (2.5, 2)
    assert found.review_minutes == INVOICE.task.review_minutes
    assert found.repair_minutes == INVOICE.task.repair_minutes
    assert Trial.from_json(dict(found.trial)) == trial
    assert found.storm is None


def test_what_was_done_again_is_counted_against_the_baseline(
    killed: HandWritten, clean: Delivered, make_trial: MakeTrial
) -> None:
    found = result_of(make_trial(INVOICE.name, KILL), killed.does("order").closed(), clean)
    assert (found.repeats, found.resumed_exactly) == (Repeats(tool_calls=1), False)


def test_a_clean_trial_has_no_fault(write_history: WriteHistory, clean: Delivered, make_trial: MakeTrial) -> None:
    found = result_of(make_trial(INVOICE.name), write_history(INVOICE.name).is_correct().closed(), clean)
    assert (found.fault, found.form, found.points, found.phase, found.layer) == ("", "", (), "", "")
    assert (found.injection, found.verdict, found.resumed_exactly) == ("none", "correct", None)
    assert found.repeats == Repeats()


def test_a_baseline_repeats_nothing_since_it_is_what_others_are_held_against(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    # Every call of a baseline once counted as done again.
    trial = make_trial(INVOICE.name, kind="baseline")
    found = result_of(trial, write_history(INVOICE.name).is_correct().closed(), {})
    assert (found.verdict, found.repeats) == ("correct", Repeats())


@pytest.mark.parametrize("kind", ["fault", "timing"])
def test_without_a_correct_baseline_a_fault_gives_no_verdict(
    kind: str, killed: HandWritten, make_trial: MakeTrial
) -> None:
    found = result_of(make_trial(INVOICE.name, KILL, kind=kind), killed.closed(), None)
    assert (found.injection, found.verdict) == ("baseline_failed", None)
    assert found.reason == "the clean run of this cell did not end correctly"
    # What was repeated is not known, rather than everything.
    assert (found.resumed_exactly, found.repeats) == (None, Repeats())


def test_a_clean_trial_is_judged_whatever_became_of_the_baseline(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="tell").ends()
    found = result_of(make_trial(INVOICE.name), run.closed(), None)
    assert (found.injection, found.verdict) == ("none", "corrupted")


def test_a_harness_error_is_one_whatever_became_of_the_baseline(killed: HandWritten, make_trial: MakeTrial) -> None:
    found = result_of(make_trial(INVOICE.name, KILL), killed.events, None)
    assert (found.injection, found.verdict) == ("none", "harness_error")


def test_a_trial_that_was_not_reached_has_its_reason(
    write_history: WriteHistory, clean: Delivered, make_trial: MakeTrial
) -> None:
    found = result_of(make_trial(INVOICE.name, KILL), write_history(INVOICE.name).is_correct().closed(), clean)
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("the point was never reached")


def test_every_approval_takes_its_minutes(write_history: WriteHistory, clean: Delivered, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay").goes_on("pay")
    run.decides(run.asks_person("verify", "tell"), "continue").ends()
    found = result_of(make_trial(INVOICE.name), run.closed(), clean)
    assert found.review_minutes == 2 * INVOICE.task.review_minutes
    assert [halt.kind for halt in found.human.halts] == ["verify"]
    assert found.verdict == "needless_halt"


def test_a_result_survives_its_line(killed: HandWritten, clean: Delivered, make_trial: MakeTrial) -> None:
    killed.decides(killed.halts("in_doubt", "tell"), "happened")
    found = result_of(make_trial(INVOICE.name, KILL), killed.closed(), clean)
    again = TrialResult.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.verdict in VERDICTS
    assert again.injection in INJECTIONS


def test_what_a_later_version_adds_is_passed_over(killed: HandWritten, clean: Delivered, make_trial: MakeTrial) -> None:
    # Only at the top level once, and not within its parts.
    found = result_of(make_trial(INVOICE.name, KILL), killed.closed(), clean)
    data = json.loads(json.dumps(found.to_json() | {"new": 1}))
    for part in ("measures", "usage", "repeats", "human", "times"):
        data[part]["new"] = {"k": 1, "n": 2} if part == "measures" else 1
    assert TrialResult.from_json(data) == found


def test_what_an_earlier_version_did_not_have_has_its_default(
    killed: HandWritten, clean: Delivered, make_trial: MakeTrial
) -> None:
    found = result_of(make_trial(INVOICE.name, KILL), killed.closed(), clean)
    data = found.to_json()
    for name in ("storm", "generations", "review_minutes", "trial"):
        del data[name]
    del data["usage"]["cached_prompt_tokens"]
    again = TrialResult.from_json(data)
    assert (again.generations, again.review_minutes, again.usage) == (1, 0.0, found.usage)
    for name in ("id", "verdict", "measures", "human"):
        with pytest.raises((KeyError, TypeError)):
            TrialResult.from_json({key: value for key, value in data.items() if key != name})
    assert {field.name for field in fields(TrialResult)} >= set(data)


def test_a_run_that_ended_badly_is_a_result_of_what_was_struck(
    clean: Delivered, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    trial = make_trial(INVOICE.name, KILL.replace("at_boundary", "again_in_recovery"))
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay").struck().dies(restarted=False)
    run.add("runner", "extinct")
    found = result_of(trial, run.closed(), clean)
    assert (found.injection, found.verdict, found.form) == ("witnessed", "lost", "at_boundary")
    assert (found.id, Trial.from_json(dict(found.trial))) == (trial.id, trial)
    assert Trial.from_json(dict(found.struck)) == make_trial(INVOICE.name, KILL)
    assert TrialResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    alone = result_of(make_trial(INVOICE.name, KILL), run.events, clean)
    assert alone.struck == {}
    assert [len(sample) for sample in samples([found, alone])] == [2]
    failed = result_of(trial, run.events, None)
    assert (failed.injection, failed.form, failed.struck) == ("baseline_failed", "again_in_recovery", {})
