"""The scripted model: what it answers stands in the request, and nothing else does it know."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, function_name
from kintsugi.golden_workflows.records import Records, Unservable
from kintsugi.golden_workflows.reference import trajectory
from kintsugi.golden_workflows.spec import FREE_TEXT, Effect, Workflow, load_workflow, load_workflows
from kintsugi.harness.damage import damage
from kintsugi.harness.script import (
    _TAILS,
    ERRORS_MAX,
    Reply,
    Wanted,
    call_reply,
    reply_to,
    wanted_by,
)
from kintsugi.harness.transcript import Transcript
from kintsugi.runtime.rules import schema_problem

WORKFLOWS = load_workflows()
INVOICE = WORKFLOWS["finance/invoice_payment"]
BACKFILL = WORKFLOWS["data/partition_backfill"]
CAMPAIGN = WORKFLOWS["marketing/campaign_launch"]
LEADS = WORKFLOWS["marketing/lead_follow_up"]
STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")


class Talk:
    """A naive chain's conversation with the model, over a workflow's records in memory."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.tools = {function_name(name): tool for name, tool in workflow.tools.items()}
        self.clock = 0.0
        self.records = Records.seeded(workflow.world, lambda: self.clock)
        self.messages: list[dict[str, Any]] = [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": workflow.plan["task"]},
        ]
        self.effects: list[Effect] = []
        self.asks = 0

    def wants(self) -> Wanted:
        return wanted_by(self.workflow, {"messages": self.messages})

    def reply(self, seed: int = 7, n: int | None = None) -> Reply:
        self.asks += 1
        return reply_to(self.workflow, self.wants(), seed, self.asks if n is None else n)

    def hears(self, function: str, arguments: Any, answer: Any) -> Talk:
        """A call that was made, whoever thought of it, and what it was told."""
        made = call_reply(function, arguments, f"{len(self.messages)}").message
        self.messages.append(dict(made))
        content = answer if isinstance(answer, str) else json.dumps(answer)
        self.messages.append({"role": "tool", "tool_call_id": made["tool_calls"][0]["id"], "content": content})
        return self

    def does(self, function: str, arguments: dict[str, Any]) -> Any:
        """What the chain tells the model of a call."""
        if function == APPROVAL_FUNCTION:
            return {"result": {"decision": "approve", "arguments": arguments["arguments"]}}
        if function == WAIT_FUNCTION:
            self.clock += arguments["seconds"]
            return {"result": {"waited_seconds": arguments["seconds"]}}
        tool = self.tools[function]
        if problem := schema_problem(arguments, tool.parameters):
            return {"error": f"arguments: {problem}", "status": 422}
        try:
            if tool.effect == "read":
                return {"result": self.records.read(tool, arguments).result}
            wanted = self.wants()
            free = self.workflow.free_arguments[wanted.step]
            literal = {name: value for name, value in arguments.items() if name not in free}
            self.effects.append(Effect(step=wanted.step, tool=tool.name, args=literal))
            return {"result": self.records.write(tool, arguments).result}
        except Unservable as error:
            return {"error": str(error), "status": error.status}

    def goes_on(self, until: str = "") -> Talk:
        """Make every call that the model asks for, to its last word or until one of a step is due."""
        for _ in range(60):
            wanted = self.wants()
            if wanted.kind == "close" or (until and wanted.step == until):
                return self
            call = self.reply().message["tool_calls"][0]["function"]
            arguments = json.loads(call["arguments"])
            self.hears(call["name"], arguments, self.does(call["name"], arguments))
        raise AssertionError("the model never ends")


def called(reply: Reply) -> tuple[str, Any]:
    """The function and the arguments of the one call that a reply makes."""
    (call,) = reply.message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def asking(step: str, content: str, *before: dict[str, str], after: str = "") -> dict[str, Any]:
    """A request for a judgement, as an optimized chain makes it."""
    messages = [{"role": "system", "content": "Do one step."}, *before, {"role": "user", "content": content}]
    if after:
        messages.append({"role": "user", "content": after})
    return {"messages": messages, "response_format": {"type": "json_schema", "json_schema": {"name": step}}}


def inputs_of(workflow: Workflow, step: str) -> dict[str, Any]:
    (call,) = [call for call in trajectory(workflow) if call.step == step]
    return dict(call.arguments)


JUDGEMENTS = [(name, step) for name, workflow in WORKFLOWS.items() for step in workflow.script]


# --- through a whole workflow -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_model_leads_every_workflow_to_its_truth(name: str) -> None:
    talk = Talk(WORKFLOWS[name]).goes_on()
    assert talk.effects == WORKFLOWS[name].truth.effects
    assert called_steps(talk) == [c.step for c in trajectory(WORKFLOWS[name]) if c.kind != "model"]
    reply = talk.reply()
    assert reply.finish_reason == "stop"
    assert not reply.message.get("tool_calls")


def called_steps(talk: Talk) -> list[str]:
    """The steps of the calls in a conversation, approvals left out; a step that is polled is one."""
    again = Talk(talk.workflow)
    found: list[str] = []
    for message in talk.messages[2:]:
        if message.get("tool_calls") and message["tool_calls"][0]["function"]["name"] != APPROVAL_FUNCTION:
            step = again.wants().step
            if found[-1:] != [step] or talk.workflow.steps[step].until is None:
                found.append(step)
        again.messages.append(message)
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_approval_is_asked_for_exactly_where_the_plan_needs_one(name: str) -> None:
    talk = Talk(WORKFLOWS[name]).goes_on()
    functions = [m["tool_calls"][0]["function"] for m in talk.messages if m.get("tool_calls")]
    asked = [json.loads(f["arguments"]) for f in functions if f["name"] == APPROVAL_FUNCTION]
    needed = [call for call in trajectory(WORKFLOWS[name]) if call.needs_approval]
    assert [request["function"] for request in asked] == [function_name(call.tool) for call in needed]


# --- pure ---------------------------------------------------------------------------------------------------


def test_the_same_request_seed_and_count_give_the_same_reply() -> None:
    talk = Talk(INVOICE).goes_on("note")
    before = copy.deepcopy(talk.messages)
    assert talk.reply(n=3) == talk.reply(n=3)
    assert talk.messages == before
    request = asking("match", json.dumps({"inputs": inputs_of(INVOICE, "match")}))
    kept = copy.deepcopy(request)
    first = reply_to(INVOICE, wanted_by(INVOICE, request), 7, 1)
    assert reply_to(INVOICE, wanted_by(INVOICE, request), 7, 1) == first
    assert request == kept


def free_fields(workflow: Workflow, step: str) -> set[str]:
    script = workflow.script[step].items()
    return {name for name, value in script if isinstance(value, str) and value.startswith(FREE_TEXT)}


@pytest.mark.parametrize(("name", "step"), JUDGEMENTS)
def test_wording_differs_at_each_ask_and_judgement_does_not(name: str, step: str) -> None:
    workflow = WORKFLOWS[name]
    wanted = wanted_by(workflow, asking(step, json.dumps({"inputs": inputs_of(workflow, step)})))
    answers = [json.loads(reply_to(workflow, wanted, 7, n).message["content"]) for n in range(1, 9)]
    free = free_fields(workflow, step)
    for field in answers[0]:
        different = {json.dumps(answer[field]) for answer in answers}
        assert len(different) == (len(answers) if field in free else 1), field


def test_call_ids_and_prose_of_calls_differ_at_each_ask() -> None:
    talk = Talk(INVOICE).goes_on("note")
    replies = [talk.reply(n=n) for n in range(1, 9)]
    assert len({reply.message["tool_calls"][0]["id"] for reply in replies}) == 8
    arguments = [called(reply)[1] for reply in replies]
    assert len({each.pop("text") for each in arguments}) == 8
    assert arguments == [{"invoice_id": "INV-1041", "status": "paid"}] * 8


def test_prose_that_is_to_be_approved_differs_at_each_ask_too() -> None:
    talk = Talk(CAMPAIGN).goes_on("create")
    asked = [called(talk.reply(n=n)) for n in range(1, 9)]
    assert {function for function, _ in asked} == {APPROVAL_FUNCTION}
    assert len({arguments["arguments"].pop("headline") for _, arguments in asked}) == 8
    assert all(arguments == asked[0][1] for _, arguments in asked)


def test_wording_and_ids_differ_between_seeds() -> None:
    talk = Talk(INVOICE).goes_on("note")
    replies = [talk.reply(seed=seed, n=1) for seed in range(40)]
    assert len({reply.message["tool_calls"][0]["id"] for reply in replies}) == 40
    assert len({called(reply)[1]["text"] for reply in replies}) > 20


@pytest.mark.parametrize(("name", "step"), JUDGEMENTS)
def test_no_script_already_holds_the_words_that_are_added_to_it(name: str, step: str) -> None:
    workflow = WORKFLOWS[name]
    reply = reply_to(workflow, wanted_by(workflow, asking(step, json.dumps(inputs_of(workflow, step)))), 7, 1)
    answer = json.loads(reply.message["content"])
    for field in free_fields(workflow, step):
        assert sum(tail.strip() in answer[field] for tail in _TAILS) == 1


# --- what is not in the request -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step"), JUDGEMENTS)
def test_a_judgement_without_one_of_its_inputs_can_not_be_made(name: str, step: str) -> None:
    workflow = WORKFLOWS[name]
    inputs = inputs_of(workflow, step)
    whole = wanted_by(workflow, asking(step, json.dumps({"step": step, "inputs": inputs})))
    assert (whole.kind, whole.missing) == ("answer", "")
    used = 0
    for name_of_input in inputs:
        rest = {key: value for key, value in inputs.items() if key != name_of_input}
        wanted = wanted_by(workflow, asking(step, json.dumps({"step": step, "inputs": rest})))
        if wanted.missing:
            used += 1
            assert name_of_input in wanted.missing
            content = reply_to(workflow, wanted, 7, 1).message["content"]
            assert content.startswith("I can't tell: information is missing (")
    assert used > 0


def test_a_judgement_with_nothing_of_its_inputs() -> None:
    for content in ("", "Decide!", "{", "{not json}", "[1, 2]", '{"inputs": 3}', '{"other": {"invoice": 1}}'):
        assert wanted_by(INVOICE, asking("match", content)).missing == "invoice, order"
    assert wanted_by(INVOICE, asking("no_such_step", "{}")).missing == "what 'no_such_step' is"


def test_an_input_that_lacks_a_field_is_missing_too() -> None:
    inputs = {"invoice": {"amount_cents": 1, "currency": "EUR"}, "order": {"received_cents": 1}}
    wanted = wanted_by(INVOICE, asking("match", json.dumps(inputs)))
    assert reply_to(INVOICE, wanted, 7, 1).message["content"].startswith("I can't tell: ")


def test_inputs_are_found_within_other_text() -> None:
    inputs = json.dumps(inputs_of(INVOICE, "match"))
    wanted = wanted_by(INVOICE, asking("match", f"Use {{braces}} as you like. {inputs} Answer now {{}}."))
    assert (wanted.missing, wanted.values) == ("", inputs_of(INVOICE, "match"))


def test_a_transcript_that_was_shortened_makes_the_model_read_again() -> None:
    talk = Talk(INVOICE).goes_on("note")
    del talk.messages[4:6]
    assert (talk.wants().step, talk.wants().function) == ("order", "erp__get_order")


@pytest.mark.parametrize("received", [96_000, 128_400])
def test_stale_in_stale_out(received: int) -> None:
    inputs = inputs_of(INVOICE, "match")
    inputs["order"] = {**inputs["order"], "received_cents": received}
    wanted = wanted_by(INVOICE, asking("match", json.dumps({"inputs": inputs})))
    answer = json.loads(reply_to(INVOICE, wanted, 7, 1).message["content"])
    assert answer["decision"] == ("pay" if received == 128_400 else "hold")


def test_the_latest_inputs_count_where_a_request_holds_several() -> None:
    old = inputs_of(INVOICE, "match")
    new = {**old, "order": {**old["order"], "received_cents": 96_000}}
    earlier = {"role": "user", "content": json.dumps({"inputs": old})}
    wanted = wanted_by(INVOICE, asking("match", json.dumps({"inputs": new}), earlier))
    assert wanted.values == new


# --- what a transcript tells --------------------------------------------------------------------------------


def test_it_advances_only_on_success_of_the_step_that_is_due() -> None:
    talk = Talk(INVOICE)
    assert talk.wants().step == "invoice"
    talk.hears("erp__get_invoice", {"invoice_id": "INV-1041"}, {"error": "try later", "status": 503})
    assert (talk.wants().step, talk.wants().after_error) == ("invoice", True)
    talk.hears("erp__get_order", {"order_id": "PO-88"}, {"result": INVOICE.world["orders"]["PO-88"]})
    assert (talk.wants().step, talk.wants().after_error) == ("invoice", False)
    talk.hears("mail__send", {"to": "x"}, {"result": {"message_id": "M-1"}})
    assert talk.wants().step == "invoice"
    talk.goes_on("order")
    assert talk.wants().step == "order"


@pytest.mark.parametrize("answer", ["", "null", "not json", '"result"', "[]", "{}", '{"results": 1}'])
def test_whatever_is_no_result_is_no_success(answer: str) -> None:
    talk = Talk(INVOICE).hears("erp__get_invoice", {"invoice_id": "INV-1041"}, answer)
    assert (talk.wants().step, talk.wants().after_error) == ("invoice", True)


def test_a_call_without_any_answer_is_no_success() -> None:
    talk = Talk(INVOICE).hears("erp__get_invoice", {"invoice_id": "INV-1041"}, {"result": {}})
    del talk.messages[-1]
    assert talk.wants().step == "invoice"


def order(**changes: int) -> dict[str, Any]:
    return {"result": {"id": "PO-88", **INVOICE.world["orders"]["PO-88"], **changes}}


def test_the_latest_result_of_a_read_counts() -> None:
    talk = Talk(INVOICE).goes_on("pay").hears("erp__get_order", {"order_id": "PO-88"}, order(received_cents=96_000))
    wanted = talk.wants()
    assert (wanted.step, wanted.values["status"]) == ("note", "held")


def test_a_judgement_once_outlived_the_read_that_it_rests_on() -> None:
    talk = Talk(INVOICE).goes_on("note")
    assert talk.wants().values["status"] == "paid"
    talk.hears("erp__get_order", {"order_id": "PO-88"}, order(received_cents=96_000))
    assert talk.wants().values["status"] == "held"
    talk.hears("erp__get_order", {"order_id": "PO-88"}, order())
    assert talk.wants().values["status"] == "paid"


def test_a_failed_read_leaves_the_result_before_it() -> None:
    talk = Talk(INVOICE).goes_on("note").hears("erp__get_order", {"order_id": "PO-88"}, {"error": "503"})
    assert (talk.wants().step, talk.wants().values["status"]) == ("note", "paid")


def test_the_same_call_twice_was_once_taken_for_the_next_item_of_a_loop() -> None:
    talk = Talk(BACKFILL).goes_on("counted")
    function, arguments = called(talk.reply())
    answer = talk.does(function, arguments)
    talk.hears(function, arguments, answer).hears(function, arguments, answer)
    wanted = talk.wants()
    assert (wanted.step, wanted.item) == ("counted", 1)
    assert wanted.values != arguments


def test_a_read_again_is_of_the_item_that_it_names() -> None:
    talk = Talk(BACKFILL).goes_on("table")
    first, second = trajectory_calls(BACKFILL, "counted")
    assert first.arguments != second.arguments
    again, told = function_name(first.tool), {"id": "P-1", "loaded_rows": 1, "source_rows": 1}
    before = known_results(talk, "counted")
    talk.hears(again, dict(first.arguments), {"result": told})
    assert known_results(talk, "counted") == {0: told, 1: before[1]}


def known_results(talk: Talk, step: str) -> dict[int, Any]:
    """What the model takes from a conversation for the results of a step."""
    return dict(Transcript(talk.workflow, talk.messages).results[step])


def trajectory_calls(workflow: Workflow, step: str) -> list[Any]:
    return [call for call in trajectory(workflow) if call.step == step]


def test_a_write_that_was_made_again_changes_nothing() -> None:
    talk = Talk(LEADS).goes_on("log")
    function, arguments = called(talk.reply())
    talk.hears(function, arguments, {"result": {"activity_id": "A-1"}})
    talk.hears(function, arguments, {"result": {"activity_id": "A-2"}})
    assert (talk.wants().step, talk.wants().item) == ("log", 1)


def test_branches_are_taken_on_the_transcripts_own_values() -> None:
    talk = Talk(INVOICE).goes_on("order").hears("erp__get_order", {"order_id": "PO-88"}, order(amount_cents=5))
    talk.goes_on()
    assert [effect.step for effect in talk.effects] == ["note"]


def test_loops_run_over_the_transcripts_own_values() -> None:
    talk = Talk(LEADS)
    lead = {"segment": "s", "topic": "t", "region": "east", "score": 99, "opted_out": False}
    items: list[dict[str, Any]] = [{"id": f"L-{n}", "email": f"{n}@x.example", **lead} for n in range(5)]
    talk.hears("crm__list_leads", {"segment": "fair-2024"}, {"result": {"items": items}})
    talk.records.collections["leads"] = {item["id"]: item for item in items}
    talk.goes_on()
    assert [effect.args["to"] for effect in talk.effects if effect.step == "mail"] == [i["email"] for i in items]
    nobody = Talk(LEADS).hears("crm__list_leads", {"segment": "fair-2024"}, {"result": {"items": []}}).goes_on()
    assert nobody.effects == []


def test_values_that_the_plan_can_make_nothing_of_are_said_to_be_so() -> None:
    talk = Talk(INVOICE).hears("erp__get_invoice", {"invoice_id": "INV-1041"}, {"result": {"id": "INV-1041"}})
    wanted = talk.wants()
    assert wanted.kind == "close"
    assert "can't go on" in talk.reply().message["content"]
    talk.hears(
        "erp__get_invoice", {"invoice_id": "INV-1041"}, talk.does("erp__get_invoice", {"invoice_id": "INV-1041"})
    )
    assert talk.wants().step == "order"


def test_having_been_stuck_was_once_said_at_the_end_of_all_the_work() -> None:
    talk = Talk(INVOICE).hears("erp__get_invoice", {"invoice_id": "INV-1041"}, {"result": {"id": "INV-1041"}})
    talk.hears(
        "erp__get_invoice", {"invoice_id": "INV-1041"}, talk.does("erp__get_invoice", {"invoice_id": "INV-1041"})
    )
    talk.goes_on()
    assert talk.effects == INVOICE.truth.effects
    assert "can't go on" not in talk.reply().message["content"]


# --- polls --------------------------------------------------------------------------------------------------

GET_COUNT = function_name("depot.get_count")
RUNNING = {"result": {"id": "CNT-1", "status": "running", "parcels": 5}}
DONE = {"result": {**RUNNING["result"], "status": "done"}}
JOB = {"count_id": "CNT-1"}
WAIT = {"seconds": 3600.0}
WAITED = {"result": {"waited_seconds": 3600.0}}


def test_the_model_leads_a_workflow_with_everything_in_it_to_its_truth() -> None:
    talk = Talk(STOCKTAKE).goes_on()
    assert talk.effects == STOCKTAKE.truth.effects
    functions = [entry.function for entry in Transcript(STOCKTAKE, talk.messages).entries]
    polls = [name for name in functions if name in {GET_COUNT, WAIT_FUNCTION}]
    assert polls == [GET_COUNT, WAIT_FUNCTION] * 5 + [GET_COUNT]


def test_a_job_that_is_not_done_is_waited_for_before_it_is_read_again() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="count")
    assert called(talk.reply()) == (GET_COUNT, JOB)
    talk.hears(GET_COUNT, JOB, RUNNING)
    assert talk.wants() == Wanted("call", "count", 0, WAIT, WAIT_FUNCTION)
    assert called(talk.reply()) == (WAIT_FUNCTION, WAIT)
    talk.hears(WAIT_FUNCTION, WAIT, WAITED)
    assert called(talk.reply()) == (GET_COUNT, JOB)
    assert talk.hears(GET_COUNT, JOB, DONE).wants().step == "dock"


def test_a_poll_or_a_wait_that_is_made_twice_does_not_confuse_it() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="count")
    talk.hears(GET_COUNT, JOB, RUNNING).hears(GET_COUNT, JOB, RUNNING)
    assert talk.wants().function == WAIT_FUNCTION
    waited = (WAIT_FUNCTION, WAIT, WAITED)
    talk.hears(*waited).hears(*waited)
    assert talk.wants().function == GET_COUNT
    talk.hears(GET_COUNT, JOB, DONE).hears(GET_COUNT, JOB, DONE)
    assert talk.wants().step == "dock"


def test_a_poll_that_fails_is_made_again_without_a_wait() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="count").hears(GET_COUNT, JOB, {"error": "out of order", "status": 503})
    assert talk.wants() == Wanted("call", "count", 0, JOB, GET_COUNT, after_error=True)


def test_a_job_that_runs_again_is_waited_for_again() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="close").hears(GET_COUNT, JOB, RUNNING)
    assert (talk.wants().step, talk.wants().function) == ("count", WAIT_FUNCTION)


def test_a_result_that_tells_nothing_of_the_job_is_taken_for_too_early() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="count").hears(GET_COUNT, JOB, {"result": {"id": "CNT-1"}})
    assert talk.wants().function == WAIT_FUNCTION


def test_it_gives_up_a_job_that_takes_too_long() -> None:
    talk = Talk(STOCKTAKE).goes_on(until="count")
    for _ in range(STOCKTAKE.steps["count"].polls_max):
        talk.hears(GET_COUNT, JOB, RUNNING)
        talk.hears(WAIT_FUNCTION, WAIT, WAITED)
    assert talk.wants().ending == "I can't go on: count takes too long."


# --- approvals ----------------------------------------------------------------------------------------------


def approval(talk: Talk, decision: str, **changes: Any) -> dict[str, Any]:
    """Answer the request for an approval that is due; the arguments that were asked for."""
    function, asked = called(talk.reply())
    assert function == APPROVAL_FUNCTION
    granted = {"arguments": {**asked["arguments"], **changes}} if decision in {"approve", "amend"} else {}
    talk.hears(function, asked, {"result": {"decision": decision, **granted}})
    arguments: dict[str, Any] = asked["arguments"]
    return arguments


def test_approved_prose_is_used_exactly_as_it_was_approved() -> None:
    talk = Talk(CAMPAIGN).goes_on("create")
    asked = approval(talk, "approve")
    replies = [called(talk.reply(n=n)) for n in range(2, 8)]
    assert replies == [("ads__create_campaign", asked)] * 6


def test_prose_is_not_reworded_by_an_error_on_the_way() -> None:
    talk = Talk(CAMPAIGN).goes_on("create")
    asked = approval(talk, "approve")
    talk.hears("ads__create_campaign", asked, {"error": "try later", "status": 503})
    assert called(talk.reply()) == ("ads__create_campaign", asked)


def test_one_text_that_goes_to_many_is_worded_once() -> None:
    talk = Talk(LEADS).goes_on("log")
    functions = [m["tool_calls"][0]["function"] for m in talk.messages if m.get("tool_calls")]
    bodies = {json.loads(f["arguments"])["body"] for f in functions if f["name"] == "mail__send"}
    assert len(bodies) == 1


@pytest.mark.parametrize("decision", ["reject", "expire", "stop", "None"])
def test_a_refusal_is_the_end(decision: str) -> None:
    talk = Talk(INVOICE).goes_on("pay")
    approval(talk, decision)
    wanted = talk.wants()
    assert wanted.kind == "close"
    assert decision in talk.reply().message["content"]
    talk.hears("erp__get_order", {"order_id": "PO-88"}, order())
    assert talk.wants().kind == "close"


def test_an_approval_that_could_not_be_asked_for_is_asked_for_again() -> None:
    talk = Talk(INVOICE).goes_on("pay").hears(APPROVAL_FUNCTION, {"function": "bank__pay"}, {"error": "no arguments"})
    wanted = talk.wants()
    assert (wanted.function, wanted.after_error) == (APPROVAL_FUNCTION, True)


def test_amended_arguments_are_used_as_they_were_granted() -> None:
    talk = Talk(INVOICE).goes_on("pay")
    approval(talk, "amend", amount_cents=100)
    assert called(talk.reply())[1]["amount_cents"] == 100


def test_an_approval_that_repeats_no_arguments_is_of_those_that_were_asked_for() -> None:
    talk = Talk(INVOICE).goes_on("pay")
    function, asked = called(talk.reply())
    talk.hears(function, asked, {"result": {"decision": "approve"}})
    assert called(talk.reply()) == ("bank__pay", asked["arguments"])


@pytest.mark.parametrize("granted", [3, ["V-207"], "yes"])
def test_an_approval_of_what_are_no_arguments_is_none(granted: object) -> None:
    talk = Talk(INVOICE).goes_on("pay")
    function, asked = called(talk.reply())
    talk.hears(function, asked, {"result": {"decision": "approve", "arguments": granted}})
    assert talk.wants().kind == "close"


def test_an_approval_was_once_good_for_whatever_came_due_later() -> None:
    talk = Talk(WORKFLOWS["finance/customer_refund"]).goes_on("refund")
    approval(talk, "approve")
    assert talk.wants().function == "shop__refund"
    read = {"order_id": "ORD-9001"}
    talk.records.change("orders/ORD-9001", {"refunded_cents": 5000})
    talk.hears("shop__get_order", read, talk.does("shop__get_order", read))
    wanted = talk.wants()
    assert wanted.function == APPROVAL_FUNCTION
    assert wanted.values["arguments"]["amount_cents"] == 13_900


APPROVED = [name for name in WORKFLOWS if any(call.needs_approval for call in trajectory(WORKFLOWS[name]))]


@pytest.mark.parametrize("how", ["invented_parameter", "wrong_types", "missing_parameter"])
@pytest.mark.parametrize("name", APPROVED)
def test_an_approval_of_what_the_tool_can_t_take_was_once_held_on_to(name: str, how: str) -> None:
    step = next(call.step for call in trajectory(WORKFLOWS[name]) if call.needs_approval)
    talk = Talk(WORKFLOWS[name]).goes_on(until=step)
    function, arguments = called(damage(how, talk.reply(), [], "source"))
    assert function == APPROVAL_FUNCTION
    talk.hears(function, arguments, talk.does(function, arguments))
    # It may see at once that what was approved is not what is right; that it is too much, only from the refusal.
    due = talk.wants()
    assert due.function == APPROVAL_FUNCTION or dict(due.values) == arguments["arguments"]
    talk.goes_on()
    assert talk.effects == WORKFLOWS[name].truth.effects
    assert sum(not entry.ok for entry in Transcript(talk.workflow, talk.messages).entries) <= 1


INVENTED = {"priority_override": "urgent"}


def test_what_was_approved_is_held_on_to_until_the_call_is_refused() -> None:
    talk = Talk(INVOICE).goes_on("pay")
    asked = approval(talk, "approve", **INVENTED)
    refused = {**asked, **INVENTED}
    assert called(talk.reply()) == ("bank__pay", refused)
    talk.hears("bank__pay", {**refused, "amount_cents": 7}, {"error": "breaks the schema"})
    assert called(talk.reply()) == ("bank__pay", refused)
    talk.hears("bank__pay", refused, {"error": "breaks the schema"})
    assert (talk.wants().function, talk.wants().after_error) == (APPROVAL_FUNCTION, True)
    assert approval(talk, "approve") == asked
    assert called(talk.reply()) == ("bank__pay", asked)


@pytest.mark.parametrize("changes", [{}, {"amount_cents": 100}])
def test_a_refusal_of_what_the_tool_can_take_leaves_the_approval(changes: dict[str, Any]) -> None:
    talk = Talk(INVOICE).goes_on("pay")
    granted = {**approval(talk, "amend" if changes else "approve", **changes), **changes}
    for _ in range(ERRORS_MAX - 1):
        talk.hears("bank__pay", granted, {"error": "out of order, try later", "status": 503})
        assert called(talk.reply()) == ("bank__pay", granted)


def test_what_the_tool_can_t_take_however_it_is_asked_for_is_given_up() -> None:
    read = {"invoice_id": "INV-1041"}
    talk = Talk(INVOICE)
    talk.records.change("invoices/INV-1041", {"currency": "NOK"})
    talk.hears("erp__get_invoice", read, talk.does("erp__get_invoice", read)).goes_on()
    assert talk.effects == []
    assert talk.reply().message["content"] == "I could not get past pay."
    assert [entry.function for entry in Transcript(INVOICE, talk.messages).entries].count(APPROVAL_FUNCTION) == 1


# --- errors -------------------------------------------------------------------------------------------------


def test_after_too_many_refusals_of_the_right_call_it_gives_up() -> None:
    talk = Talk(INVOICE).goes_on("note")
    for _ in range(ERRORS_MAX):
        wanted = talk.wants()
        assert (wanted.kind, wanted.step) == ("call", "note")
        talk.hears(*called(talk.reply()), {"error": "out of order"})
    assert talk.reply().message == {"role": "assistant", "content": "I could not get past note."}


def test_refusals_of_wrong_calls_do_not_wear_it_out() -> None:
    talk = Talk(INVOICE).goes_on("note")
    for _ in range(ERRORS_MAX * 2):
        talk.hears("erp__post_note", {"invoice_id": "INV-9"}, {"error": "invoices has no 'INV-9'"})
        talk.hears("no__such", {}, {"error": "there is no function called 'no__such'"})
        talk.hears("erp__post_note", "not an object", {"error": "the arguments are not a JSON object"})
    assert (talk.wants().kind, talk.wants().step, talk.wants().after_error) == ("call", "note", True)


def test_a_success_between_them_starts_the_count_of_refusals_again() -> None:
    talk = Talk(LEADS).goes_on("log")
    for _ in range(3):
        for _ in range(ERRORS_MAX - 1):
            talk.hears(*called(talk.reply()), {"error": "out of order"})
        assert talk.wants().step == "log"
        talk.hears(*called(talk.reply()), {"result": {"activity_id": "A"}})
    assert talk.wants().step == "hot"


def test_a_rejected_judgement_is_told_from_a_first_one() -> None:
    content = json.dumps({"inputs": inputs_of(INVOICE, "match")})
    assert not wanted_by(INVOICE, asking("match", content)).after_error
    assert wanted_by(INVOICE, asking("match", content, after="Your last reply was rejected. It is empty.")).after_error


def test_data_that_speaks_of_rejection_was_once_taken_for_an_error_message() -> None:
    inputs = inputs_of(INVOICE, "match")
    inputs["order"] = {**inputs["order"], "state": "rejected before"}
    assert not wanted_by(INVOICE, asking("match", json.dumps({"inputs": inputs}))).after_error


# --- anything at all ----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab= {}\"'", max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "items", "result"]), inner),
    max_leaves=5,
)


@cache
def known_calls(name: str) -> list[tuple[str, Any, Any]]:
    """Every call of a conversation, with what it was told."""
    messages = Talk(WORKFLOWS[name]).goes_on().messages[2:]
    calls = [m["tool_calls"][0]["function"] for m in messages[::2]]
    return [
        (call["name"], json.loads(call["arguments"]), json.loads(told["content"]))
        for call, told in zip(calls, messages[1::2], strict=True)
    ]


@pytest.mark.parametrize("name", WORKFLOWS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_transcript_is_beyond_it(name: str, data: st.DataObject) -> None:
    # Values that no expression could take once broke the harness.
    talk = Talk(WORKFLOWS[name])
    functions = [*talk.tools, APPROVAL_FUNCTION, WAIT_FUNCTION, "no_such", ""]
    known = st.sampled_from(known_calls(name))
    for _ in range(data.draw(st.integers(0, 8))):
        function, arguments, told = data.draw(known)
        mangled = data.draw(st.integers(0, 9))
        if mangled == 0:
            function = data.draw(st.sampled_from(functions))
        elif mangled == 1:
            arguments = data.draw(JSON)
        elif mangled == 2:
            told = {"result": data.draw(JSON)}
        elif mangled == 3:
            told = data.draw(JSON | st.text("a{}[]", max_size=5))
        talk.hears(function, arguments, told)
    wanted = talk.wants()
    assert wanted.kind in {"call", "close"}
    reply = talk.reply()
    assert json.loads(json.dumps(reply.message)) == reply.message
    assert (wanted.kind == "call") == bool(reply.message.get("tool_calls"))


@settings(max_examples=100, deadline=None)
@given(judgement=st.sampled_from(JUDGEMENTS), values=st.data())
def test_no_inputs_are_beyond_it(judgement: tuple[str, str], values: st.DataObject) -> None:
    name, step = judgement
    inputs = {key: values.draw(JSON | st.just(value)) for key, value in inputs_of(WORKFLOWS[name], step).items()}
    wanted = wanted_by(WORKFLOWS[name], asking(step, json.dumps({"inputs": inputs})))
    assert isinstance(reply_to(WORKFLOWS[name], wanted, 7, 1).message["content"], str)
