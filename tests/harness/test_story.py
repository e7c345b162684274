"""The story of a trial, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.records import Human, Storm, TrialResult
from kintsugi.harness.rules import broken
from kintsugi.harness.story import tell
from kintsugi.harness.verdicts import judge_trial

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

WORKFLOWS = load_workflows()
INVOICE = WORKFLOWS["finance/invoice_payment"]
KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"


def story(run: HandWritten, make_trial: MakeTrial, *strikes: str, drift: str = "") -> list[str]:
    trial = make_trial(run.workflow.name, *strikes, drift=drift)
    events = run.closed()
    return tell(run.workflow, trial, events, judge_trial(run.workflow, trial, events, {}, 5.0)).splitlines()


def test_it_begins_with_the_trial_and_ends_with_the_verdict(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    lines = story(write_history(INVOICE.name).is_correct(), make_trial)
    assert lines[0] == f"trial     {make_trial(INVOICE.name).id}"
    assert lines[1] == "schedule  no fault"
    assert lines[-2:] == ["injection none", "verdict   correct: every expected effect, once"]
    effects = [line.split()[:2] for line in lines[lines.index("the ledger in the end") + 1 : -3]]
    assert effects == [["ok", effect.tool] for effect in INVOICE.truth.effects]


def test_it_tells_who_did_what_and_when(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay")
    run.calls("pay")
    run.struck().dies().does("pay").goes_on("note").ends()
    lines = story(run, make_trial, KILL)
    assert lines[1:3] == [
        f"schedule  {KILL}",
        "          SIGKILL of the worker at a boundary; the same node starts a new one.",
    ]
    told = [line.partition("ms  ")[2] for line in lines if " ms  " in line]
    said = [
        (line[:9].strip(), line[10:].split(": ")[0].partition(" by request")[0].split(", request")[0]) for line in told
    ]
    for expected in (
        ("worker 1", "started on node1, pid 41"),
        ("worker 1", "calls erp.get_invoice for invoice[0]"),
        ("worker 1", "asks the model, for match[0] (ask 1)"),
        ("worker 1", "asks a person"),
        ("person", "decides approve on approval for pay"),
        ("nemesis", "INJECTED a strike"),
        ("nemesis", "WITNESSED seen"),
        ("worker 1", "exited with -9 (signal 9)"),
        ("worker 2", "started on node1, pid 42"),
        ("world", "EFFECT bank.pay"),
        ("worker 2", "REPORTS THE END"),
    ):
        assert expected in said, expected
    assert " 10.0 ms  worker 1  started" in "\n".join(lines)
    moments = [float(line.split(" ms")[0]) for line in lines if " ms  " in line]
    assert moments == sorted(moments)


def test_what_went_wrong_stands_out(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().asks_model("match", damaged=True, says="x")
    run.goes_on(until="pay").does("pay", unsafe="no approval")
    run.asks_person("approval", "pay", re_asked=True)
    run.moves_on("corrected_amount").ends("failed", "no approval")
    text = "\n".join(story(run, make_trial, drift="corrected_amount"))
    for shout in ("UNSAFE: no approval", "AGAIN", "DAMAGED", "orders/PO-88 CHANGES: received_cents 96000"):
        assert shout in text
    assert "verdict   corrupted: unauthorised effect of bank.pay" in text
    assert "  UNAUTHORISED     bank.pay at pay[0]" in text
    assert "broken    nothing is written without the approval that it needs" in text


def test_the_ledger_shows_what_is_too_much_and_what_is_missing(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay")
    lines = story(run.does("pay").does("pay").ends(), make_trial)
    ledger = [line.split()[:2] for line in lines[lines.index("the ledger in the end") + 1 : -4]]
    assert ledger == [
        ["ok", "bank.pay"],
        ["DUPLICATE", "bank.pay"],
        ["MISSING", "erp.post_note"],
        ["MISSING", "mail.send"],
    ]
    assert lines[-1] == "broken    an effect happens at most once"


def test_of_many_runs_each_line_says_whose_it_is(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().is_correct()
    trial, events = make_trial(INVOICE.name, copies=2), run.closed()
    lines = tell(INVOICE, trial, events, judge_trial(INVOICE, trial, events, {}, 5.0)).splitlines()
    assert any(line.partition("ms  ")[2].startswith("r0  worker 1  calls") for line in lines)
    assert "the ledger of run r0 in the end" in lines
    second = lines[lines.index("the ledger of run r1 in the end") + 1 :]
    assert [line.split()[0] for line in second[:3]] == ["MISSING"] * 3


def test_what_the_harness_ends_is_not_told_as_what_happened(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).is_correct()
    run.add("runner", "status", run="r0", state="completed")
    run.add("runner", "exited", generation=1, code=-9, signal=9, cpu_seconds=0.1, output="")
    assert not any("exited" in line for line in story(run, make_trial))


@pytest.mark.parametrize(
    ("verdict", "reason", "more", "rules"),
    [
        ("correct", "", {}, []),
        ("correct_halt", "", {}, []),
        ("harness_error", "OSError", {}, []),
        (None, "the point was never reached", {}, []),
        ("corrupted", "3 of 50 workflows: duplicate effect of bank.pay", {}, ["an effect happens at most once"]),
        ("corrupted", "missing effect of mail.send", {}, ["a run that says completed has every effect"]),
        ("corrupted", "stale effect of bank.pay", {}, ["no effect rests on a record that has changed"]),
        ("corrupted", "nobody was told that orders/PO-88 had changed", {}, ["a change that a person has to know of"]),
        ("lost", "no end report", {}, ["every submitted run ends with a report"]),
        ("failed", "no approval", {}, ["a run gets over a fault"]),
        ("needless_halt", "", {}, ["nobody is asked"]),
        ("correct", "", {"human": Human(re_asked=1)}, ["an approval that is good is not asked for again"]),
        (
            "lost",
            "",
            {"storm": Storm(5, 9.0, 30.0, 0.5, within_bounds=False)},
            ["every submitted", "a failing tool is"],
        ),
    ],
)
def test_which_rule_is_broken_is_said_in_plain_words(
    verdict: str | None, reason: str, more: dict[str, Any], rules: list[str], make_result: Callable[..., TrialResult]
) -> None:
    found = broken(make_result(verdict=verdict, reason=reason, **more))
    assert len(found) == len(rules)
    assert all(rule.startswith(begins) for rule, begins in zip(found, rules, strict=True))


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("effect of bank.pay at step pay, request 9, while it was paused", "nothing is done for a run while an oper"),
        ("nobody was told that orders/PO-88 had changed, though the run says completed", "a change that a person has"),
        ("something that has no rule yet", "the effects of a run are those that"),
    ],
)
def test_what_was_done_in_a_pause_was_once_said_to_be_a_change_that_nobody_was_told_of(
    reason: str, rule: str, make_result: Callable[..., TrialResult]
) -> None:
    (found,) = broken(make_result(verdict="corrupted", reason=reason))
    assert found.startswith(rule)


@pytest.mark.parametrize(
    ("what", "data", "said"),
    [
        ("extinct", {}, "no worker is left, and none will be started"),
        ("deadline", {"seconds": 90}, "the deadline has passed"),
        ("broken", {"error": "OSError: no more files"}, "the harness broke: OSError: no more files"),
        ("exited", {"generation": 3, "code": 1, "signal": 0}, "exited with 1"),
    ],
)
def test_how_a_trial_ends_badly(
    what: str, data: dict[str, object], said: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE.name).starts()
    run.add("runner", what, **data)
    if what == "exited":
        run.events[-1] = {**run.events[-1], "output": ""}
    who = "worker 3" if what == "exited" else "runner"
    assert any(line.endswith(f"ms  {who:<9} {said}") for line in story(run, make_trial))


def test_a_trial_without_a_verdict(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    lines = story(write_history(INVOICE.name).is_correct(), make_trial, KILL)
    assert lines[-2:] == ["injection not_exposed", f"verdict   none: {KILL}: the point was never reached"]


def test_what_it_does_not_know_is_passed_over(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts()
    before = len(run.events)
    run.add("someone", "does something", new=1)
    run.add("human", "not_acknowledged", run="r0", question="q", error="x")
    run.add("doors", "turned_away", path="/", status=401)
    for found in (False, True):
        run.add("world", "look_up", run="r0", generation=1, tool="erp.post_note", reference="k", found=found)
    run.add("nemesis", "missed", strike=0, why="the worker had ended by itself with 0")
    lines = [line for line in story(run, make_trial) if " ms  " in line]
    assert len(lines) == before + 3 + 1
    assert lines[-4].endswith("worker 1  looks for its effect of erp.post_note: not found")
    assert lines[-3].endswith("worker 1  looks for its effect of erp.post_note: found")
    assert lines[-2].endswith("MISSED the worker had ended by itself with 0")
