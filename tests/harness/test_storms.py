"""How a storm went, read off histories: those of several runs at once, written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import measures
from kintsugi.harness.prices import load_prices
from kintsugi.harness.records import Repeats, Storm
from kintsugi.harness.recovery import storms
from kintsugi.harness.storms import storm

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeResult, MakeTrial, WriteHistory

    from kintsugi.harness.history import Event

WORKFLOWS = load_workflows()
INVOICE = "finance/invoice_payment"
STORM = "retry_storm.unavailable_503@tool:pay[0]#1@before"
KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"


@pytest.fixture
def invoice(write_history: WriteHistory) -> HandWritten:
    return write_history(INVOICE).starts()


def at(t: float, who: str, what: str, step: str = "", run: str = "r0", **data: object) -> Event:
    where = {"step": step, "item": 0, "run": run, "generation": 1} if step else {}
    return {"t": t, "who": who, "what": what, **where, **data}


def test_no_storm(invoice: HandWritten, make_trial: MakeTrial) -> None:
    assert storm(invoice.workflow, make_trial(INVOICE, KILL), invoice.events, 5.0, Repeats()) is None
    unmet = make_trial(INVOICE, STORM, copies=2)
    assert storm(invoice.workflow, unmet, invoice.events, 5.0, Repeats()) is None


@pytest.mark.parametrize(("allowed", "within"), [(2.0, True), (1.9, False)])
def test_how_a_storm_went(allowed: float, within: bool, make_trial: MakeTrial) -> None:
    """Of the eight calls of the tool six came in the second in which it was out of order, one by another run."""
    pays = [1.0, 1.1, 1.2, 1.25, 1.3, 2.5, 2.6]
    events = [at(t, "world", "request", "pay", tool="bank.pay", request=n) for n, t in enumerate(pays)]
    events += [at(1.9, "world", "request", "pay", run="r1", tool="bank.pay", request=8)]
    events += [at(1.4, "world", "request", "note", tool="erp.post_note", request=9)]
    events += [at(1.0, "nemesis", "injected", strike=0), at(3.5, "human", "end_report", "end")]
    events.sort(key=lambda event: event["t"])
    trial = make_trial(INVOICE, STORM, copies=3)
    again = Repeats(model_calls=2, tool_calls=1, tokens=130, completion_tokens=30)
    assert storm(WORKFLOWS[INVOICE], trial, events, allowed, again) == Storm(
        workflows=3,
        outage_calls_per_workflow=2.0,
        peak_requests_per_second=6.0,
        drain_seconds=1.5,
        within_bounds=within,
        met=2,
        wasted_calls=6,
        wasted_tool_usd=round(6 * WORKFLOWS[INVOICE].tools["bank.pay"].price_usd, 6),
        repeated_model_calls=2,
        repeated_prompt_tokens=100,
        repeated_completion_tokens=30,
    )


def test_a_call_that_many_workflows_make_is_no_repeat(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    clean = measures.delivered(write_history(INVOICE).is_correct().events)
    both = write_history(INVOICE).is_correct().events
    write_history(INVOICE, "r1", both).goes_on().ends()
    trial = make_trial(INVOICE, KILL, copies=2)
    assert measures.repeats(both, clean) == Repeats()
    assert measures.resumed_exactly(trial, both, clean) is True
    write_history(INVOICE, "r1", both).asks_model("match")
    assert measures.repeats(both, clean) == Repeats(model_calls=1, tokens=120, completion_tokens=20)
    assert measures.resumed_exactly(trial, both, clean) is False


def test_what_storms_wasted_is_priced(make_result: MakeResult) -> None:
    prices = load_prices()
    wild = Storm(500, 4.0, 900.0, 2.0, within_bounds=True, met=500, wasted_calls=2000, wasted_tool_usd=1.0)
    again = {"repeated_prompt_tokens": 10**6, "repeated_completion_tokens": 10**6}
    dear = Storm(500, 4.0, 900.0, 2.0, within_bounds=True, **again)
    found = storms([make_result(storm=wild), make_result(storm=dear)], prices)
    assert found is not None
    model = prices.model.input_usd_per_million + prices.model.output_usd_per_million
    assert found["wasted_usd"] == pytest.approx((1.0 + model) / 2)
    assert (found["wasted_calls"], found["met"], found["workflows"]) == (1000, 250, 500)
    assert storms([make_result()], prices) is None
