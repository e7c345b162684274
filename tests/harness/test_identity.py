"""Which step a call belongs to is told from the workflow alone, whoever calls and however often."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.golden_workflows.reference import Call, trajectory
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.identity import Identifier, reference_calls

WORKFLOWS = load_workflows()
WALKS = [(name, drift) for name, workflow in WORKFLOWS.items() for drift in (None, *workflow.drifts)]
LEADS = Identifier(WORKFLOWS["marketing/lead_follow_up"])
INVOICE = Identifier(WORKFLOWS["finance/invoice_payment"])
BACKFILL = Identifier(WORKFLOWS["data/partition_backfill"])


@pytest.mark.parametrize(("name", "drift"), WALKS)
def test_every_call_of_a_correct_run_is_what_it_is(name: str, drift: str | None) -> None:
    identifier = Identifier(WORKFLOWS[name])
    done: Counter[tuple[str, int]] = Counter()
    for call in trajectory(WORKFLOWS[name], drift):
        if call.kind == "tool":
            assert identifier.tool(call.tool, call.arguments, done) == (call.step, call.item)
            done[call.step, call.item] += 1


@pytest.mark.parametrize("name", WORKFLOWS)
def test_calls_that_differ_are_told_apart_whatever_was_done_before(name: str) -> None:
    calls = [call for call in trajectory(WORKFLOWS[name]) if call.kind == "tool"]
    everything = Counter({(call.step, call.item): 3 for call in calls})
    for call in calls:
        same = [c for c in calls if (c.tool, c.arguments) == (call.tool, call.arguments)]
        if len(same) == 1:
            for done in (Counter[tuple[str, int]](), everything):
                assert Identifier(WORKFLOWS[name]).tool(call.tool, call.arguments, done) == (call.step, call.item)


def test_reference_calls_hold_each_call_of_the_seed_and_of_the_drifts_once() -> None:
    for workflow in WORKFLOWS.values():
        calls = reference_calls(workflow)
        seed = [call for call in trajectory(workflow) if call.kind == "tool"]
        assert calls[: len(seed)] == seed
        assert all(calls.count(call) == 1 for call in calls)
        for drift in workflow.drifts:
            assert all(call in calls for call in trajectory(workflow, drift) if call.kind == "tool")


def test_free_text_tells_nothing() -> None:
    arguments = {"to": "t.brandt@werkhof.example", "subject": "Your question about samples"}
    for body in ("one wording", "another wording", None, 3):
        assert LEADS.tool("mail.send", {**arguments, "body": body}, {}) == ("mail", 2)


def test_the_call_that_shares_most_arguments_is_meant() -> None:
    paid = {"vendor_id": "V-207", "amount_cents": 1, "currency": "EUR", "reference": "INV-1041"}
    assert INVOICE.tool("bank.pay", paid, {}) == ("pay", 0)
    assert LEADS.tool("mail.send", {"to": "t.brandt@werkhof.example", "subject": "?"}, {}) == ("mail", 2)
    assert LEADS.tool("crm.log_activity", {"lead_id": "L-2", "kind": "call"}, {}) == ("log", 1)


def test_a_call_that_is_exactly_one_of_the_plan_is_that_one() -> None:
    identifier = Identifier(WORKFLOWS["finance/invoice_payment"])
    more = Call("note", 0, "tool", "t.t", {"a": 1, "b": 2, "c": 3})
    less = Call("tell", 0, "tool", "t.t", {"a": 1})
    identifier._calls["t.t"] = [more, less]
    assert identifier.tool("t.t", {"a": 1}, {}) == ("tell", 0)
    assert identifier.tool("t.t", {"a": 1, "b": 2}, {("tell", 0): 1}) == ("note", 0)


def test_among_equals_the_first_that_is_not_done() -> None:
    unknown = {"lead_id": "L-77", "kind": "follow_up"}
    assert LEADS.tool("crm.log_activity", unknown, {}) == ("log", 0)
    assert LEADS.tool("crm.log_activity", unknown, {("log", 0): 1}) == ("log", 1)
    assert LEADS.tool("crm.log_activity", unknown, {("log", 0): 1, ("log", 1): 4}) == ("log", 2)
    assert LEADS.tool("crm.log_activity", unknown, {("log", 0): 2, ("log", 1): 1, ("log", 2): 1}) == ("log", 0)


def test_a_repeat_is_the_same_call_however_often_it_was_done() -> None:
    call = next(c for c in trajectory(WORKFLOWS["data/partition_backfill"]) if (c.step, c.item) == ("counted", 1))
    for times in range(4):
        assert BACKFILL.tool(call.tool, call.arguments, {("counted", 1): times}) == ("counted", 1)


@pytest.mark.parametrize("tool", ["no.such", "", "bank", "crm.get_lead"])
def test_a_tool_that_no_step_calls_has_no_step(tool: str) -> None:
    assert INVOICE.tool(tool, {"vendor_id": "V-207"}, {}) is None


ANY = st.dictionaries(
    st.sampled_from(["to", "subject", "body", "x"]), st.none() | st.integers() | st.text("ab.@", max_size=3)
)


@settings(deadline=None)
@given(arguments=ANY, done=st.dictionaries(st.tuples(st.just("mail"), st.integers(0, 2)), st.integers(0, 3)))
def test_any_call_of_a_known_tool_is_some_step_of_it(
    arguments: dict[str, Any], done: dict[tuple[str, int], int]
) -> None:
    assert LEADS.tool("mail.send", arguments, done) in {("mail", 0), ("mail", 1), ("mail", 2)}
