"""How the scripted model errs: each mistake is what its name says, and as frequent as its profile says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION, WAIT_FUNCTION, _functions
from kintsugi.golden_workflows.spec import FREE_TEXT, load_workflows
from kintsugi.golden_workflows.walk import walk
from kintsugi.harness import accuracy
from kintsugi.harness.intervals import clopper_pearson
from kintsugi.harness.mistakes import MISTAKES, PROFILES, Profile, vary
from kintsugi.harness.records import Count
from kintsugi.harness.script import Reply, Wanted, call_reply, reply_to, wanted_by
from kintsugi.runtime.protocol import ModelRequest
from kintsugi.runtime.rules import Rejected, accept_reply, repair_messages, schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kintsugi.golden_workflows.spec import Workflow

WORKFLOWS = load_workflows()
INVOICE = WORKFLOWS["finance/invoice_payment"]
LEADS = WORKFLOWS["marketing/lead_follow_up"]
REFUND = WORKFLOWS["finance/customer_refund"]
ASKS = 20_000
DOCUMENT = Path(__file__).parents[2] / "docs" / "model-profiles.md"

Asked = tuple[Wanted, Reply, dict[str, Any]]
"""What a request calls for, the right reply, and the request."""


# --- every ask of a run without mistakes --------------------------------------------------------------------


def naive_asks(workflow: Workflow) -> Iterator[Asked]:
    """Every ask of the naive chain, with the whole transcript so far."""
    values = {(visit.call.step, visit.call.item): visit.value for visit in walk(workflow)}
    functions = _functions(workflow.plan)
    messages: list[dict[str, Any]] = [{"role": "user", "content": workflow.plan["task"]}]
    while (wanted := wanted_by(workflow, {"messages": messages})).kind == "call":
        right = reply_to(workflow, wanted, 7, 1)
        yield wanted, right, {"messages": list(messages), "tools": functions}
        asked_for = {"decision": "approve", "arguments": wanted.values.get("arguments")}
        answer = asked_for if wanted.function == APPROVAL_FUNCTION else values[wanted.step, wanted.item]
        messages += [dict(right.message), told(right, {"result": answer})]


def optimized_asks(workflow: Workflow) -> Iterator[Asked]:
    """Every ask of the optimized chain, with the inputs and the schema of one judgement."""
    for visit in walk(workflow):
        if visit.call.kind == "model":
            wanted = Wanted("answer", visit.call.step, 0, visit.call.arguments)
            content = json.dumps({"step": visit.call.step, "inputs": visit.call.arguments})
            form = {"json_schema": {"name": visit.call.step, "schema": visit.output}}
            request = {"messages": [{"role": "user", "content": content}], "response_format": form}
            yield wanted, reply_to(workflow, wanted, 7, 1), request


def told(reply: Reply, answer: Any) -> dict[str, Any]:
    """What the naive chain tells the model of the one call that it made."""
    (call,) = reply.message["tool_calls"]
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(answer)}


@cache
def asks(chain: str) -> list[tuple[str, Workflow, Asked]]:
    """Every ask of every workflow."""
    of = {"naive": naive_asks, "optimized": optimized_asks}[chain]
    return [
        (f"{name}/{asked[0].step}[{asked[0].item}]/{asked[0].function}", workflow, asked)
        for name, workflow in WORKFLOWS.items()
        for asked in of(workflow)
    ]


def ask_for(workflow: Workflow, step: str, function: str = "", item: int = 0) -> Asked:
    """One ask of a workflow; of the naive chain where a function is named."""
    of = naive_asks(workflow) if function else optimized_asks(workflow)
    return next(a for a in of if (a[0].step, a[0].function, a[0].item) == (step, function, item))


READ = ask_for(INVOICE, "order", "erp__get_order")
PAY = ask_for(INVOICE, "pay", "bank__pay")
APPROVE = ask_for(INVOICE, "pay", APPROVAL_FUNCTION)
JUDGE = ask_for(REFUND, "judge")


def certain(**rates: float) -> Profile:
    return Profile(**{"corrects_itself": 0.0, **rates})


def called(reply: Reply) -> tuple[str, Any]:
    """The function and the arguments of the one call that a reply makes."""
    (call,) = reply.message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def object_of(reply: Reply) -> dict[str, Any]:
    """The values of a reply: those to be approved where it asks for an approval."""
    values: dict[str, Any] = (
        called(reply)[1] if reply.message.get("tool_calls") else json.loads(reply.message["content"])
    )
    is_question = bool(reply.message.get("tool_calls")) and called(reply)[0] == APPROVAL_FUNCTION
    return dict(values["arguments"]) if is_question else values


def is_json(reply: Reply) -> bool:
    try:
        object_of(reply)
    except ValueError:
        return False
    return True


def prose_of(workflow: Workflow, wanted: Wanted) -> frozenset[str]:
    """The names of the values in which any text is right."""
    if wanted.kind == "call":
        return workflow.free_arguments.get(wanted.step, frozenset())
    script = workflow.script[wanted.step]
    return frozenset(n for n, said in script.items() if isinstance(said, str) and said.startswith(FREE_TEXT))


def kind_of(asked: Asked, reply: Reply) -> str:
    """What a reply got wrong, told from the reply and the request alone."""
    wanted, right, request = asked
    if reply == right:
        return "right"
    if wanted.kind == "call" and not reply.message.get("tool_calls"):
        return "premature_end"
    if not is_json(reply):
        return "malformed"
    if wanted.kind == "call":
        function, arguments = called(reply)
        if (function, arguments) in made_in(request):
            return "repeated_call"
        if function != wanted.function:
            skipped = wanted.function == APPROVAL_FUNCTION and function == wanted.values["function"]
            return "ignored_instruction" if skipped else "wrong_tool"
    before, after = object_of(right), object_of(reply)
    if len(after) < len(before):
        return "ignored_instruction"
    (name,) = [name for name in before if before[name] != after[name]]
    fewer = isinstance(before[name], list) and len(after[name]) < len(before[name])
    return "fewer" if fewer else "wrong_argument"


def made_in(request: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls in a transcript that have succeeded."""
    said = {m["tool_call_id"]: json.loads(m["content"]) for m in request["messages"] if m.get("role") == "tool"}
    calls = [call for message in request["messages"] for call in message.get("tool_calls") or []]
    good = [call["function"] for call in calls if "result" in said[call["id"]]]
    return [(call["name"], json.loads(call["arguments"])) for call in good]


def counted(profile: Profile, asked: Asked, draws: int = ASKS) -> Counter[str]:
    wanted, right, request = asked
    return Counter(kind_of(asked, vary(profile, wanted, right, request, f"7/r0/{n}")) for n in range(draws))


def within(count: int, rate: float, draws: int = ASKS) -> bool:
    """Whether a rate lies in the exact interval, of 99.99%, of what was counted."""
    low, high = clopper_pearson(count, draws, 0.9999)
    return low <= rate <= high


# --- how often ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["typical", "hostile"])
@pytest.mark.parametrize("asked", [READ, PAY], ids=["read", "write"])
def test_every_mistake_of_a_call_is_made_at_its_rate(name: str, asked: Asked) -> None:
    found = counted(PROFILES[name], asked)
    assert set(found) == {"right", *MISTAKES}
    for kind in MISTAKES:
        assert within(found[kind], getattr(PROFILES[name], kind)), (kind, found)


@pytest.mark.parametrize("name", ["typical", "hostile"])
def test_a_judgement_is_broken_wrong_or_incomplete_and_nothing_else(name: str) -> None:
    found = counted(PROFILES[name], JUDGE)
    assert set(found) == {"right", "malformed", "wrong_argument", "ignored_instruction"}
    for kind in set(found) - {"right"}:
        assert within(found[kind], getattr(PROFILES[name], kind)), (kind, found)


@pytest.mark.parametrize("chain", ["naive", "optimized"])
def test_without_a_profile_there_is_no_mistake(chain: str) -> None:
    for name, _, (wanted, right, request) in asks(chain):
        assert all(vary(PROFILES["none"], wanted, right, request, f"{n}") == right for n in range(5)), name


@pytest.mark.parametrize("name", PROFILES)
def test_the_last_word_is_never_wrong(name: str) -> None:
    wanted = Wanted("close", "end", 0)
    right = reply_to(INVOICE, wanted, 7, 1)
    assert all(vary(PROFILES[name], wanted, right, READ[2], f"{n}") == right for n in range(500))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_rates_of_a_profile_are_those_of_one_draw(profile: Profile) -> None:
    assert list(MISTAKES) == [field.name for field in fields(Profile)][:-1], "each mistake has a rate"
    assert 0 <= sum(getattr(profile, kind) for kind in MISTAKES) <= 1
    assert 0 <= profile.corrects_itself <= 1


def test_a_new_kind_of_mistake_leaves_the_others_where_they_were() -> None:
    before = Profile(**{kind: getattr(PROFILES["typical"], kind) for kind in list(MISTAKES)[:4]})
    for asked in (READ, PAY, JUDGE):
        for n in range(2000):
            earlier = vary(before, *asked, f"{n}")
            assert vary(PROFILES["typical"], *asked, f"{n}") == earlier or earlier == asked[1]


@pytest.mark.parametrize("chain", ["naive", "optimized"])
def test_the_same_source_errs_the_same_way_and_leaves_the_right_reply_alone(chain: str) -> None:
    for name, _, (wanted, right, request) in asks(chain):
        before = json.dumps([right.message, request])
        first, second = (vary(certain(**dict.fromkeys(MISTAKES, 1 / 6)), wanted, right, request, name) for _ in "ab")
        assert first == second
        assert json.dumps([right.message, request]) == before


# --- of which kind ------------------------------------------------------------------------------------------


LOOKS_LIKE = {
    "wrong_tool": {"repeated_call"},
    "wrong_argument": {"repeated_call", "fewer"},
    "ignored_instruction": {"fewer"},
}
"""What is wrong may by chance be a call that was made before; an item too few may be forgotten or overlooked."""


@pytest.mark.parametrize("chain", ["naive", "optimized"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_of_its_kind_wherever_it_is_made(mistake: str, chain: str) -> None:
    kinds: Counter[str] = Counter()
    for name, workflow, asked in asks(chain):
        wanted, right, request = asked
        for n in range(3):
            reply = vary(certain(**{mistake: 1.0}), wanted, right, request, f"{name}/{n}")
            kind = kind_of(asked, reply)
            kinds[kind] += 1
            assert kind in {mistake, "right"} | LOOKS_LIKE.get(mistake, set()), name
            if kind in {"wrong_argument", "ignored_instruction", "fewer"} and wanted.function == called_by(reply):
                before, after = object_of(right), object_of(reply)
                changed = {key for key in before if before[key] != after.get(key)}
                assert len(changed) == 1, name
                assert not changed & prose_of(workflow, wanted), "prose alone is no mistake"
    without_a_call = {"premature_end", "wrong_tool", "repeated_call"}
    if chain == "optimized" and mistake in without_a_call:
        assert set(kinds) == {"right"}, "a judgement makes no call"
    else:
        assert kinds["right"] <= 0.3 * kinds.total(), kinds


def called_by(reply: Reply) -> str:
    return called(reply)[0] if reply.message.get("tool_calls") else ""


def test_a_wrong_tool_is_another_of_the_same_service_with_the_same_arguments() -> None:
    wanted, right, request = READ
    found = {called(vary(certain(wrong_tool=1.0), wanted, right, request, f"{n}"))[0] for n in range(60)}
    assert found == {"erp__get_invoice", "erp__post_note"}
    assert called(vary(certain(wrong_tool=1.0), wanted, right, request, "x"))[1] == wanted.values


def test_where_the_service_has_no_other_tool_any_other_will_do_but_the_question_to_a_person() -> None:
    wanted, right, request = PAY
    found = {called(vary(certain(wrong_tool=1.0), wanted, right, request, f"{n}"))[0] for n in range(90)}
    assert found == {tool["function"]["name"] for tool in request["tools"]} - {"bank__pay", APPROVAL_FUNCTION}


@pytest.mark.parametrize("tools", [[], [{"type": "function", "function": {"name": "erp__get_order"}}]])
def test_where_there_is_no_other_tool_there_is_no_wrong_one(tools: list[dict[str, Any]]) -> None:
    wanted, right, request = READ
    assert vary(certain(wrong_tool=1.0), wanted, right, {**request, "tools": tools}, "x") == right


def test_a_wrong_id_is_one_that_the_request_shows_where_it_shows_one() -> None:
    asked = next(a for a in naive_asks(LEADS) if a[0].function == "crm__get_lead")
    wanted, right, request = asked
    wrong = {called(vary(certain(wrong_argument=1.0), wanted, right, request, f"{n}"))[1]["lead_id"] for n in range(80)}
    results = [json.loads(message["content"]) for message in request["messages"] if message["role"] == "tool"]
    (listed,) = [answer["result"]["items"] for answer in results if "items" in answer["result"]]
    assert wrong == {lead["id"] for lead in listed} - {wanted.values["lead_id"]}


def test_a_wrong_amount_is_a_stale_one_where_an_earlier_result_shows_one() -> None:
    wanted, right, request = PAY
    messages = [dict(message) for message in request["messages"]]
    order = next(m for m in messages if m["role"] == "tool" and "received_cents" in m["content"])
    order["content"] = order["content"].replace('"amount_cents": 128400', '"amount_cents": 96000')
    stale = {**request, "messages": messages}
    amounts = {
        called(vary(certain(wrong_argument=1.0), wanted, right, stale, f"{n}"))[1]["amount_cents"] for n in range(80)
    }
    assert amounts == {128400, 96000}, "one of the two; the other values slip at the other draws"
    made_up = {called(vary(certain(wrong_argument=1.0), *PAY, f"{n}"))[1]["amount_cents"] for n in range(80)}
    assert made_up == {128400, 1284000}, "where no other is shown"


def test_a_slip_keeps_the_schema_so_that_only_its_value_is_wrong() -> None:
    for name, workflow, (wanted, right, request) in asks("naive"):
        tool = workflow.steps[wanted.step].tool
        if tool is not None:
            for n in range(3):
                slip = object_of(vary(certain(wrong_argument=1.0), wanted, right, request, f"{n}"))
                assert schema_problem(slip, workflow.tools[tool].parameters) == "", name
    for name, _, (wanted, right, request) in asks("optimized"):
        slip = object_of(vary(certain(wrong_argument=1.0), wanted, right, request, "x"))
        assert schema_problem(slip, request["response_format"]["json_schema"]["schema"]) == "", name


def test_every_judgement_of_every_workflow_can_go_wrong() -> None:
    for name, _, (wanted, right, request) in asks("optimized"):
        assert vary(certain(wrong_argument=1.0), wanted, right, request, "x") != right, name


def test_what_is_called_again_has_succeeded_and_is_not_what_is_due() -> None:
    for name, _, (wanted, right, request) in asks("naive"):
        again = vary(certain(repeated_call=1.0), wanted, right, request, "x")
        if again != right:
            assert called(again) in made_in(request), name
            assert called(again) != called(right), name
            ids = [call["id"] for m in request["messages"] for call in m.get("tool_calls") or []]
            assert again.message["tool_calls"][0]["id"] not in ids, "a call of its own"
    first = next(naive_asks(INVOICE))
    assert vary(certain(repeated_call=1.0), *first, "x") == first[1], "there is nothing to repeat yet"


def test_a_call_that_was_refused_is_not_called_again_by_mistake() -> None:
    wanted, right, request = READ
    refused = call_reply("erp__post_note", {"invoice_id": "INV-1041"}, "refused")
    messages = [*request["messages"], dict(refused.message), told(refused, {"error": "status: is missing"})]
    for n in range(20):
        again = vary(certain(repeated_call=1.0), wanted, right, {**request, "messages": messages}, f"{n}")
        assert called(again)[0] == "erp__get_invoice"


def test_an_ignored_instruction_leaves_out_the_approval() -> None:
    for name, _, (wanted, right, request) in asks("naive"):
        if wanted.function == APPROVAL_FUNCTION:
            bold = vary(certain(ignored_instruction=1.0), wanted, right, request, "x")
            assert called(bold) == (wanted.values["function"], object_of(right)), name


def test_an_ignored_instruction_leaves_out_the_waiting() -> None:
    waits = [asked for _, _, asked in asks("naive") if asked[0].function == WAIT_FUNCTION]
    assert waits
    for asked in waits:
        assert called(vary(certain(ignored_instruction=1.0), *asked, "x")) == (WAIT_FUNCTION, {})


def test_an_incomplete_judgement_is_turned_down_or_has_an_item_fewer() -> None:
    for name, _, (wanted, right, request) in asks("optimized"):
        schema = request["response_format"]["json_schema"]["schema"]
        before = object_of(right)
        for n in range(4):
            reply = vary(certain(ignored_instruction=1.0), wanted, right, request, f"{n}")
            after = object_of(reply)
            shorter = [k for k in after if isinstance(after[k], list) and len(after[k]) < len(before[k])]
            if not shorter:
                with pytest.raises(Rejected):
                    accept_reply(ModelRequest("step", [], schema=schema), reply.__dict__)
            assert len(shorter) + len(before) - len(after) == 1, name


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_could_not_be_told_is_not_made_worse(mistake: str) -> None:
    wanted = Wanted("answer", "match", 0, missing="invoice, order")
    right = reply_to(INVOICE, wanted, 7, 1)
    if mistake != "malformed":
        assert vary(certain(**{mistake: 1.0}), wanted, right, {"messages": []}, "x") == right


# --- as proposed --------------------------------------------------------------------------------------------


def proposed(workflow: Workflow, asked: Asked, reply: Reply) -> dict[str, Count]:
    """The accuracy of one proposal, from the event that the gateway writes of it."""
    wanted, right, _ = asked
    held = {"kind": wanted.kind, "content": right.message["content"]}
    if wanted.kind == "call":
        function, arguments = called(right)
        held |= {"function": function, "arguments": json.dumps(arguments)}
    event = {"t": 1.0, "who": "gateway", "what": "reply", "step": wanted.step, "wants": wanted.kind}
    events = [event | {"message": reply.message, "right": held, "damaged": False}]
    found = accuracy._proposed(workflow, events) | {"judgements_proposed": accuracy._judged(workflow, events)}
    del found["unsafe_proposed"]
    return found


@pytest.mark.parametrize("chain", ["naive", "optimized"])
def test_every_mistake_lowers_the_accuracy_as_proposed_and_nothing_else_does(chain: str) -> None:
    made: Counter[str] = Counter()
    for name, workflow, asked in asks(chain):
        wanted, right, request = asked
        assert all(count.k == count.n for count in proposed(workflow, asked, right).values()), name
        for mistake in MISTAKES:
            reply = vary(certain(**{mistake: 1.0}), wanted, right, request, name)
            if reply != right:
                made[mistake] += 1
                lowered = any(count.k < count.n for count in proposed(workflow, asked, reply).values())
                # Where a job is waited for, to wait once more is no mistake.
                assert lowered or called_by(reply) in accuracy._polling(workflow, wanted.step), (name, mistake)
    assert set(made) == (set(MISTAKES) if chain == "naive" else {"malformed", "wrong_argument", "ignored_instruction"})


# --- put right ----------------------------------------------------------------------------------------------

ANSWERED = [mistake for mistake in MISTAKES if mistake != "premature_end"]
"""A premature end is the end of a naive run: there is no one to say that it was an error."""


def after(workflow: Workflow, asked: Asked, mistake: str) -> Asked:
    """The ask that follows a mistake which was met with an error message, as each chain words one."""
    wanted, right, request = asked
    reply = vary(certain(**{mistake: 1.0}), wanted, right, request, "first")
    assert reply != right
    if wanted.kind == "answer":
        schema = request["response_format"]["json_schema"]["schema"]
        again = repair_messages(ModelRequest(wanted.step, request["messages"], schema=schema), "That was wrong.")
    else:
        again = [*request["messages"], dict(reply.message), told(reply, {"error": "that was wrong", "status": 400})]
    following = {**request, "messages": again}
    due = wanted_by(workflow, following)
    return due, reply_to(workflow, due, 7, 2), following


@pytest.mark.parametrize("name", ["typical", "hostile"])
@pytest.mark.parametrize("mistake", ANSWERED)
def test_in_the_naive_chain_an_error_message_puts_it_right_at_the_stated_rate(mistake: str, name: str) -> None:
    put_right_at_its_rate(PROFILES[name], INVOICE, after(INVOICE, READ, mistake), READ[0])


@pytest.mark.parametrize("name", ["typical", "hostile"])
def test_an_approval_that_was_skipped_is_asked_for_after_an_error_message(name: str) -> None:
    put_right_at_its_rate(PROFILES[name], INVOICE, after(INVOICE, APPROVE, "ignored_instruction"), APPROVE[0])


@pytest.mark.parametrize("name", ["typical", "hostile"])
@pytest.mark.parametrize("mistake", ["malformed", "wrong_argument", "ignored_instruction"])
def test_in_the_optimized_chain_too(mistake: str, name: str) -> None:
    put_right_at_its_rate(PROFILES[name], REFUND, after(REFUND, JUDGE, mistake), JUDGE[0])


def put_right_at_its_rate(profile: Profile, workflow: Workflow, following: Asked, before: Wanted) -> None:
    due, right, request = following
    assert due.after_error, workflow.name
    assert (due.step, due.item, due.function) == (before.step, before.item, before.function)
    always = Profile(wrong_argument=1.0, corrects_itself=profile.corrects_itself)
    found = counted(always, (due, right, request), 4000)
    assert within(found["right"], profile.corrects_itself, 4000), found


def test_where_nothing_was_wrong_before_nothing_is_put_right() -> None:
    always = Profile(wrong_argument=1.0, corrects_itself=1.0)
    assert counted(always, READ, 50) == {"wrong_argument": 50}


# --- documented ---------------------------------------------------------------------------------------------


def test_the_document_gives_the_rates_that_are_drawn() -> None:
    rows = [
        line.split("|")[1:5] for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    table: dict[str, list[str]] = {}
    for name, *rates in rows:
        table.setdefault(name.strip(" `"), [rate.strip() for rate in rates])
    for field in fields(Profile):
        for profile, rate in zip(PROFILES.values(), table[field.name], strict=True):
            assert rate == "–" or float(Fraction(rate)) == getattr(profile, field.name), field.name
