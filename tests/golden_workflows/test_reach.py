"""What of a workflow is never reached is named: in a right workflow that is changed so that it has such a part."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kintsugi.golden_workflows.reach import unreached, unsaid_repeats, unused_tools
from kintsugi.golden_workflows.spec import load_tools, load_workflow

BASE = Path(__file__).parent / "broken" / "base"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE, tmp_path / "golden")) / "shop" / "restock.toml"


def notes(file: Path, *changes: tuple[str, str]) -> list[str]:
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    return unreached(load_workflow(file))


ORDER = "plan.order.when: holds on the seed records and under every drift, so that no run leaves the step out"
"""A note on the workflow as it is."""


def test_a_branch_that_is_always_taken_is_named(file: Path) -> None:
    assert notes(file) == [ORDER]


def test_a_branch_that_one_drift_does_not_take_is_none(file: Path) -> None:
    assert notes(file, ('"= decide.pieces > 0"', '"= decide.pieces > 17"')) == []


def test_a_branch_that_is_never_taken_is_named(file: Path) -> None:
    never = "plan.order.when: never holds on the seed records and under every drift, so that no run does the step"
    assert notes(file, ('"= decide.pieces > 0"', '"= decide.pieces > 99"')) == [never]


def test_a_loop_over_nothing_is_named(file: Path) -> None:
    loop = ('fresh = ["shelf"]\n\n[script', 'for_each = "= []"\n\n[script')
    gives = "plan.mark.for_each: gives no item on the seed records and under every drift, so that no run does the step"
    assert notes(file, loop)[1:] == [gives]


def test_records_that_no_step_comes_to_are_named_and_those_a_list_passes_over_are_not(file: Path) -> None:
    more = (
        "[world.shelves.S-2]",
        "[world.orders.ORD-7]\npieces = 1\n\n[world.shelves.S-9]\nroom = 'Q'\nleft = 1\n\n[world.shelves.S-2]",
    )
    assert notes(file, more)[1:] == ["world.orders: no step reads or writes any of its records"]


def test_a_record_that_is_only_ever_beside_the_one_that_is_read_is_named(file: Path) -> None:
    single = ('tool = "stock.list"\nargs = { room = "= shelf.room" }', 'tool = "stock.get"\nargs = { shelf = "S-1" }')
    assert notes(file, single)[1:] == ["world.shelves.S-2: no step reads or writes it"]


def test_an_answer_that_nobody_uses_is_named(file: Path) -> None:
    assert notes(file, (', note = "= decide.note" }', " }"))[1:] == ["script.decide.note: no step uses it"]


def test_a_workflow_without_drift_says_so(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    start, end = text.index("[[drift]]"), text.index("[truth]")
    file.write_text(text[:start] + text[end:], encoding="utf-8")
    assert notes(file) == ["plan.order.when: holds on the seed records, so that no run leaves the step out"]


def test_tools_that_no_workflow_calls_are_named(file: Path) -> None:
    tools = load_workflow(file).tools
    assert unused_tools(tools, set(tools) - {"stock.mark"}) == ["tools.stock.mark: no workflow of this folder calls it"]


def test_a_write_that_says_nothing_of_repeats_was_once_passed_over_in_silence(file: Path) -> None:
    said = "is not given, so that it is 'none' and a run in doubt asks a person; say so, or 'key' or 'lookup'"
    assert unsaid_repeats(load_workflow(file).tools) == [f"tools.stock.mark.idempotency: {said}"]
    tools = file.parents[1] / "tools" / "stock.toml"
    text = tools.read_text(encoding="utf-8")
    tools.write_text(text.replace("if_match = true", 'if_match = true\nidempotency = "none"'), encoding="utf-8")
    load_tools.cache_clear()
    assert unsaid_repeats(load_workflow(file).tools) == []
