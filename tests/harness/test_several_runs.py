"""Verdicts where one of several runs crashes every worker, and where an operator has paused a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kintsugi.harness.checker import check
from kintsugi.harness.pauses import acted_while_paused
from kintsugi.harness.poison import poisoned_runs

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.harness.checker import Verdict

INVOICE = "finance/invoice_payment"
POISON = "poison_workflow.one_node@tool:order[0]#1@before"
PAUSE = "operator_pause.paused@tool:pay[0]#1@before"


# --- a run that crashes every worker ------------------------------------------------------------------------


def poisoned(write_history: WriteHistory, make_trial: MakeTrial, *others: str) -> Verdict:
    """The verdict where r0 gets no further than its second step, and the others end ``well``, ``twice`` or ``not``."""
    first = write_history(INVOICE).starts().goes_on(until="order")
    for _ in range(2):
        request = first.calls("order")["request"]
        first.add("nemesis", "injected", strike=0, is_=POISON, request=request)
        first.add("nemesis", "witnessed", strike=0, evidence="reaped with signal 9", generation=first.generation)
        first.dies()
    for number, how in enumerate(others, start=1):
        other = write_history(INVOICE, f"r{number}", first.events)
        if how == "twice":
            other.goes_on().does("tell").ends()
        elif how == "well":
            other.goes_on().ends()
    trial = make_trial(INVOICE, POISON, copies=1 + len(others))
    assert poisoned_runs(trial) == {"r0"}
    return check(first.workflow, trial, first.closed())


def test_the_others_are_judged_without_the_one_that_can_not_end(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    found = poisoned(write_history, make_trial, "well", "well")
    assert (found.injection, found.verdict) == ("witnessed", "correct")
    assert found.reason == "2 of 3 workflows: every expected effect, once, beside 1 that crashes its worker"


@pytest.mark.parametrize(("how", "verdict"), [("not", "lost"), ("twice", "corrupted")])
def test_one_of_the_others_that_it_takes_with_it_is_held_against_the_sut(
    how: str, verdict: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    found = poisoned(write_history, make_trial, "well", how)
    assert (found.injection, found.verdict) == ("witnessed", verdict)
    assert found.reason.startswith("1 of 3 workflows: ")


# --- a run that was paused ----------------------------------------------------------------------------------


@pytest.fixture
def due_to_pay(write_history: WriteHistory) -> HandWritten:
    return write_history(INVOICE).starts().goes_on(until="pay").approval("pay")


def paused(run: HandWritten, request: int | None = None) -> None:
    run.add("nemesis", "paused", strike=0, run="r0", request=request)


def test_what_was_in_flight_may_come_to_its_end(due_to_pay: HandWritten, make_trial: MakeTrial) -> None:
    run = due_to_pay
    called = run.calls("pay")
    run.struck(witnessed=False)
    paused(run, called["request"])
    run.takes_effect(called)
    run.answered(called)
    run.add("nemesis", "resuming", strike=0, run="r0")
    run.add("nemesis", "witnessed", strike=0, evidence="paused, then resumed")
    run.does("note").does("tell").ends()
    assert acted_while_paused(run.events) == ""
    found = check(run.workflow, make_trial(INVOICE, PAUSE), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "correct")


def test_it_may_go_on_before_anyone_hears_that_it_was_resumed(due_to_pay: HandWritten) -> None:
    run = due_to_pay
    paused(run)
    run.add("nemesis", "resuming", strike=0, run="r0")
    run.does("pay")
    run.add("nemesis", "resumed", strike=0, run="r0")
    assert acted_while_paused(run.events) == ""


def test_an_effect_that_was_begun_while_it_was_paused_is_wrong(due_to_pay: HandWritten, make_trial: MakeTrial) -> None:
    run = due_to_pay
    run.struck(witnessed=False)
    paused(run)
    run.does("pay")
    run.add("nemesis", "resuming", strike=0, run="r0")
    run.add("nemesis", "witnessed", strike=0, evidence="paused, then resumed")
    run.does("note").does("tell").ends()
    found = check(run.workflow, make_trial(INVOICE, PAUSE), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "corrupted")
    assert "effect of bank.pay at step pay, request" in found.reason
    assert found.reason.endswith("while it was paused")


def test_a_read_or_an_effect_before_or_after_it_is_not(due_to_pay: HandWritten) -> None:
    run = due_to_pay
    run.does("pay")
    paused(run)
    run.does("order")
    run.add("nemesis", "resuming", strike=0, run="r0")
    run.does("note")
    assert acted_while_paused(run.events) == ""
