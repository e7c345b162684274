"""What may be committed, given what the run has done."""

from typing import Any

from kintsugi.runtime.boundary import Boundary
from kintsugi.runtime.protocol import ToolCall, ToolReply

WRITE = {"effect": "write", "parameters": {"type": "object"}, "approval": "never"}
PLAN: dict[str, Any] = {"tools": {"write": WRITE, "other": WRITE, "read": {**WRITE, "effect": "read"}}}
CALL = ToolCall("write", {"a": 1, "b": 2})
SAME = ToolCall("write", {"b": 2, "a": 1}, approval="another token", if_match="v2")
DONE = ToolReply(ok=True, result={"id": 7}, version="v1")


def test_a_committed_write_is_refused_with_its_earlier_result() -> None:
    boundary = Boundary(PLAN)
    assert boundary.check(CALL, 0.0) is None
    boundary.committed(CALL, DONE)
    again = boundary.check(SAME, 0.0)
    assert again is not None
    assert (again.ok, again.by, again.result, again.version) == (False, "policy", {"id": 7}, "v1")
    # The naive chain shows its model nothing but the error.
    assert '{"id":7}' in again.error


def test_a_write_under_way_is_not_begun_a_second_time() -> None:
    boundary = Boundary(PLAN)
    assert boundary.check(CALL, 0.0) is None
    again = boundary.check(SAME, 0.0)
    assert again is not None
    assert "is being done" in again.error


def test_a_write_from_before_a_crash_counts() -> None:
    boundary = Boundary(PLAN)
    boundary.begun(CALL)
    assert boundary.check(SAME, 0.0) is not None
    boundary.committed(CALL, DONE)
    boundary.begun(CALL)
    again = boundary.check(SAME, 0.0)
    assert again is not None
    assert again.result == {"id": 7}


def test_what_had_no_effect_may_be_tried_again() -> None:
    boundary = Boundary(PLAN)
    assert boundary.check(CALL, 0.0) is None
    boundary.committed(CALL, ToolReply(ok=False, status=422))
    assert boundary.check(CALL, 0.0) is None
    boundary.withdrawn(CALL)
    assert boundary.check(CALL, 0.0) is None


def test_the_boundarys_own_refusal_changes_nothing() -> None:
    boundary = Boundary(PLAN)
    assert boundary.check(CALL, 0.0) is None
    refused = boundary.check(CALL, 0.0)
    assert refused is not None
    boundary.committed(CALL, refused)
    assert boundary.check(CALL, 0.0) is not None


def test_other_writes_and_all_reads_pass() -> None:
    boundary = Boundary(PLAN)
    boundary.begun(CALL)
    assert boundary.check(ToolCall("write", {"a": 1}), 0.0) is None
    assert boundary.check(ToolCall("other", CALL.arguments), 0.0) is None
    for _ in range(2):
        read = ToolCall("read", {})
        assert boundary.check(read, 0.0) is None
        boundary.committed(read, DONE)


def test_a_policy_may_allow_repeats() -> None:
    boundary = Boundary({**PLAN, "policy": {"repeat_writes": "allow"}})
    for _ in range(2):
        assert boundary.check(CALL, 0.0) is None
        boundary.committed(CALL, DONE)


def test_what_the_rules_refuse_is_refused_by_policy() -> None:
    boundary = Boundary({"tools": {"pay": {**WRITE, "approval": "always"}}})
    for call in (ToolCall("nothing", {}), ToolCall("pay", {}), ToolCall("pay", {}, "t", 99.0)):
        refused = boundary.check(call, 100.0)
        assert refused is not None
        assert (refused.ok, refused.by) == (False, "policy")
    # A refused proposal was not begun.
    assert boundary.check(ToolCall("pay", {}, "t", 101.0), 100.0) is None
