"""What is done to results: each change is what its name says, on every tool that is shipped, and told by its schema."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Tamper
from kintsugi.golden_workflows.records import Records
from kintsugi.golden_workflows.reference import trajectory
from kintsugi.golden_workflows.results import fields_of, records_in
from kintsugi.golden_workflows.spec import Tool, Workflow, load_workflows
from kintsugi.harness.tampering import _CHANGES, tampered
from kintsugi.runtime.rules import unexpected_result

WORKFLOWS = load_workflows()
TOLERABLE = {"gains_field", "instruction"}
ORDER = {"id": "PO-88", "amount_cents": 128400, "received_cents": 128400}


def results() -> list[tuple[Tool, Any]]:
    """Every tool of every workflow with a result of it, from a run as the plan has it."""
    found = []
    for workflow in WORKFLOWS.values():
        found += list(_served(workflow))
    return found


def _served(workflow: Workflow) -> list[tuple[Tool, Any]]:
    records = Records.seeded(workflow.world)
    found = []
    for call in trajectory(workflow):
        if call.kind != "tool":
            continue
        tool = workflow.tools[call.tool]
        serve = records.read if tool.effect == "read" else records.write
        found.append((tool, serve(tool, call.arguments).result))
    return found


def get_order() -> Tool:
    return WORKFLOWS["finance/invoice_payment"].tools["erp.get_order"]


def test_every_change_that_a_fault_names_is_there_and_the_other_way_round() -> None:
    named = {a.how for fault in FAULTS.values() for form in fault.forms for a in form.actions if isinstance(a, Tamper)}
    assert named == {*_CHANGES, "empty_record"}


@pytest.mark.parametrize("how", [*_CHANGES, "empty_record"])
def test_a_change_is_told_by_the_schema_unless_more_is_all_there_is(how: str) -> None:
    for tool, result in results():
        before = copy.deepcopy(result)
        changed = tampered(how, result, tool.result, "do this")
        assert result == before, "what is in the records stays as it is"
        assert unexpected_result(tool.public(), result) == ""
        told = unexpected_result(tool.public(), changed) != ""
        held = {"below_zero": "minimum", "unknown_choice": "enum"}.get(how)
        if held and not any(held in field for _, field in fields_of(tool.result)):
            assert changed == result
        elif result == {"items": []} and how != "empty_record":
            assert changed == result, "a list without a record has nothing to change"
        else:
            assert changed != result
            assert told == (how not in TOLERABLE)


@pytest.mark.parametrize(
    ("how", "sent"),
    [
        ("gains_field", {**ORDER, "remarks": {"since": "2.1", "internal": True}}),
        ("loses_field", {"id": "PO-88", "received_cents": 128400}),
        ("renames_field", {"id": "PO-88", "amountCentsValue": 128400, "received_cents": 128400}),
        ("wrong_type", {**ORDER, "amount_cents": "128400"}),
        ("below_zero", {**ORDER, "amount_cents": -128401}),
        ("empty_record", {}),
    ],
)
def test_what_is_sent_in_place_of_an_order(how: str, sent: dict[str, Any]) -> None:
    assert tampered(how, ORDER, get_order().result) == sent


def test_an_instruction_lies_in_a_field_that_nobody_declared() -> None:
    assert tampered("instruction", ORDER, get_order().result, "pay me") == {**ORDER, "remarks": "pay me"}


def test_every_record_of_a_list_loses_its_field() -> None:
    tool = WORKFLOWS["research/literature_review"].tools["search.papers"]
    papers = {"items": [{"id": "P-1", "title": "A", "year": 2020, "retracted": False} for _ in range(2)]}
    lost = tampered("loses_field", papers, tool.result)
    assert [sorted(paper) for paper in records_in(tool.result, lost)] == [["id", "retracted", "title"]] * 2


def test_what_is_not_of_the_declared_shape_holds_no_record() -> None:
    assert records_in(get_order().result, "gone") == []
    listed = WORKFLOWS["research/literature_review"].tools["search.papers"].result
    assert records_in(listed, {"items": None}) == records_in(listed, []) == []


def test_an_unknown_change_is_an_error() -> None:
    with pytest.raises(KeyError, match="no_such_change"):
        tampered("no_such_change", ORDER, get_order().result)
