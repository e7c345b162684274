"""What has to come before an effect: what it rests on was read and judged, and a person has said what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kintsugi.golden_workflows.plan import dependents
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.effects import held_against
from kintsugi.harness.session import TIME_SCALE

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, WriteHistory

WORKFLOWS = load_workflows()
INVOICE = "finance/invoice_payment"
ROTATION = "operations/credential_rotation"


def wrong(run: HandWritten) -> list[tuple[str, str, str]]:
    """What is wrong with each effect: what, at which step, and why."""
    return [(found.what, found.step, found.detail) for found in held_against(run.workflow, None, run.events)[1]]


def too_early(step: str, detail: str) -> tuple[str, str, str]:
    return "too early", step, detail


# --- the answers that it rests on ---------------------------------------------------------------------------


def writes_resting_on(name: str, question: str) -> list[str]:
    workflow = WORKFLOWS[name]
    writes = {step.id for step in workflow.writes()}
    return [step for step in dependents(workflow.plan, question) if step in writes]


QUESTIONS = [(name, step.id) for name, one in WORKFLOWS.items() for step in one.steps.values() if step.ask is not None]


@pytest.mark.parametrize(("name", "question"), QUESTIONS)
def test_no_write_of_any_workflow_comes_before_the_answer_that_it_rests_on(
    name: str, question: str, write_history: WriteHistory
) -> None:
    run, resting = write_history(name).starts(), writes_resting_on(name, question)
    asked = False
    for visit in run.visits():
        call = visit.call
        if call.kind == "sleep":
            run.slept_seconds += call.arguments["seconds"] * TIME_SCALE
        elif call.kind == "tool":
            run.does(call.step, call.item)
        elif call.step != question:
            run.asks_model(call.step)
        if call.step in resting and not asked:
            asked = True
            run.asks_model(question)
    first = next(visit.call.step for visit in run.visits() if visit.call.step in resting)
    assert too_early(first, f"before {question} was answered") in wrong(run)


def paid_after(run: HandWritten) -> list[tuple[str, str, str]]:
    """What is wrong with a payment made now, and its match asked for again before the rest."""
    run.does("pay").asks_model("match").does_each("note", "tell")
    return wrong(run)


def before_the_match(write_history: WriteHistory) -> HandWritten:
    return write_history(INVOICE).starts().does_each("invoice", "order")


UNANSWERED = [too_early("pay", "before match was answered")]


def test_an_answer_that_never_reached_its_worker_is_none(write_history: WriteHistory) -> None:
    assert paid_after(before_the_match(write_history).asks_model("match", told=False)) == UNANSWERED
    assert paid_after(before_the_match(write_history).asks_model("match", answered=False)) == UNANSWERED
    assert paid_after(before_the_match(write_history).asks_model("match")) == []


def test_a_damaged_answer_is_one_only_where_it_can_be_read(write_history: WriteHistory) -> None:
    run = before_the_match(write_history).asks_model("match", damaged=True, says='{"decision":')
    assert paid_after(run) == UNANSWERED
    run = before_the_match(write_history).asks_model("match", damaged=True, says='{"decision": "pay", "more": 1}')
    assert paid_after(run) == []


def test_a_call_that_the_plan_has_later_stands_for_an_answer(write_history: WriteHistory) -> None:
    assert paid_after(before_the_match(write_history).model_calls("pay")) == []
    assert paid_after(before_the_match(write_history).model_calls("order")) == UNANSWERED


def test_in_doubt_the_model_was_asked(write_history: WriteHistory) -> None:
    """An agent of its own with a real model may ask in ways that the script has no place for."""
    run = before_the_match(write_history)
    run.model_calls("order")
    run.events[-2] = {**run.events[-2], "as_scripted": False}
    assert paid_after(run) == []
    run = before_the_match(write_history).asks_model("match")
    run.events[-2] = {**run.events[-2], "step": "a schema of its own"}
    assert paid_after(run) == []


def test_an_agent_that_never_asks_the_model_judges_by_itself(write_history: WriteHistory) -> None:
    run = before_the_match(write_history).does("pay")
    assert wrong(run) == []
    assert wrong(run.asks_model("match")) == UNANSWERED


def test_the_other_hosts_wait_for_what_is_made_of_the_first(write_history: WriteHistory) -> None:
    """A credential was rolled out to every host before anyone had asked whether the first one was well."""
    run = write_history(ROTATION).starts().goes_on(until="verify")
    items = [visit.call.item for visit in run.visits() if visit.call.step == "roll_out"]
    for item in items:
        run.does("roll_out", item)
    run.asks_model("verify").goes_on("retire")
    assert wrong(run) == [too_early("roll_out", "before verify was answered")] * len(items)


# --- the reads that it rests on -----------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_a_read_whose_answer_never_reached_its_worker_is_none(told: bool, write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().does("invoice")
    read = run.calls("order")
    run.takes_effect(read)
    run.answered(read, told=told)
    run.asks_model("match").does("pay").does("order").does_each("note", "tell")
    assert wrong(run) == ([] if told else [too_early("pay", "before order was read")])


# --- what a person is asked about ---------------------------------------------------------------------------


@pytest.fixture
def in_doubt(write_history: WriteHistory) -> tuple[HandWritten, str]:
    """A run whose mail was met with an error, and that asks a person whether it was sent; and its question."""
    run = write_history(INVOICE).starts().goes_on(until="tell")
    run.answered(run.calls("tell"), 503)
    return run, run.halts("in_doubt", "tell")


UNSAID = [too_early("tell", "before a person had said whether it had happened")]


def test_a_call_is_not_repeated_while_a_person_is_asked_whether_it_happened(
    in_doubt: tuple[HandWritten, str],
) -> None:
    run, question = in_doubt
    assert wrong(run.does("tell").decides(question, "not_happened")) == UNSAID


def test_it_is_once_the_person_has_said_so(in_doubt: tuple[HandWritten, str]) -> None:
    run, question = in_doubt
    assert wrong(run.decides(question, "not_happened").does("tell")) == []


def test_what_had_been_asked_for_before_may_still_come_to_its_end(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="tell")
    late = run.calls("tell")
    run.halts("in_doubt", "tell")
    run.takes_effect(late)
    assert wrong(run) == []


def test_a_question_that_was_asked_again_is_answered_by_one_answer(in_doubt: tuple[HandWritten, str]) -> None:
    """Its first asker was killed, and nobody fetched what that one was told."""
    run, _ = in_doubt
    again = run.dies().halts("in_doubt", "tell")
    assert wrong(run.decides(again, "not_happened").does("tell")) == []


def test_what_can_be_repeated_safely_waits_for_nobody(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay")
    run.answered(run.calls("pay"), 503)
    run.halts("in_doubt", "pay")
    assert wrong(run.does("pay").goes_on("note")) == []
