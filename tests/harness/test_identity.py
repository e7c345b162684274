"""Which step a call belongs to is told from the workflow alone, whoever calls and however often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.golden_workflows.reference import Call, check_truth, trajectory
from kintsugi.golden_workflows.spec import load_workflow, load_workflows
from kintsugi.harness.identity import Identifier, reference_calls, reference_steps

WORKFLOWS = load_workflows()
FILE = Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml"
WALKS = [(name, drift) for name, workflow in WORKFLOWS.items() for drift in (None, *workflow.drifts)]
LEADS = Identifier(WORKFLOWS["marketing/lead_follow_up"])
INVOICE = Identifier(WORKFLOWS["finance/invoice_payment"])
BACKFILL = Identifier(WORKFLOWS["data/partition_backfill"])


@pytest.mark.parametrize(("name", "drift"), WALKS)
def test_every_call_of_a_correct_run_is_what_it_is(name: str, drift: str | None) -> None:
    """What a drift moves to another place may have its number from the plan without it."""
    workflow, done = WORKFLOWS[name], Counter[tuple[str, int]]()
    calls = [call for call in trajectory(workflow, drift) if call.kind == "tool"]
    seed = [(call.tool, call.arguments) for call in trajectory(workflow)]
    found = []
    for call in calls:
        found.append(Identifier(workflow).tool(call.tool, call.arguments, done) or ("", 0))
        done[found[-1]] += 1
        if drift is None or (call.tool, call.arguments) not in seed:
            assert found[-1] == (call.step, call.item)
    assert found == reference_steps(workflow, drift)
    assert [workflow.steps[step].tool for step, _ in found] == [call.tool for call in calls]


def test_an_item_that_a_drift_moves_within_its_list_is_the_same_call(tmp_path: Path) -> None:
    """The parcels of a page are told from another by the page alone, those of a plan by what they are."""
    text = FILE.read_text(encoding="utf-8")
    tell = 'tool = "depot.tell"\nargs = { team = "drivers", text = "= judge.note" }\nparallel = "prepare"'
    each = (
        'tool = "depot.tell"\nargs = { team = "floor", text = "= item" }\n'
        "for_each = \"= (first.items + (more | map(attribute='items') | sum(start=[]))) | map(attribute='id')\""
    )
    told = '    { step = "tell", tool = "depot.tell", args = { team = "drivers" } },\n'
    by_id = '    {{ step = "tell", tool = "depot.tell", args = {{ team = "floor", text = "{}" }} }},\n'
    assert tell in text
    assert text.count(told) == 2
    drifted = text.replace(tell, each).replace(told, "".join(map(by_id.format, ["P-1", "P-2", "P-3", "P-6"])), 1)
    everything = drifted.replace(told, "".join(map(by_id.format, ["P-1", "P-2", "P-3", "P-5", "P-6"])))
    path = tmp_path / "depot" / "stocktake.toml"
    path.parent.mkdir()
    path.write_text(everything, encoding="utf-8")
    workflow = load_workflow(path, FILE.parents[1] / "tools")
    check_truth(workflow)
    last = {"team": "floor", "text": "P-6"}
    assert [dict(c.arguments) for c in trajectory(workflow, "one_was_moved") if c.step == "tell"][3] == last
    assert [step for step in reference_steps(workflow, "one_was_moved") if step[0] == "tell"][3] == ("tell", 4)
    assert Identifier(workflow).tool("depot.tell", last, {}) == ("tell", 4)
    assert Identifier(workflow).tool("depot.tell", last, {("tell", 4): 1}) == ("tell", 4), "again the same"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_calls_that_differ_are_told_apart_whatever_was_done_before(name: str) -> None:
    calls = [call for call in trajectory(WORKFLOWS[name]) if call.kind == "tool"]
    everything = Counter({(call.step, call.item): 3 for call in calls})
    for call in calls:
        same = [c for c in calls if (c.tool, c.arguments) == (call.tool, call.arguments)]
        if len(same) == 1:
            for done in (Counter[tuple[str, int]](), everything):
                assert Identifier(WORKFLOWS[name]).tool(call.tool, call.arguments, done) == (call.step, call.item)


def test_a_read_that_is_made_again_after_a_write_is_that_one_only_then() -> None:
    identifier, read = Identifier(WORKFLOWS["data/schema_migration"]), {"table": "orders"}
    assert identifier.tool("catalog.get_table", read, {}) == ("table", 0)
    once = {("table", 0): 1, ("announce", 0): 0}
    assert identifier.tool("catalog.get_table", read, once) == ("table", 0), "to see whether it is still so"
    assert identifier.tool("catalog.get_table", read, once, {"announce"}) == ("switched", 0)
    assert identifier.tool("catalog.get_table", read, {**once, ("announce", 0): 1}) == ("switched", 0)
    assert identifier.tool("catalog.get_table", read, {**once, ("announce", 0): 1, ("switched", 0): 1}) == ("table", 0)


def test_reference_calls_hold_each_call_of_the_seed_and_of_the_drifts_once() -> None:
    for workflow in WORKFLOWS.values():
        calls = reference_calls(workflow)
        seed = [call for call in trajectory(workflow) if call.kind == "tool"]
        assert calls[: len(seed)] == seed
        assert all(calls.count(call) == 1 for call in calls)
        free, held = workflow.free_arguments, [(call.step, dict(call.arguments)) for call in calls]
        for call in (call for drift in workflow.drifts for call in trajectory(workflow, drift)):
            if call.kind == "tool" and not free[call.step]:
                assert (call.step, dict(call.arguments)) in held


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
