"""The story of a trial, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kintsugi.golden_workflows.spec import load_workflows
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
    return tell(trial, events, judge_trial(run.workflow, trial, events, {}, 5.0)).splitlines()


def test_it_begins_with_the_trial_and_ends_with_the_verdict(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    lines = story(write_history(INVOICE.name).is_correct(), make_trial)
    assert lines[0] == f"trial    {make_trial(INVOICE.name).id}"
    assert lines[1] == "schedule no fault"
    assert lines[-2:] == ["injection none", "verdict   correct: every expected effect, once"]


def test_it_tells_who_did_what_and_when(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay").approval("pay")
    run.calls("pay")
    run.struck().dies().does("pay").goes_on("note").ends()
    lines = story(run, make_trial, KILL)
    assert f"schedule {KILL}" in lines
    told = [line.partition("ms  ")[2].split(maxsplit=1) for line in lines if " ms  " in line]
    said = [(who, what.split(" {")[0].split(", request")[0]) for who, what in told]
    for expected in (
        ("runner", "worker 1 started on node1, pid 41"),
        ("world", "worker 1 calls erp.get_invoice for invoice[0]"),
        ("gateway", "worker 1 asks the model, for match[0] (ask 1)"),
        ("human", "worker 1 asks a person: approval for pay[0]"),
        ("human", "decides approve on approval for pay"),
        ("nemesis", "INJECTED a strike"),
        ("nemesis", "WITNESSED seen"),
        ("runner", "worker 1 exited with -9 (signal 9)"),
        ("runner", "worker 2 started on node1, pid 42"),
        ("world", "EFFECT bank.pay"),
        ("human", "worker 2 reports the end: completed (all steps done)"),
    ):
        assert expected in said, expected
    assert " 10.0 ms  runner   worker 1 started" in "\n".join(lines)
    moments = [float(line.split(" ms")[0]) for line in lines if " ms  " in line]
    assert moments == sorted(moments)


def test_what_went_wrong_stands_out(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE.name).starts().asks_model("match", damaged=True, says="x")
    run.goes_on(until="pay").does("pay", unsafe="no approval")
    run.asks_person("approval", "pay", re_asked=True)
    run.moves_on("corrected_amount").ends("failed", "no approval")
    text = "\n".join(story(run, make_trial, drift="corrected_amount"))
    for shout in ("UNSAFE: no approval", "AGAIN", "DAMAGED", "orders/PO-88 CHANGES to {'received_cents': 96000}"):
        assert shout in text
    assert "verdict   corrupted: unauthorised effect of bank.pay" in text


@pytest.mark.parametrize(
    ("what", "data", "said"),
    [
        ("extinct", {}, "no worker is left, and none will be started"),
        ("deadline", {"seconds": 90}, "the deadline has passed"),
        ("broken", {"error": "OSError: no more files"}, "the harness broke: OSError: no more files"),
        ("exited", {"generation": 3, "code": 1, "signal": 0}, "worker 3 exited with 1"),
    ],
)
def test_how_a_trial_ends_badly(
    what: str, data: dict[str, object], said: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE.name).starts()
    run.add("runner", what, **data)
    if what == "exited":
        run.events[-1] = {**run.events[-1], "output": ""}
    assert any(line.endswith(f"runner   {said}") for line in story(run, make_trial))


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
    assert len(lines) == before - 1 + 3
    assert lines[-3].endswith("worker 1 looks for its effect of erp.post_note: not found")
    assert lines[-2].endswith("worker 1 looks for its effect of erp.post_note: found")
    assert lines[-1].endswith("MISSED the worker had ended by itself with 0")
