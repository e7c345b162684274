"""The decision tables of recovery."""

from pathlib import Path
from typing import Any, Literal

import pytest

from kintsugi.runtime.protocol import Decision, ModelRequest, ToolCall, ToolReply
from kintsugi.runtime.rules import (
    Budget,
    Outcome,
    Rejected,
    accept_reply,
    after_attempt,
    approval_needed,
    arguments_digest,
    backoff_seconds,
    canonical,
    first_move,
    idempotency_key,
    refusal,
    repair_messages,
    schema_problem,
    unexpected_result,
)

REPLY = ToolReply(ok=True)


@pytest.mark.parametrize(
    ("effect", "idempotency", "in_doubt", "move"),
    [
        ("read", "none", False, "send"),
        ("read", "none", True, "send"),
        ("write", "key", False, "send"),
        ("write", "key", True, "send"),
        ("write", "lookup", False, "send"),
        ("write", "lookup", True, "look"),
        ("write", "none", False, "send"),
        ("write", "none", True, "halt"),
    ],
)
def test_first_move(effect: str, idempotency: str, *, in_doubt: bool, move: str) -> None:
    assert first_move({"effect": effect, "idempotency": idempotency}, in_doubt=in_doubt) == move


@pytest.mark.parametrize(
    ("kind", "retryable", "failures", "follows"),
    [
        ("done", False, 1, "return"),
        ("refused", False, 1, "return"),
        ("refused", True, 1, "retry"),
        ("refused", True, 2, "spent"),
        ("unknown", True, 1, "retry"),
        ("unknown", True, 2, "spent"),
    ],
)
def test_after_attempt(
    kind: Literal["done", "refused", "unknown"], *, retryable: bool, failures: int, follows: str
) -> None:
    assert after_attempt(Outcome(kind, REPLY, retryable), Budget(attempts=2), failures) == follows


def test_backoff_grows_to_its_cap_and_draws_from_zero() -> None:
    budget = Budget(attempts=9, base_seconds=1.0, cap_seconds=5.0)
    highest = [backoff_seconds(budget, failures, None, draw=1.0) for failures in (1, 2, 3, 4, 5)]
    assert highest == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff_seconds(budget, 3, None, draw=0.0) == 0.0
    assert backoff_seconds(budget, 3, None, draw=0.5) == 2.0
    assert backoff_seconds(budget, 100_000, None, draw=1.0) == 5.0


def test_backoff_is_never_less_than_retry_after() -> None:
    budget = Budget(base_seconds=1.0, cap_seconds=5.0)
    assert backoff_seconds(budget, 1, 9.0, draw=0.5) == 9.0
    assert backoff_seconds(budget, 1, 0.1, draw=0.5) == 0.5


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical({"b": 1, "a": [1, {"d": "é", "c": 2}]}) == '{"a":[1,{"c":2,"d":"é"}],"b":1}'
    assert arguments_digest({"a": 1, "b": 2}) == arguments_digest({"b": 2, "a": 1})
    assert arguments_digest({"a": 1}) != arguments_digest({"a": "1"})


def test_keys_differ_by_run_and_by_name() -> None:
    keys = {idempotency_key(run, name) for run in ("r", "s") for name in ("a", "b")}
    assert len(keys) == 4
    assert idempotency_key("r", "a") in keys


@pytest.mark.parametrize(
    ("rule", "arguments", "needed"),
    [
        ("never", {}, False),
        ("always", {}, True),
        ({"parameter": "amount", "above": 100}, {"amount": 100}, False),
        ({"parameter": "amount", "above": 100}, {"amount": 100.5}, True),
        ({"parameter": "amount", "above": 100}, {"amount": "many"}, True),
        ({"parameter": "amount", "above": 100}, {}, True),
    ],
)
def test_approval_needed(rule: object, arguments: dict[str, Any], *, needed: bool) -> None:
    assert approval_needed({"approval": rule}, arguments) is needed


PAY = {
    "approval": "always",
    "parameters": {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}},
    "result": {"type": "object", "required": ["id"]},
}


@pytest.mark.parametrize(
    ("spec", "call", "word"),
    [
        (None, ToolCall("pay", {}), "no tool called 'pay'"),
        (PAY, ToolCall("pay", {"amount": "1"}), "amount: '1' is not of type 'integer'"),
        (PAY, ToolCall("pay", {"amount": 1}), "needs an approval"),
        (PAY, ToolCall("pay", {"amount": 1}, approval="t", approval_expires_at=1000.0), "has expired"),
        (PAY, ToolCall("pay", {"amount": 1}, approval="t", approval_expires_at=1000.1), ""),
        (PAY, ToolCall("pay", {"amount": 1}, approval="t"), ""),
    ],
)
def test_refusal(spec: dict[str, Any] | None, call: ToolCall, word: str) -> None:
    told = refusal(spec, call, now=1000.0)
    assert word in told
    assert bool(told) == bool(word)


def test_the_first_violation_is_told_with_its_place() -> None:
    schema = {"properties": {"b": {"type": "string"}, "a": {"items": {"type": "string"}}}}
    assert schema_problem({"a": ["x", 3], "b": 4}, schema) == "a.1: 3 is not of type 'string'"
    assert schema_problem(1, {"type": "string"}) == "the value: 1 is not of type 'string'"
    assert schema_problem({}, schema) == ""


def test_a_schema_that_refers_to_another_one_was_once_looked_for_and_raised(tmp_path: Path) -> None:
    anything = tmp_path / "anything.json"
    anything.write_text("{}")
    for reference in (anything.as_uri(), "#/nowhere", "#nowhere", "urn:nowhere"):
        schema = {"properties": {"a": {"$ref": reference}}}
        assert schema_problem({"a": 1}, schema) == "the value: its schema refers to another one, which is not in it"
    own = {"$defs": {"word": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/word"}}}
    assert schema_problem({"a": 1}, own) == "a: 1 is not of type 'string'"
    assert schema_problem({"a": "x"}, own) == ""


def test_a_result_without_a_declared_schema_is_believed() -> None:
    assert unexpected_result({}, object()) == ""
    assert "'id' is a required property" in unexpected_result(PAY, {})


ASK = ModelRequest("s", [{"role": "user", "content": "?"}], schema={"type": "object", "required": ["a"]})


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ({}, "no message"),
        ({"message": {"content": '{"a": 1}'}, "finish_reason": "length"}, "ended early"),
        ({"message": {"content": '{"a": 1'}, "finish_reason": "stop"}, "not valid JSON"),
        ({"message": {"content": "Sure! Here you go."}, "finish_reason": "stop"}, "not valid JSON"),
        ({"message": {"content": ""}, "finish_reason": "stop"}, "not valid JSON"),
        ({"message": {"content": r'{"a": "\uDceA"}'}, "finish_reason": "stop"}, "no text or number"),
        ({"message": {"content": '"\udcea"'}, "finish_reason": "stop"}, "no text or number"),
        ({"message": {"content": '{"a": NaN}'}, "finish_reason": "stop"}, "no text or number"),
        ({"message": {"content": None}, "finish_reason": "stop"}, "empty"),
        ({"message": {"content": '{"b": 1}'}, "finish_reason": "stop"}, "'a' is a required property"),
        ({"message": {"content": '{"a": 1} {"a": 2}'}, "finish_reason": "stop"}, "not valid JSON"),
    ],
)
def test_a_reply_that_must_not_enter_state(choice: dict[str, Any], word: str) -> None:
    with pytest.raises(Rejected, match=word):
        accept_reply(ASK, choice)


def test_an_accepted_reply_carries_its_parsed_value() -> None:
    reply = accept_reply(ASK, {"message": {"content": '{"a": 1}'}, "finish_reason": "stop"})
    assert reply["parsed"] == {"a": 1}
    free = ModelRequest("s", [], tools=[])
    assert accept_reply(free, {"message": {"tool_calls": []}, "finish_reason": "tool_calls"}) == {"tool_calls": []}


def test_a_repair_keeps_the_question_and_tells_the_problem() -> None:
    messages = repair_messages(ASK, "It was wrong.")
    assert messages[:-1] == ASK.messages
    assert "It was wrong." in messages[-1]["content"]


def test_a_decision_is_read_from_json() -> None:
    decision = Decision.from_json({"decision_id": "d", "decision": "approve", "token": "t", "later": 1})
    assert decision == Decision("d", "approve", token="t")
    bad: object
    for bad in (None, [], {}, {"decision_id": "d"}, {"decision_id": 1, "decision": "approve"}):
        with pytest.raises(ValueError, match="a decision is an object"):
            Decision.from_json(bad)
