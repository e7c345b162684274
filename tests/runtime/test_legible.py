"""A journal, told to a program and to a person."""

from typing import Any

from kintsugi.runtime.clock import Moment
from kintsugi.runtime.legible import describe, view
from kintsugi.runtime.store import Event, Run, Signal

PLAN = {"steps": [{"id": "think"}, {"id": "pay"}, {"id": "tell"}], "tools": {}}
REPLY = {"ok": True, "result": 1, "version": None, "status": 200, "error": "", "by": "tool"}
QUESTION = {"kind": "in_doubt", "step": "pay", "summary": "pay may or may not have happened"}


def run(*, owner: str | None = "w.1", ended: bool = False) -> Run:
    return Run("r", {"chain": "c", "plan": PLAN}, owner, 1, ended, Moment(1000.0, "", 0.0))


def journal(*lines: tuple[str, str, dict[str, Any]]) -> list[Event]:
    return [Event(kind, name, data, 1001.0 + n, n) for n, (kind, name, data) in enumerate(lines)]


CLAIMED = ("claimed", "", {"worker": "w.1", "epoch": 1})
THOUGHT = (
    "reply",
    "think",
    {"step": "think", "message": {}, "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
)
INTENT = ("intent", "pay#1", {"step": "pay", "tool": "bank.pay", "arguments": {"a": 1}})
FAILED = (
    "failed",
    "pay#1",
    {
        "step": "pay",
        "act": "send",
        "outcome": "unknown",
        "problem": "no answer within 2 s",
        "status": 0,
        "in_doubt": True,
        "not_before": 1004.0,
    },
)
ASKED = ("asked", "pay#1", {"request_id": "q1", "question": QUESTION})


def told(
    *lines: tuple[str, str, dict[str, Any]],
    signals: list[Signal] | None = None,
    owner: str | None = "w.1",
    now: float = 1010.0,
) -> dict[str, Any]:
    return view(run(owner=owner), journal(*lines), signals or [], {"w.1"}, now)


def test_from_submission_to_the_first_step() -> None:
    assert view(None, [], [], set(), 0.0)["state"] == "unknown"
    assert told(owner=None)["state"] == "submitted"
    assert told(CLAIMED)["state"] == "running"
    assert told(CLAIMED, owner="w.0")["state"] == "orphaned"
    assert told(CLAIMED)["pending"] == ["think", "pay", "tell"]


def test_in_the_middle_of_a_call() -> None:
    shown = told(CLAIMED, THOUGHT, INTENT, FAILED)
    assert shown["state"] == "running"
    assert [call["name"] for call in shown["current"]] == ["pay#1"]
    assert [call["name"] for call in shown["done"]] == ["think"]
    assert shown["pending"] == ["tell"]
    assert shown["in_doubt"] == ["pay#1"]
    assert shown["retries"] == {"pay#1": 1}
    assert shown["evidence"]["pay#1"][0]["problem"] == "no answer within 2 s"
    assert shown["cost"] == {"model_calls": 1, "tool_calls": 1, "prompt_tokens": 5, "completion_tokens": 2}
    assert shown["seconds"] == 10.0
    assert shown["options"] == ["pause", "retry", "cancel"]


def test_halted_before_a_person() -> None:
    shown = told(CLAIMED, THOUGHT, INTENT, FAILED, ASKED)
    assert (shown["state"], shown["detail"]) == ("waiting", "for a person: pay may or may not have happened")
    assert shown["questions"] == [{"name": "pay#1", "request_id": "q1", **QUESTION}]
    assert shown["next"] == ("answer in_doubt request q1: happened (with its result), not_happened or stop")
    assert shown["options"] == ["decide", "pause", "cancel"]


def test_after_the_answer() -> None:
    decided = ("decided", "pay#1", {"decision": "not_happened", "decision_id": "d1"})
    shown = told(CLAIMED, INTENT, FAILED, ASKED, decided)
    assert shown["state"] == "running"
    assert shown["questions"] == []
    assert shown["in_doubt"] == []
    assert [(given["question"], given["decision"]) for given in shown["approvals"]] == [("in_doubt", "not_happened")]


def test_a_timer_sleeps_until_its_time() -> None:
    timer = ("timer", "rest", {"until": 1015.0})
    assert told(CLAIMED, timer)["state"] == "sleeping"
    assert told(CLAIMED, timer)["detail"] == "5.0 s to go"
    assert told(CLAIMED, timer, now=1016.0)["state"] == "running"


def test_paused_by_an_operator() -> None:
    signals = [Signal(1, "r", "pause", "", {})]
    assert told(CLAIMED, signals=signals)["state"] == "paused"
    assert told(CLAIMED, signals=signals)["options"] == ["resume", "cancel"]
    signals.append(Signal(2, "r", "resume", "", {}))
    assert told(CLAIMED, signals=signals)["state"] == "running"


def test_ended() -> None:
    refused = ("result", "tell#1", {"step": "tell", "reply": {**REPLY, "ok": False, "error": "no"}})
    done = ("result", "pay#1", {"step": "pay", "reply": REPLY})
    end = ("ending", "", {"status": "failed", "detail": "tell was refused"})
    shown = told(CLAIMED, THOUGHT, INTENT, done, refused, end)
    assert (shown["state"], shown["detail"]) == ("failed", "tell was refused")
    assert [call["name"] for call in shown["failed"]] == ["tell#1"]
    assert (shown["pending"], shown["next"], shown["options"]) == ([], "nothing", ["retry"])
    again = told(CLAIMED, end, ("reopened", "", {}), CLAIMED)
    assert (again["state"], again["claims"]) == ("running", 2)


CLAIMED_ONCE = "claimed 1 times, 10.0 s"


def test_what_a_person_reads() -> None:
    text = describe(told(CLAIMED, THOUGHT, INTENT, FAILED, ASKED))
    assert text.splitlines() == [
        "run r (c): waiting, for a person: pay may or may not have happened",
        "  done     think: model",
        "  current  pay#1: tool bank.pay",
        "  pending  tell",
        "  asked    in_doubt q1: pay may or may not have happened",
        "  tried    pay#1: send unknown, no answer within 2 s",
        "  in doubt pay#1: it may have had its effect",
        "  cost     1 model calls, 1 tool calls, 5 prompt tokens, 2 completion tokens; " + CLAIMED_ONCE,
        "  next     answer in_doubt request q1: happened (with its result), not_happened or stop",
        "  you may  decide, pause, cancel",
    ]
    assert describe(view(None, [], [], set(), 0.0)) == "unknown run"
