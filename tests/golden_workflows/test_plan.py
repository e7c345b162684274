from typing import Any

import pytest

from kintsugi.golden_workflows.expressions import ExpressionError
from kintsugi.golden_workflows.plan import (
    Instance,
    Results,
    bindings,
    dependents,
    due_together,
    next_instance,
    places,
    settled,
    step_named,
    step_names_used,
)

PLAN: dict[str, Any] = {
    "steps": [
        {"id": "list", "tool": "s.list", "args": {}},
        {
            "id": "choose",
            "ask": "Which?",
            "inputs": {"all": "= list.items"},
            "output": {"properties": {"ids": {"enum": "= list.items"}}},
        },
        {"id": "act", "tool": "s.act", "for_each": "= choose.ids", "args": {"id": "= item", "at": "= index"}},
        {"id": "pause", "sleep_seconds": 60, "when": "= choose.ids | length > 1"},
        {"id": "tell", "tool": "s.tell", "when": "= act | length > 0", "args": {"n": "= act | sum"}},
        {"id": "log", "tool": "s.log", "args": {"text": "done"}},
    ]
}


def walk(plan: dict[str, Any], answers: dict[str, Any]) -> list[Instance]:
    """The instances in the order in which they come due; a step without an answer gives 1."""
    results: Results = {}
    visited = []
    while (due := next_instance(plan, results)) is not None:
        visited.append(due)
        results.setdefault(due.step, {})[due.item] = answers.get(due.step, 1)
    return visited


def named(instances: list[Instance]) -> list[str]:
    return [f"{due.step}[{due.item}]" for due in instances]


def test_a_plan_is_walked_in_order_with_one_visit_for_each_item_of_a_loop() -> None:
    visited = walk(PLAN, {"list": {"items": ["a", "b"]}, "choose": {"ids": ["a", "b"]}})
    assert named(visited) == ["list[0]", "choose[0]", "act[0]", "act[1]", "pause[0]", "tell[0]", "log[0]"]
    assert [due.kind for due in visited] == ["tool", "model", "tool", "tool", "sleep", "tool", "tool"]
    assert visited[1].values == {
        "inputs": {"all": ["a", "b"]},
        "output": {"properties": {"ids": {"enum": ["a", "b"]}}},
    }
    assert visited[3].values == {"id": "b", "at": 1}
    assert visited[4].values == {"seconds": 60}
    assert visited[5].values == {"n": 2}


def test_an_empty_loop_and_a_false_branch_are_skipped() -> None:
    visited = walk(PLAN, {"list": {"items": []}, "choose": {"ids": []}})
    assert named(visited) == ["list[0]", "choose[0]", "log[0]"]


def test_a_loop_with_a_false_branch_is_not_even_evaluated() -> None:
    step = {"id": "b", "tool": "s.b", "when": "= a == 2", "for_each": "= a.missing", "args": {}}
    assert named(walk({"steps": [{"id": "a", "tool": "s.a", "args": {}}, step]}, {})) == ["a[0]"]


def test_a_loop_goes_on_where_it_stopped() -> None:
    known: Results = {"list": {0: {"items": ["a", "b", "c"]}}, "choose": {0: {"ids": ["a", "b", "c"]}}}
    known["act"] = {0: 1, 1: 1}
    due = next_instance(PLAN, known)
    assert due == Instance("act", 2, "tool", "s.act", {"id": "c", "at": 2})


def test_the_value_of_a_loop_is_a_list_in_the_order_of_its_items() -> None:
    assert bindings(PLAN, {"act": {1: "b", 0: "a"}, "list": {0: "x"}}) == {
        "list": "x",
        "choose": None,
        "act": ["a", "b"],
        "pause": None,
        "tell": None,
        "log": None,
    }


def test_a_value_that_lacks_what_a_later_step_needs_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="has no attribute 'items'"):
        next_instance(PLAN, {"list": {0: {}}})


def test_dependents_are_direct_and_indirect_and_in_order() -> None:
    assert dependents(PLAN, "list") == ["choose", "act", "pause", "tell"]
    assert dependents(PLAN, "act") == ["tell"]
    assert dependents(PLAN, "log") == []


def test_names_used_cover_every_key_that_holds_expressions() -> None:
    assert step_names_used(PLAN["steps"][1]) == {"list"}
    assert step_names_used(PLAN["steps"][2]) == {"choose", "item", "index"}
    assert step_names_used(PLAN["steps"][3]) == {"choose"}


POLLED: dict[str, Any] = {
    "steps": [
        {"id": "start", "tool": "s.start", "args": {}},
        {
            "id": "job",
            "tool": "s.job",
            "args": {},
            "until": "= result.done >= start.parts",
            "every_seconds": 60,
        },
        {"id": "log", "tool": "s.log", "args": {"n": "= job.done"}},
    ]
}


def test_a_step_that_is_polled_is_settled_once_its_condition_holds() -> None:
    known: Results = {"start": {0: {"parts": 2}}}
    assert not settled(POLLED, "job", known, {"done": 1})
    assert settled(POLLED, "job", known, {"done": 2})
    assert settled(POLLED, "log", known, None), "any other step is settled by its first result"
    with pytest.raises(ExpressionError, match="has no attribute 'done'"):
        settled(POLLED, "job", known, {})


def test_what_a_condition_rests_on_is_used_by_its_step() -> None:
    assert step_names_used(POLLED["steps"][1]) == {"start"}
    assert dependents(POLLED, "start") == ["job", "log"]


GROUP: dict[str, Any] = {
    "steps": [
        {"id": "list", "tool": "s.list", "args": {}},
        {"id": "a", "tool": "s.a", "args": {"of": "= list.of"}, "parallel": "both"},
        {"id": "b", "tool": "s.b", "args": {}, "when": "= list.of > 1", "parallel": "both"},
        {"id": "c", "tool": "s.c", "args": {}, "parallel": "both"},
        {"id": "log", "tool": "s.log", "args": {"n": "= a"}},
    ]
}


def test_the_steps_of_a_group_come_due_together() -> None:
    assert named(due_together(GROUP, {})) == ["list[0]"]
    known: Results = {"list": {0: {"of": 2}}}
    together = due_together(GROUP, known)
    assert named(together) == ["a[0]", "b[0]", "c[0]"]
    assert together[0].values == {"of": 2}
    assert named(due_together(GROUP, {**known, "a": {0: 1}, "c": {0: 1}})) == ["b[0]"], "only what is left of it"
    assert named(due_together(GROUP, {"list": {0: {"of": 1}}})) == ["a[0]", "c[0]"]
    assert named(due_together(GROUP, {**known, "a": {0: 1}, "b": {0: 1}, "c": {0: 1}})) == ["log[0]"]
    assert due_together(GROUP, {**known, "a": {0: 1}, "b": {0: 1}, "c": {0: 1}, "log": {0: 1}}) == []
    with pytest.raises(ExpressionError, match="a: "):
        due_together(GROUP, {"list": {0: {}}})


def test_the_steps_of_a_group_share_the_place_of_its_first() -> None:
    assert places(GROUP) == {"list": 0, "a": 1, "b": 1, "c": 1, "log": 4}


def test_a_step_is_found_by_its_id() -> None:
    assert step_named(PLAN, "log")["tool"] == "s.log"
    with pytest.raises(KeyError, match="nothing"):
        step_named(PLAN, "nothing")
