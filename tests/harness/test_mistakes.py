"""How the scripted model errs: each damage is what its name says, each profile errs as often as it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Corrupt
from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, _functions, function_name
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.walk import walk
from kintsugi.harness.mistakes import _DAMAGES, PROFILES, Profile, _slips, damage, vary
from kintsugi.harness.script import Reply, Wanted, call_reply, reply_to
from kintsugi.runtime.protocol import ModelRequest
from kintsugi.runtime.rules import Rejected, accept_reply, schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kintsugi.golden_workflows.spec import Workflow

WORKFLOWS = load_workflows()
INVOICE = WORKFLOWS["finance/invoice_payment"]
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


# --- damage -------------------------------------------------------------------------------------------------


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


# --- the model's own mistakes -------------------------------------------------------------------------------

TOOLS = _functions(INVOICE.plan)
READ = Wanted("call", "order", 0, {"order_id": "PO-88"}, "erp__get_order")
PAY = Wanted("call", "pay", 0, INVOICE.truth.effects[0].args, "bank__pay")
JUDGE = next(wanted for _, workflow, wanted, _, _ in ANSWERS if workflow is INVOICE)
ASKS = 6000


def kind_of(wanted: Wanted, right: Reply, reply: Reply) -> str:
    """What a reply got wrong."""
    if reply == right:
        return "right"
    if wanted.kind == "answer":
        return "wrong_argument" if is_json(text_of(reply)) else "malformed"
    if not reply.message.get("tool_calls"):
        return "premature_end"
    if reply.message["tool_calls"][0]["function"]["name"] != wanted.function:
        return "wrong_tool"
    return "wrong_argument" if is_json(text_of(reply)) else "malformed"


def counted(profile: Profile, wanted: Wanted, asks: int = ASKS) -> dict[str, int]:
    right = reply_to(INVOICE, wanted, 7, 1)
    found: dict[str, int] = {}
    for n in range(asks):
        kind = kind_of(wanted, right, vary(profile, wanted, right, {"tools": TOOLS}, f"7/r0/{wanted.step}/0/{n}"))
        found[kind] = found.get(kind, 0) + 1
    return found


def near(count: int, rate: float, asks: int = ASKS) -> bool:
    """Whether a count is within four standard deviations of what a rate leads to."""
    return bool(abs(count - rate * asks) <= 4 * (rate * (1 - rate) * asks) ** 0.5)


@pytest.mark.parametrize("name", ["typical", "hostile"])
@pytest.mark.parametrize("wanted", [READ, PAY], ids=["read", "write"])
def test_calls_go_wrong_at_the_rates_of_the_profile(name: str, wanted: Wanted) -> None:
    profile, found = PROFILES[name], counted(PROFILES[name], wanted)
    for kind in ("wrong_tool", "wrong_argument", "malformed", "premature_end"):
        assert near(found[kind], getattr(profile, kind)), (kind, found)


@pytest.mark.parametrize("name", ["typical", "hostile"])
def test_judgements_have_no_tool_to_mistake_and_no_end_to_come_to(name: str) -> None:
    profile, found = PROFILES[name], counted(PROFILES[name], JUDGE)
    assert set(found) == {"right", "malformed"}, "this judgement holds nothing that a slip could change"
    assert near(found["malformed"], profile.malformed)
    refund = next(a for a in ANSWERS if a[0] == "finance/customer_refund/judge")
    slips = 0
    for n in range(ASKS):
        reply = vary(profile, refund[2], refund[3], {}, f"{n}")
        slips += is_json(text_of(reply)) and json.loads(text_of(reply)) != json.loads(text_of(refund[3]))
    assert near(slips, profile.wrong_argument)


def test_none_never_errs() -> None:
    for name, _, wanted, reply in CALLS:
        assert all(vary(PROFILES["none"], wanted, reply, {"tools": TOOLS}, f"{n}") == reply for n in range(20)), name
    assert counted(PROFILES["none"], READ) == {"right": ASKS}


@pytest.mark.parametrize("name", PROFILES)
def test_the_last_word_is_never_wrong(name: str) -> None:
    wanted = Wanted("close", "end", 0)
    right = reply_to(INVOICE, wanted, 7, 1)
    assert all(vary(PROFILES[name], wanted, right, {"tools": TOOLS}, f"{n}") == right for n in range(500))


@pytest.mark.parametrize("name", ["typical", "hostile"])
def test_an_error_message_corrects_it_as_often_as_the_profile_says(name: str) -> None:
    profile = PROFILES[name]
    wanted = Wanted("call", "order", 0, {"order_id": "PO-88"}, "erp__get_order", after_error=True)
    found = counted(profile, wanted)
    rates = profile.wrong_tool + profile.wrong_argument + profile.malformed + profile.premature_end
    assert near(ASKS - found["right"], rates * (1 - profile.corrects_itself))


def test_the_same_source_errs_the_same_way() -> None:
    right = reply_to(INVOICE, PAY, 7, 1)
    for n in range(200):
        first, second = (vary(PROFILES["hostile"], PAY, right, {"tools": TOOLS}, f"{n}") for _ in range(2))
        assert first == second


def certain(**rates: float) -> Profile:
    return Profile(**rates, corrects_itself=0.0)


def test_a_wrong_tool_is_another_of_the_tools_with_the_same_arguments() -> None:
    right, found = reply_to(INVOICE, READ, 7, 1), set()
    for n in range(60):
        (call,) = vary(certain(wrong_tool=1.0), READ, right, {"tools": TOOLS}, f"{n}").message["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == READ.values
        found.add(call["function"]["name"])
    offered = {tool["function"]["name"] for tool in TOOLS}
    assert found == offered - {APPROVAL_FUNCTION, READ.function}


@pytest.mark.parametrize("tools", [[], [{"type": "function", "function": {"name": "erp__get_order"}}]])
def test_where_there_is_no_other_tool_there_is_no_wrong_one(tools: list[dict[str, Any]]) -> None:
    right = reply_to(INVOICE, READ, 7, 1)
    assert vary(certain(wrong_tool=1.0), READ, right, {"tools": tools}, "x") == right


def test_a_wrong_argument_is_one_slip_and_leaves_prose_alone() -> None:
    for name, workflow, wanted, right in CALLS:
        free = workflow.free_arguments[wanted.step]
        before = arguments_of(right)
        for n in range(10):
            reply = vary(certain(wrong_argument=1.0), wanted, right, {"tools": TOOLS}, f"{n}")
            after = arguments_of(reply)
            assert set(after) == set(before)
            changed = {key for key in after if after[key] != before[key]}
            assert len(changed) <= 1, name
            assert not changed & free, name
            assert changed or reply == right, "nothing to get wrong: the reply was once another all the same"


@pytest.mark.parametrize(
    ("value", "schema", "slips"),
    [
        (12, {}, [120]),
        (1.5, {}, [15.0]),
        (True, {}, [False]),
        ("INV-1049", {}, ["INV-1040"]),
        ("pay", {"enum": ["pay", "hold"]}, ["pay", "hold"]),
        (["H-1", "H-2"], {}, [["H-1"]]),
        (["H-1"], {"minItems": 1}, []),
        (["H-1"], {"items": {"enum": ["H-1", "H-2"]}}, [[], ["H-1", "H-2"]]),
        ("some prose", {}, []),
    ],
)
def test_slips(value: object, schema: dict[str, object], slips: list[object]) -> None:
    assert _slips(value, schema) == slips


def test_what_else_a_value_might_have_been_is_said_by_the_schema_of_what_is_asked_for() -> None:
    state = {"properties": {"state": {"enum": ["open", "done"]}}}
    functions = [("other", {}), ("f", state), ("more", {})]
    tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in functions]
    call = Wanted("call", "s", 0, {"state": "open"}, "f")
    approval = Wanted("call", "s", 0, {"function": "f", "arguments": {"state": "open"}}, APPROVAL_FUNCTION)
    answer = Wanted("answer", "s", 0, {})
    form = {"response_format": {"json_schema": {"name": "s", "schema": state}}}
    for wanted, request, reply in (
        (call, {"tools": tools}, call_reply("f", {"state": "open"}, "x")),
        (approval, {"tools": tools}, call_reply(APPROVAL_FUNCTION, dict(approval.values), "x")),
        (answer, form, Reply({"role": "assistant", "content": '{"state": "open"}'}, "stop")),
    ):
        erred = vary(certain(wrong_argument=1.0), wanted, reply, request, "x")
        right, wrong = json.loads(text_of(reply)), json.loads(text_of(erred))
        assert (right.get("arguments", right), wrong.get("arguments", wrong)) == ({"state": "open"}, {"state": "done"})
        assert vary(certain(wrong_argument=1.0), wanted, reply, {}, "x") == reply, "nothing is known of the value"


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


def test_every_judgement_of_every_workflow_can_go_wrong() -> None:
    for workflow in WORKFLOWS.values():
        for visit in walk(workflow):
            if visit.call.kind != "model":
                continue
            wanted = Wanted("answer", visit.call.step, 0, visit.call.arguments)
            right = reply_to(workflow, wanted, 7, 1)
            form = {"json_schema": {"name": visit.call.step, "schema": visit.output}}
            erred = vary(certain(wrong_argument=1.0), wanted, right, {"response_format": form}, "x")
            assert erred != right, (workflow.name, visit.call.step)


def test_a_slip_keeps_the_schema_so_that_only_its_value_is_wrong() -> None:
    for name, workflow, wanted, right in CALLS:
        tool = workflow.tools[str(workflow.steps[wanted.step].tool)]
        kept = [
            schema_problem(
                arguments_of(vary(certain(wrong_argument=1.0), wanted, right, {"tools": TOOLS}, f"{n}")),
                tool.parameters,
            )
            for n in range(5)
        ]
        assert kept == [""] * 5, name


def test_what_could_not_be_told_is_not_made_worse() -> None:
    wanted = Wanted("answer", "match", 0, missing="invoice, order")
    right = reply_to(INVOICE, wanted, 7, 1)
    for kind in ("wrong_tool", "wrong_argument", "premature_end"):
        assert vary(certain(**{kind: 1.0}), wanted, right, {}, "x") == right
