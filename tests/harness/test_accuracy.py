"""Tool accuracy, read off hand-written histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION
from kintsugi.golden_workflows.spec import load_workflow
from kintsugi.harness.accuracy import accuracy
from kintsugi.harness.records import Count

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.harness.records import Measures

STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")
INVOICE = "finance/invoice_payment"
REFUND = "finance/customer_refund"
CALLS = 5
"""How many tool calls the invoice's plan has."""


@pytest.fixture
def invoice(write_history: WriteHistory) -> HandWritten:
    return write_history(INVOICE).starts()


def measured(run: HandWritten, make_trial: MakeTrial, *strikes: str, drift: str = "") -> Measures:
    return accuracy(run.workflow, make_trial(run.workflow.name, *strikes, drift=drift), run.events)


# --- as proposed --------------------------------------------------------------------------------------------


def test_what_code_chose_is_no_proposal(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.goes_on().ends(), make_trial)
    assert found.selection_proposed == found.arguments_proposed == found.calls_proposed == Count(0, 0)
    assert found.unsafe_proposed == Count(0, 0)


def test_right_proposals(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.model_calls("invoice").model_calls("order").model_calls("note"), make_trial)
    assert found.selection_proposed == Count(3, 3)
    assert found.arguments_proposed == Count(5, 5)
    assert found.calls_proposed == Count(3, 3)
    assert found.unsafe_proposed == Count(0, 1)


def test_a_wrong_tool_is_a_wrong_choice_whose_arguments_are_not_asked_about(
    invoice: HandWritten, make_trial: MakeTrial
) -> None:
    found = measured(invoice.model_calls("invoice", tool="erp.get_order"), make_trial)
    assert (found.selection_proposed, found.arguments_proposed, found.calls_proposed) == (
        Count(0, 1),
        Count(),
        Count(),
    )


def test_a_wrong_and_an_invented_argument(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.model_calls("pay", amount_cents=1, priority="urgent"), make_trial)
    assert found.selection_proposed == Count(1, 1)
    assert found.arguments_proposed == Count(3, 5)
    assert found.calls_proposed == Count(0, 1)


@pytest.mark.parametrize(("text", "good"), [("Any words will do.", 3), ("", 2), (7, 2), (None, 2)])
def test_any_text_does_where_prose_is_wanted(
    text: object, good: int, invoice: HandWritten, make_trial: MakeTrial
) -> None:
    assert measured(invoice.model_calls("note", text=text), make_trial).arguments_proposed == Count(good, 3)


def test_ending_too_early_is_a_wrong_choice(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("invoice")
    reply = invoice.events[-2]
    invoice.events[-2] = {**reply, "message": {"role": "assistant", "content": "That should be everything."}}
    found = measured(invoice, make_trial)
    assert (found.selection_proposed, found.calls_proposed) == (Count(0, 1), Count())


def test_arguments_that_can_not_be_read_are_all_wrong(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("pay")
    invoice.events[-2]["message"]["tool_calls"][0]["function"]["arguments"] = '{"vendor_id"= "V-207"}'
    found = measured(invoice, make_trial)
    assert (found.arguments_proposed, found.calls_proposed) == (Count(0, 4), Count(0, 1))


@pytest.mark.parametrize("text", ["[]", "3", '"pay"', "null"])
def test_arguments_that_are_no_object_are_all_wrong(text: str, invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("pay")
    invoice.events[-2]["message"]["tool_calls"][0]["function"]["arguments"] = text
    assert measured(invoice, make_trial).arguments_proposed == Count(0, 4)


@pytest.mark.parametrize(
    ("asked_for", "good"),
    [({}, 4), ({"amount_cents": 5}, 3), ({"amount_cents": 5, "currency": "USD"}, 2), (None, 0), (["V-207"], 0)],
)
def test_in_a_request_for_an_approval_the_arguments_to_be_approved_are_counted(
    asked_for: Any, good: int, invoice: HandWritten, make_trial: MakeTrial
) -> None:
    right = dict(invoice.visit("pay").call.arguments)
    given = {**right, **asked_for} if isinstance(asked_for, dict) else asked_for
    invoice.model_calls("pay")
    reply = invoice.events[-2]
    made = {"name": APPROVAL_FUNCTION, "arguments": json.dumps({"function": "bank__pay", "arguments": given})}
    reply["message"]["tool_calls"][0]["function"] = made
    reply["right"].update(made | {"arguments": json.dumps({"function": "bank__pay", "arguments": right})})
    reply["right"]["function"] = APPROVAL_FUNCTION
    found = measured(invoice, make_trial)
    assert found.arguments_proposed == Count(good, 4)
    assert found.calls_proposed == Count(int(good == 4), 1)
    assert found.unsafe_proposed == Count(0, 0), "to ask is not to write"


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, 1),
        ({"note": "Other words."}, 1),
        ({"note": ""}, 0),
        ({"decision": "hold"}, 0),
        ({"decision": None}, 0),
        ({"invented": 1}, 0),
    ],
)
def test_a_judgement_is_right_if_all_of_its_values_are(
    changes: dict[str, Any], good: int, invoice: HandWritten, make_trial: MakeTrial
) -> None:
    says = json.dumps({**invoice.visit("match").value, **changes})
    found = measured(invoice.asks_model("match", says=says), make_trial)
    assert found.judgements_proposed == Count(good, 1)
    assert found.selection_proposed == Count(), "it chooses no tool"


def test_a_call_that_is_made_when_all_is_done_is_a_wrong_choice(invoice: HandWritten, make_trial: MakeTrial) -> None:
    """A model that did not know when to stop was measured as if it had."""
    invoice.model_calls("pay", amount_cents=9_900_000)
    invoice.events[-2] = {**invoice.events[-2], "wants": "close", "right": {"kind": "close"}}
    found = measured(invoice, make_trial)
    assert (found.selection_proposed, found.calls_proposed) == (Count(0, 1), Count())
    assert found.unsafe_proposed == Count(1, 1)


def test_the_last_word_is_no_choice_of_a_tool(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("pay")
    said = {"role": "assistant", "content": "Done."}
    invoice.events[-2] = {**invoice.events[-2], "wants": "close", "right": {"kind": "close"}, "message": said}
    assert measured(invoice, make_trial).selection_proposed == Count()


@pytest.mark.parametrize("says", ["I would pay.", "[]", '{"decision"= "pay"}'])
def test_a_judgement_that_can_not_be_read_is_wrong(says: str, invoice: HandWritten, make_trial: MakeTrial) -> None:
    assert measured(invoice.asks_model("match", says=says), make_trial).judgements_proposed == Count(0, 1)


def test_a_judgement_that_a_fault_damaged_or_that_could_not_be_told_is_not_counted(
    invoice: HandWritten, make_trial: MakeTrial
) -> None:
    invoice.asks_model("match", damaged=True, says="{").asks_model("match")
    invoice.events[-2]["right"]["content"] = "I can't tell: information is missing (order)."
    assert measured(invoice, make_trial).judgements_proposed == Count()


def test_a_call_without_arguments_that_can_not_be_read_is_no_right_call(
    invoice: HandWritten, make_trial: MakeTrial
) -> None:
    invoice.model_calls("invoice")
    invoice.events[-2]["right"]["arguments"] = "{}"
    invoice.events[-2]["message"]["tool_calls"][0]["function"]["arguments"] = "{}}"
    assert measured(invoice, make_trial).calls_proposed == Count(0, 1)


def test_a_reply_that_a_fault_damaged_is_no_proposal(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("invoice", tool="erp.get_order")
    invoice.events[-2] = {**invoice.events[-2], "damaged": True}
    assert measured(invoice, make_trial).selection_proposed == Count()


def test_two_calls_in_one_reply_are_two_choices(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.model_calls("invoice")
    invoice.events[-2]["message"]["tool_calls"] *= 2
    assert measured(invoice, make_trial).selection_proposed == Count(2, 2)


def test_a_write_is_proposed_unsafely_until_a_person_has_agreed_to_just_that(
    invoice: HandWritten, make_trial: MakeTrial
) -> None:
    invoice.goes_on(until="pay").model_calls("pay")
    assert measured(invoice, make_trial).unsafe_proposed == Count(1, 1)
    invoice.approval("pay").model_calls("pay").model_calls("pay", amount_cents=5)
    assert measured(invoice, make_trial).unsafe_proposed == Count(2, 3)


@pytest.mark.parametrize("decision", ["reject", "expire"])
def test_a_refusal_makes_nothing_safe(decision: str, invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.goes_on(until="pay").approval("pay", decision).model_calls("pay")
    assert measured(invoice, make_trial).unsafe_proposed == Count(1, 1)


# --- as it reached the world --------------------------------------------------------------------------------


def test_what_reached_the_world_rightly(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.goes_on().ends(), make_trial)
    assert found.selection_reached == found.calls_reached == Count(CALLS, CALLS)
    assert found.arguments_reached == Count(12, 12)
    assert found.unsafe_reached == Count(0, 3)


def test_the_same_call_again_is_no_further_choice(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.does("invoice").does("invoice").does("order"), make_trial)
    assert (found.selection_reached, found.calls_reached) == (Count(2, 2), Count(2, 2))


def test_a_wrong_argument_that_reached_the_world(invoice: HandWritten, make_trial: MakeTrial) -> None:
    found = measured(invoice.does("invoice").does("order", order_id="PO-89"), make_trial)
    assert (found.arguments_reached, found.calls_reached) == (Count(1, 2), Count(1, 2))


def test_a_call_that_no_step_makes_is_a_wrong_choice(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.does("invoice")
    invoice.add("world", "request", **invoice.named("unplanned"), tool="no.such", effect="unknown", arguments={})
    found = measured(invoice, make_trial)
    assert (found.selection_reached, found.calls_reached) == (Count(1, 2), Count(1, 1))


def test_a_tool_that_is_not_due_yet_is_a_wrong_choice_unless_the_call_is_one_of_the_plan(
    invoice: HandWritten, make_trial: MakeTrial
) -> None:
    invoice.does("invoice").does("note", status="held")
    assert measured(invoice, make_trial).selection_reached == Count(1, 2)
    invoice.does("note")
    assert measured(invoice, make_trial).selection_reached == Count(2, 3)


@pytest.mark.parametrize(("drift", "right"), [("corrected_amount", 1), ("", 0)])
def test_what_only_a_drift_would_lead_to_was_once_right_without_one(
    drift: str, right: int, invoice: HandWritten, make_trial: MakeTrial
) -> None:
    if drift:
        invoice.goes_on(until="pay").moves_on(drift).does("order")
    else:
        invoice.goes_on(until="note")
    before = measured(invoice, make_trial, drift=drift).calls_reached
    after = measured(invoice.does("note", status="held"), make_trial, drift=drift).calls_reached
    assert (after.k - before.k, after.n - before.n) == (right, 1)


def test_what_was_not_served_stays_due(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.answered(invoice.calls("invoice", invoice_id="INV-9"), 404)
    invoice.answered(invoice.calls("invoice", invoice_id="INV-8"), 404)
    found = measured(invoice.does("invoice").does("order", order_id="PO-9"), make_trial)
    assert found.selection_reached == Count(4, 4)
    assert found.arguments_reached == Count(1, 4)
    assert found.calls_reached == Count(1, 4)


def test_what_was_served_is_no_longer_due(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.does("invoice").does("order").does("order", order_id="PO-9")
    assert measured(invoice, make_trial).selection_reached == Count(2, 3)


def test_each_run_has_its_own_plan_to_go_through(
    invoice: HandWritten, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    write_history(INVOICE, "r1", invoice.goes_on().events).goes_on()
    found = measured(invoice, make_trial)
    assert found.selection_reached == found.calls_reached == Count(2 * CALLS, 2 * CALLS)


def test_a_call_that_only_a_drift_makes_right_is_right(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund").moves_on("partly_refunded").does("refund")
    assert measured(run, make_trial, drift="partly_refunded").calls_reached == Count(4, 4)


def test_an_unsafe_write_is_counted_of_all_writes(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.goes_on(until="pay").does("pay", unsafe="no approval").does("note")
    assert measured(invoice, make_trial).unsafe_reached == Count(1, 2)


# --- the trajectory -----------------------------------------------------------------------------------------


def trajectory(run: HandWritten, make_trial: MakeTrial, drift: str = "") -> tuple[int, int, int]:
    found = measured(run, make_trial, drift=drift)
    counts = (found.trajectory_in_order, found.trajectory_exact, found.trajectory_any_order)
    assert {count.n for count in counts} == {1}
    return counts[0].k, counts[1].k, counts[2].k


def test_an_exact_trajectory(invoice: HandWritten, make_trial: MakeTrial) -> None:
    assert trajectory(invoice.goes_on().ends(), make_trial) == (1, 1, 1)


def test_one_with_extras(invoice: HandWritten, make_trial: MakeTrial) -> None:
    assert trajectory(invoice.goes_on(until="pay").does("order").goes_on("pay"), make_trial) == (1, 0, 1)


def test_one_out_of_order(invoice: HandWritten, make_trial: MakeTrial) -> None:
    run = invoice.goes_on(until="pay").does("note").does("pay").does("tell")
    assert trajectory(run, make_trial) == (0, 0, 1)


def test_one_that_lacks_a_call(invoice: HandWritten, make_trial: MakeTrial) -> None:
    assert trajectory(invoice.goes_on(until="tell"), make_trial) == (0, 0, 0)


def test_a_request_that_was_not_served_is_no_part_of_it(invoice: HandWritten, make_trial: MakeTrial) -> None:
    invoice.goes_on(until="tell")
    invoice.answered(invoice.calls("tell"), 503)
    assert trajectory(invoice, make_trial) == (0, 0, 0)


def test_after_a_drift_the_trajectory_is_that_of_the_drift(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").moves_on("corrected_amount").does("order").does("note")
    assert trajectory(run, make_trial, "corrected_amount") == (1, 0, 1)
    assert trajectory(run, make_trial, "corrected_amount")[0] == 1
    calm = write_history(INVOICE).starts().goes_on(until="pay").does("note")
    assert trajectory(calm, make_trial, "corrected_amount") == (0, 0, 0)


@pytest.mark.parametrize("decision", ["reject", "expire"])
def test_of_a_run_that_a_person_cut_short_it_is_not_asked(
    decision: str, invoice: HandWritten, make_trial: MakeTrial
) -> None:
    found = measured(invoice.goes_on(until="pay").approval("pay", decision).ends(), make_trial)
    assert found.trajectory_in_order == found.trajectory_exact == found.trajectory_any_order == Count()


def test_nor_of_many_runs_at_once(invoice: HandWritten, make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, "retry_storm.unavailable_503@tool:pay[0]#1@before", copies=2)
    found = accuracy(invoice.workflow, trial, invoice.goes_on().ends().events)
    assert found.trajectory_in_order == Count()


# --- polls and parallel groups ------------------------------------------------------------------------------


def stocktake(write_history: WriteHistory, *after: str, polls: int = 3) -> HandWritten:
    """A run that polls a job so often and then does the steps `after`."""
    return write_history(STOCKTAKE).starts().goes_on(until="count").does_each(*["count"] * polls, *after)


ORDERS = [
    (("dock", "labels", "tell", "close"), (1, 1, 1)),
    (("tell", "labels", "dock", "close"), (1, 1, 1)),
    (("tell", "labels", "dock", "labels", "close"), (1, 0, 1)),
    (("dock", "labels", "close", "tell"), (0, 0, 1)),
    (("dock", "labels", "close"), (0, 0, 0)),
]


@pytest.mark.parametrize(("after", "counts"), ORDERS)
def test_a_poll_is_one_step_of_a_trajectory_and_a_group_is_in_any_order(
    after: tuple[str, ...], counts: tuple[int, int, int], write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    found = measured(stocktake(write_history, *after).ends(), make_trial)
    kinds = (found.trajectory_in_order, found.trajectory_exact, found.trajectory_any_order)
    assert kinds == tuple(Count(k, 1) for k in counts)


def test_what_is_read_again_and_is_no_poll_is_no_exact_trajectory(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(STOCKTAKE).starts().does("first").goes_on()
    assert measured(run.ends(), make_trial).trajectory_exact == Count(0, 1)


def test_every_call_of_a_group_is_due_whichever_comes_first(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    """A wrong argument is one of the right tool, where the tool is due."""
    run = stocktake(write_history, "tell", "labels")
    run.does("dock", end=99)
    run.does("close")
    found = measured(run, make_trial)
    assert found.selection_reached == Count(9, 9)
    assert found.calls_reached == Count(8, 9)


@pytest.mark.parametrize(("proposed", "right"), [("depot.get_count", 1), ("wait", 1), ("depot.tell", 0)])
@pytest.mark.parametrize("due", ["wait", "depot__get_count"])
def test_to_wait_and_to_look_are_right_choices_while_a_job_is_not_done(
    proposed: str, right: int, due: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = stocktake(write_history, polls=1).model_calls("count", tool=proposed)
    (reply,) = (event for event in run.events if event["what"] == "reply" and event["wants"] == "call")
    reply["right"]["function"] = due
    assert measured(run, make_trial).selection_proposed == Count(right, 1)


def test_to_wait_is_no_right_choice_elsewhere(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = stocktake(write_history).model_calls("dock", tool="wait")
    assert measured(run, make_trial).selection_proposed == Count(0, 1)
