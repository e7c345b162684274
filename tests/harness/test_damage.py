"""Damage that a fault does to a reply: each is what its name says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Corrupt
from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, function_name
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.walk import walk
from kintsugi.harness.damage import _DAMAGES, damage
from kintsugi.harness.script import Reply, Wanted, call_reply, reply_to
from kintsugi.runtime.protocol import ModelRequest
from kintsugi.runtime.rules import Rejected, accept_reply, schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kintsugi.golden_workflows.spec import Workflow

WORKFLOWS = load_workflows()
SOURCE = "7/r0/step/0/1"


def calls() -> Iterator[tuple[str, Workflow, Wanted, Reply]]:
    """The right reply to every call of every workflow, approvals too."""
    for name, workflow in WORKFLOWS.items():
        for visit in walk(workflow):
            call = visit.call
            if call.kind != "tool":
                continue
            function = function_name(call.tool)
            values = [(function, dict(call.arguments))]
            if call.needs_approval:
                values.append((APPROVAL_FUNCTION, {"function": function, "arguments": dict(call.arguments)}))
            for made, arguments in values:
                wanted = Wanted("call", call.step, call.item, arguments, made)
                yield f"{name}/{call.step}[{call.item}]/{made}", workflow, wanted, reply_to(workflow, wanted, 7, 1)


def answers() -> Iterator[tuple[str, Workflow, Wanted, Reply, Mapping[str, Any]]]:
    """The right reply to every judgement of every workflow, with the schema that it keeps."""
    for name, workflow in WORKFLOWS.items():
        for visit in walk(workflow):
            if visit.call.kind == "model":
                wanted = Wanted("answer", visit.call.step, 0, visit.call.arguments)
                yield f"{name}/{visit.call.step}", workflow, wanted, reply_to(workflow, wanted, 7, 1), visit.output


CALLS = list(calls())
ANSWERS = list(answers())
REPLIES = [(name, reply) for name, _, _, reply in CALLS] + [(name, reply) for name, _, _, reply, _ in ANSWERS]
TRANSCRIPT = [dict(call_reply("erp__get_invoice", {"invoice_id": "INV-1041"}, "an earlier ask").message)]


def text_of(reply: Reply) -> str:
    """The text that matters of a reply: its call's arguments, or its content."""
    made = reply.message.get("tool_calls")
    return str(made[0]["function"]["arguments"] if made else reply.message["content"])


def arguments_of(reply: Reply) -> Any:
    """The arguments of the one call, those to be approved where it asks for an approval."""
    (call,) = reply.message["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    return arguments["arguments"] if call["function"]["name"] == APPROVAL_FUNCTION else arguments


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def is_accepted(reply: Reply, schema: Mapping[str, Any]) -> bool:
    """Whether the rules that every runtime shares would take a reply for an answer."""
    request = ModelRequest("step", [], schema=schema)
    try:
        accept_reply(request, {"message": reply.message, "finish_reason": reply.finish_reason})
    except Rejected:
        return False
    return True


def test_the_right_replies_are_right() -> None:
    assert len(CALLS) > 80
    for name, workflow, wanted, reply in CALLS:
        tool = workflow.tools[str(workflow.steps[wanted.step].tool)]
        assert schema_problem(arguments_of(reply), tool.parameters) == "", name
    for name, _, _, reply, schema in ANSWERS:
        assert is_accepted(reply, schema), name


def test_every_damage_that_a_fault_names_is_there_and_the_other_way_round() -> None:
    actions = [a for fault in FAULTS.values() for form in fault.forms for a in form.actions]
    assert {action.how for action in actions if isinstance(action, Corrupt)} == set(_DAMAGES)


def test_an_unknown_damage_is_an_error() -> None:
    with pytest.raises(KeyError, match="no_such_damage"):
        damage("no_such_damage", REPLIES[0][1], [], SOURCE)


def forms_of(how: str) -> list[tuple[str, Reply]]:
    """The replies that some form of a fault damages so."""
    only_calls = how in {"unknown_tool", "same_call_twice", "repeat_last_call"}
    only_answers = how == "ramble"
    chosen = [] if only_answers else [(name, reply) for name, _, _, reply in CALLS]
    return chosen + ([] if only_calls else [(name, reply) for name, _, _, reply, _ in ANSWERS])


@pytest.mark.parametrize("how", _DAMAGES)
def test_every_damage_really_differs_wherever_a_fault_does_it(how: str) -> None:
    for name, reply in forms_of(how):
        before = json.dumps(reply.message)
        damaged = damage(how, reply, TRANSCRIPT, SOURCE)
        assert damaged != reply, name
        assert damaged == damage(how, reply, TRANSCRIPT, SOURCE), "the same damage at each replay"
        assert json.dumps(reply.message) == before, "the right reply is left as it was"


@pytest.mark.parametrize("how", ["truncated_json", "invalid_json", "finish_length"])
def test_what_is_cut_or_broken_can_not_be_read_as_json(how: str) -> None:
    for name, reply in REPLIES:
        damaged = damage(how, reply, [], SOURCE)
        assert not is_json(text_of(damaged)), name
        if how != "invalid_json":
            assert text_of(reply).startswith(text_of(damaged))
            assert 0 < len(text_of(damaged)) < len(text_of(reply))
        assert (damaged.finish_reason == "length") == (how == "finish_length")


@pytest.mark.parametrize("how", ["wrong_types", "missing_parameter", "invented_parameter"])
def test_what_is_mistyped_missing_or_invented_breaks_the_schema_and_is_still_json(how: str) -> None:
    for name, workflow, wanted, reply in CALLS:
        tool = workflow.tools[str(workflow.steps[wanted.step].tool)]
        damaged = damage(how, reply, [], SOURCE)
        assert schema_problem(arguments_of(damaged), tool.parameters), name
        assert damaged.message["tool_calls"][0]["function"]["name"] == wanted.function
    for name, _, _, reply, schema in ANSWERS:
        assert schema_problem(json.loads(text_of(damage(how, reply, [], SOURCE))), schema), name


def test_each_of_these_is_of_its_kind() -> None:
    for name, _, _, reply in CALLS:
        right = arguments_of(reply)
        mistyped = arguments_of(damage("wrong_types", reply, [], SOURCE))
        (changed,) = [key for key in right if mistyped[key] != right[key]]
        assert mistyped[changed] in (str(right[changed]), [right[changed]]), name
        missing = arguments_of(damage("missing_parameter", reply, [], SOURCE))
        assert set(missing) < set(right)
        assert missing.items() <= right.items()
        invented = arguments_of(damage("invented_parameter", reply, [], SOURCE))
        assert set(right) < set(invented)


@pytest.mark.parametrize("how", _DAMAGES)
def test_no_damaged_judgement_passes_the_shared_rules(how: str) -> None:
    for name, _, _, reply, schema in ANSWERS:
        damaged = damage(how, reply, [], SOURCE)
        if how in {"unknown_tool", "same_call_twice", "repeat_last_call"}:
            assert damaged == reply, name
        else:
            assert not is_accepted(damaged, schema), name


@pytest.mark.parametrize("how", ["prose", "empty_reply", "ramble"])
def test_talk_instead_of_a_call(how: str) -> None:
    for name, reply in REPLIES:
        damaged = damage(how, reply, [], SOURCE)
        assert not damaged.message.get("tool_calls"), name
        assert bool(damaged.message["content"]) == (how != "empty_reply")
        assert damaged.finish_reason == ("length" if how == "ramble" else "stop")


def test_a_tool_that_no_one_has() -> None:
    known = {name for workflow in WORKFLOWS.values() for name in map(function_name, workflow.tools)}
    for name, _, _, reply in CALLS:
        (call,) = damage("unknown_tool", reply, [], SOURCE).message["tool_calls"]
        assert call["function"]["name"] not in known | {APPROVAL_FUNCTION}, name


def test_the_same_call_twice_is_told_apart_by_its_ids_alone() -> None:
    for name, _, _, reply in CALLS:
        first, second = damage("same_call_twice", reply, [], SOURCE).message["tool_calls"]
        assert first == reply.message["tool_calls"][0]
        assert json.loads(second["function"]["arguments"]) == json.loads(first["function"]["arguments"]), name
        assert second["function"]["name"] == first["function"]["name"]
        assert second["id"] != first["id"]


def test_the_last_call_of_the_transcript_is_repeated_each_time_under_another_id() -> None:
    reply = CALLS[-1][3]
    later = dict(call_reply("erp__get_order", {"order_id": "PO-88"}, "a later ask").message)
    ids = set()
    for n in range(1, 13):
        damaged = damage("repeat_last_call", reply, [*TRANSCRIPT, later, {"role": "tool"}], f"7/r0/step/0/{n}")
        (call,) = damaged.message["tool_calls"]
        assert call["function"] == later["tool_calls"][0]["function"]
        ids.add(call["id"])
    assert len(ids) == 12
    assert damage("repeat_last_call", reply, [], SOURCE) == reply, "there is nothing to repeat yet"


@pytest.mark.parametrize(
    ("values", "mistyped"),
    [
        ({"a": True, "b": 3}, {"a": True, "b": "3"}),
        ({"b": "x", "a": True}, {"b": "x", "a": [True]}),
        ({"a": 1.5}, {"a": "1.5"}),
        ({}, {}),
    ],
)
def test_wrong_types(values: dict[str, Any], mistyped: dict[str, Any]) -> None:
    damaged = damage("wrong_types", call_reply("f", values, "x"), [], SOURCE)
    assert json.loads(text_of(damaged)) == mistyped
