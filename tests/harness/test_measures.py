"""What was used, what was done again, people and times, read off hand-written histories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kintsugi.golden_workflows.spec import load_workflow
from kintsugi.harness import measures
from kintsugi.harness.records import Halt, Repeats, Times
from kintsugi.harness.session import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.harness.history import Event

STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")
INVOICE = "finance/invoice_payment"
CALLS = 5
"""How many tool calls the invoice's plan has."""
KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"


@pytest.fixture
def invoice(write_history: WriteHistory) -> HandWritten:
    return write_history(INVOICE).starts()


# --- use, and use again -------------------------------------------------------------------------------------


def test_what_a_run_used(invoice: HandWritten) -> None:
    events = invoice.goes_on().ends().closed()
    used = measures.usage(invoice.workflow, events)
    assert (used.model_calls, used.prompt_tokens, used.completion_tokens) == (1, 100, 20)
    assert used.tool_calls == CALLS
    assert used.tool_usd == pytest.approx(sum(tool.price_usd for tool in invoice.workflow.tools.values()))
    assert used.cpu_seconds == 0.25


def test_a_call_that_was_not_served_is_a_call_and_costs_nothing(invoice: HandWritten) -> None:
    invoice.answered(invoice.calls("pay"), 503)
    used = measures.usage(invoice.workflow, invoice.events)
    assert (used.tool_calls, used.tool_usd) == (1, 0.0)


def test_an_ask_without_a_reply_has_no_tokens(invoice: HandWritten) -> None:
    used = measures.usage(invoice.workflow, invoice.asks_model("match", answered=False).events)
    assert (used.model_calls, used.prompt_tokens) == (1, 0)


def test_what_was_delivered(invoice: HandWritten) -> None:
    invoice.goes_on()
    invoice.answered(invoice.calls("tell"), told=False)
    invoice.answered(invoice.calls("note"), 503)
    invoice.calls("pay")
    invoice.asks_model("match", damaged=True, says="x")
    assert measures.delivered(invoice.events) == {
        ("tool", "invoice", 0): 1,
        ("tool", "order", 0): 1,
        ("model", "match", 0): 1,
        ("human", "pay", 0): 1,
        ("tool", "pay", 0): 1,
        ("tool", "note", 0): 1,
        ("tool", "tell", 0): 1,
    }


def test_repeats_are_what_was_delivered_beyond_a_clean_run(invoice: HandWritten, write_history: WriteHistory) -> None:
    clean = measures.delivered(write_history(INVOICE).is_correct().events)
    assert measures.repeats(invoice.goes_on().events, clean) == Repeats()
    invoice.does("order").does("order").does("note").asks_model("match")
    again = Repeats(model_calls=1, tool_calls=3, tokens=120, completion_tokens=20)
    assert measures.repeats(invoice.events, clean) == again


def test_a_write_that_was_replayed_was_done_again(invoice: HandWritten, write_history: WriteHistory) -> None:
    clean = measures.delivered(write_history(INVOICE).is_correct().events)
    invoice.goes_on()
    invoice.answered(invoice.calls("pay"))
    assert measures.repeats(invoice.events, clean).tool_calls == 0, "refused, not served"
    answer = invoice.events[-2]
    invoice.events[-2] = {**answer, "replayed": True}
    assert measures.repeats(invoice.events, clean) == Repeats(tool_calls=1)


def test_a_reply_that_was_generated_and_lost_was_paid_for_and_is_generated_again(
    invoice: HandWritten, write_history: WriteHistory
) -> None:
    clean = measures.delivered(write_history(INVOICE).is_correct().events)
    tokens = {"prompt_tokens": 100, "cached_prompt_tokens": 64, "completion_tokens": 20}
    invoice.add("gateway", "generated", **invoice.named("match"), **tokens)
    invoice.goes_on()
    assert measures.repeats(invoice.events, clean) == Repeats(model_calls=1, tokens=120, completion_tokens=20)
    used = measures.usage(invoice.workflow, invoice.events)
    assert (used.prompt_tokens, used.cached_prompt_tokens, used.completion_tokens) == (200, 64, 40)


def test_a_read_that_a_clean_run_makes_twice_is_no_repeat(invoice: HandWritten, write_history: WriteHistory) -> None:
    clean = measures.delivered(write_history(INVOICE).is_correct().does("order").events)
    assert measures.repeats(invoice.goes_on().does("order").events, clean).tool_calls == 0


def resumed(run: HandWritten, make_trial: MakeTrial, write_history: WriteHistory, strike: str = KILL) -> bool | None:
    clean = measures.delivered(write_history(run.workflow.name).is_correct().events)
    return measures.resumed_exactly(make_trial(run.workflow.name, strike), run.events, clean)


def test_resuming_exactly(invoice: HandWritten, make_trial: MakeTrial, write_history: WriteHistory) -> None:
    invoice.goes_on(until="pay").approval("pay")
    invoice.calls("pay")
    invoice.struck().dies().does("pay").goes_on("note").ends()
    assert resumed(invoice, make_trial, write_history) is True


@pytest.mark.parametrize("again", ["tool", "model", "human"])
def test_doing_again_what_had_been_answered(
    again: str, invoice: HandWritten, make_trial: MakeTrial, write_history: WriteHistory
) -> None:
    invoice.goes_on(until="note").struck().dies()
    if again == "tool":
        invoice.does("invoice")
    elif again == "model":
        invoice.asks_model("match")
    else:
        invoice.approval("pay")
    invoice.goes_on("note").ends()
    assert resumed(invoice, make_trial, write_history) is False


def test_it_is_asked_only_where_a_worker_was_killed(
    invoice: HandWritten, make_trial: MakeTrial, write_history: WriteHistory
) -> None:
    invoice.goes_on().does("invoice").ends()
    for strike, asked in (
        ("tool_timeout.not_applied@tool:pay[0]#1@before", False),
        ("partial_side_effect.killed@tool:pay[0]#1@committed", True),
        ("approval_delay.late@human:pay[0]#1@waiting", False),
        ("approval_delay.late_after_restart@human:pay[0]#1@waiting", True),
        ("node_loss.process@tool:pay[0]#1@before", True),
        # Deciding again on new values repeats what was answered, and rightly so.
        ("stale_data.while_restarting@human:pay[0]#1@waiting", False),
    ):
        assert resumed(invoice, make_trial, write_history, strike) is (False if asked else None), strike
    assert measures.resumed_exactly(make_trial(INVOICE), invoice.events, {}) is None


def test_polls_are_no_repeats_and_other_reads_are(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    def run(polls: int, *after: str) -> HandWritten:
        return write_history(STOCKTAKE).starts().goes_on(until="count").does_each(*["count"] * polls, *after)

    clean = measures.delivered(run(2, "dock").events)
    allowed = measures.without_polls(STOCKTAKE, clean)
    more = run(5, "dock")
    assert measures.repeats(more.events, clean).tool_calls == 3
    assert measures.repeats(more.events, allowed) == Repeats()
    killed = make_trial(STOCKTAKE.name, "worker_kill.at_boundary@tool:dock[0]#1@before")
    assert measures.resumed_exactly(killed, more.events, clean) is False
    assert measures.resumed_exactly(killed, more.events, allowed) is True
    again = run(1, "dock", "dock")
    assert measures.repeats(again.events, allowed).tool_calls == 1
    assert measures.resumed_exactly(killed, again.events, allowed) is False


# --- people -------------------------------------------------------------------------------------------------


def test_what_people_had_to_do(invoice: HandWritten) -> None:
    invoice.goes_on(until="pay")
    first = invoice.halts("approval", "pay")
    second = invoice.halts("approval", "pay", re_asked=True)
    halt = Halt("in_doubt", "tell", justified=True, why="opaque")
    found = measures.human(invoice.decides(first, "approve").decides(second, "reject").events, (halt,))
    assert (found.checkpoints, found.re_asked, found.decisions, found.overrides) == (2, 1, 2, 1)
    assert found.halts == (halt,)


@pytest.mark.parametrize(("decision", "overrides"), [("approve", 0), ("reject", 1), ("amend", 1), ("expire", 0)])
def test_an_override_rejects_or_amends(decision: str, overrides: int, invoice: HandWritten) -> None:
    assert measures.human(invoice.approval("pay", decision).events, ()).overrides == overrides


def test_the_answer_to_a_halt_is_no_decision_on_an_approval(invoice: HandWritten) -> None:
    invoice.decides(invoice.halts("in_doubt", "tell"), "happened")
    found = measures.human(invoice.events, ())
    assert (found.checkpoints, found.decisions, found.approval_hours) == (0, 0, ())


def test_hours_are_those_of_the_workflow(invoice: HandWritten) -> None:
    question = invoice.halts("approval", "pay")
    asked = invoice.events[-1]["t"]
    invoice.decides(question, "approve")
    invoice.events[-2] = {**invoice.events[-2], "t": asked + 3 * SECONDS_PER_HOUR}
    assert measures.human(invoice.events, ()).approval_hours == (3.0,)
    waiting = invoice.halts("approval", "pay")
    assert waiting
    assert measures.human(invoice.events, ()).decisions == 1


# --- times --------------------------------------------------------------------------------------------------


def at(t: float, who: str, what: str, step: str = "", **data: object) -> Event:
    where = {"step": step, "item": 0, "run": "r0", "generation": 1} if step else {}
    return {"t": t, "who": who, "what": what, **where, **data}


def test_times_of_a_calm_run() -> None:
    events = [
        at(0.2, "runner", "submitted"),
        at(0.5, "world", "request", "invoice"),
        at(2.0, "human", "end_report", "end"),
        at(2.5, "runner", "closed"),
    ]
    assert measures.times(events) == Times(wall=1.8)
    assert measures.times(events[:2]) == Times(wall=0.3), "without an end report: to the last event"
    assert measures.times([]) == Times()


def test_times_after_a_stop_run_from_it_and_not_from_its_end() -> None:
    where = {"generation": 2, "run": "r0", "step": "pay", "item": 0}
    events = [
        {"t": 1.0, "who": "nemesis", "what": "stopped"},
        {"t": 3.5, "who": "world", "what": "request", **where},
        {"t": 3.6, "who": "nemesis", "what": "witnessed"},
        {"t": 4.0, "who": "human", "what": "end_report", **where, "step": "end"},
    ]
    assert measures.times(events) == Times(wall=4.0, detect=2.5, progress=2.5, end=3.0)


def test_times_from_a_fault_to_detection_progress_and_end() -> None:
    events = [
        at(0.0, "runner", "submitted"),
        at(0.5, "world", "request", "invoice"),
        at(0.9, "world", "request", "pay"),
        at(1.0, "nemesis", "witnessed", strike=0),
        at(1.25, "world", "request", "invoice"),
        at(1.3, "runner", "started", generation=2),
        at(1.5, "world", "request", "pay"),
        at(1.75, "world", "request", "note"),
        at(3.0, "human", "end_report", "end"),
    ]
    assert measures.times(events) == Times(wall=3.0, detect=0.25, progress=0.75, end=2.0)


def test_a_fault_that_nothing_came_after() -> None:
    events = [at(0.0, "runner", "submitted"), at(1.0, "nemesis", "witnessed", strike=0), at(9.0, "runner", "closed")]
    assert measures.times(events) == Times(wall=9.0)


def test_only_repeats_after_a_fault_are_no_progress() -> None:
    events = [
        at(0.0, "runner", "submitted"),
        at(0.5, "gateway", "ask", "match"),
        at(1.0, "nemesis", "witnessed", strike=0),
        at(1.5, "gateway", "ask", "match"),
    ]
    assert measures.times(events) == Times(wall=1.5, detect=0.5)


def test_an_end_report_before_the_fault_is_no_recovery_from_it() -> None:
    events = [
        at(0.0, "runner", "submitted"),
        at(0.5, "human", "end_report", "end"),
        at(1.0, "nemesis", "witnessed", strike=0),
    ]
    assert measures.times(events).end is None
