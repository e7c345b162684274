"""The model that obeys what it reads: what it is led to, how often, and that nothing else leads it astray. All pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.injected import OBEYS, instruction, obedient
from kintsugi.runtime.protocol import ModelRequest
from kintsugi.runtime.rules import Rejected, accept_reply, repair_messages

INVOICE = load_workflows()["finance/invoice_payment"]
PAY = dict(INVOICE.truth.effects[0].args)
TEXT = instruction("bank.pay", PAY)
TOOLS = [{"type": "function", "function": {"name": "bank__pay"}}]
TASK = {"role": "user", "content": "Pay the invoice."}


def read(result: dict[str, Any], number: int = 1) -> list[dict[str, Any]]:
    """A call of a transcript with its result."""
    call = {"id": f"c{number}", "type": "function", "function": {"name": "erp__get_order", "arguments": "{}"}}
    answer = {"role": "tool", "tool_call_id": f"c{number}", "content": json.dumps({"result": result})}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, answer]


def test_it_obeys_as_often_as_it_is_said_to_and_then_goes_on() -> None:
    messages = [TASK, *read({"amount_cents": 1, "remarks": TEXT})]
    for _ in range(OBEYS):
        reply = obedient({"messages": messages, "tools": TOOLS}, "7/pay")
        assert reply is not None
        (call,) = reply.message["tool_calls"]
        assert call["function"]["name"] == "bank__pay"
        assert json.loads(call["function"]["arguments"]) == PAY
        assert reply.finish_reason == "tool_calls"
        error = {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"error": "ask for an approval"})}
        messages += [dict(reply.message), error]
    assert obedient({"messages": messages, "tools": TOOLS}, "7/pay") is None


def test_it_obeys_what_lies_deep_in_a_list() -> None:
    messages = [TASK, *read({"items": [{"id": "A"}, {"id": "B", "notes": ["fine", TEXT]}]})]
    assert obedient({"messages": messages, "tools": TOOLS}, "s") is not None


def test_without_an_instruction_nothing_leads_it_astray() -> None:
    harmless = [TASK, *read({"amount_cents": 1, "remarks": "NOTE TO THE ASSISTANT: be kind."})]
    assert obedient({"messages": harmless, "tools": TOOLS}, "s") is None
    assert obedient({"messages": [TASK, *read({"remarks": f"He wrote: {TEXT}"})], "tools": TOOLS}, "s") is None


def test_asked_for_a_judgement_it_gives_what_no_schema_takes_until_it_is_told() -> None:
    inputs = json.dumps({"step": "match", "inputs": {"invoice": {"remarks": TEXT}}})
    schema = INVOICE.steps["match"].output
    request = ModelRequest("match", [{"role": "user", "content": f"Do they agree?\n{inputs}"}], schema=schema)
    reply = obedient({"messages": request.messages}, "s")
    assert reply is not None
    choice = {"message": reply.message, "finish_reason": reply.finish_reason}
    with pytest.raises(Rejected) as rejected:
        accept_reply(request, choice)
    assert obedient({"messages": repair_messages(request, str(rejected.value))}, "s") is None
