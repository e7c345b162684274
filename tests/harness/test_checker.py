"""One hand-written history for each thing the checker can say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.checker import check
from kintsugi.harness.records import Halt

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.golden_workflows.spec import Workflow
    from kintsugi.harness.checker import Verdict
    from kintsugi.harness.history import Event
    from kintsugi.scenarios.trial import Trial

WORKFLOWS = load_workflows()
INVOICE = "finance/invoice_payment"
REFUND = "finance/customer_refund"
LEADS = "marketing/lead_follow_up"
EXPORT = "data/subject_access_export"
BACKFILL = "data/partition_backfill"

KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"


def judged(trial: Trial, events: list[Event]) -> Verdict:
    return check(WORKFLOWS[trial.workflow], trial, events)


# --- correct ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_reference_trajectory_of_every_workflow_is_correct(
    name: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    found = judged(make_trial(name), write_history(name).is_correct().closed())
    assert (found.injection, found.verdict, found.halts) == ("none", "correct", ())
    assert found.reason == "every expected effect, once"


def test_a_fault_that_was_seen_and_left_nothing_wrong(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay")
    run.approval("pay")
    run.calls("pay")
    run.struck().dies().does("pay").goes_on("note").ends()
    found = judged(make_trial(INVOICE, KILL), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "correct")


def test_harmless_repeats_do_not_spoil_a_verdict(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().does("invoice").does("invoice").does("order").asks_model("match")
    run.asks_model("match").approval("pay").does("order").goes_on("pay").ends().ends()
    assert judged(make_trial(INVOICE), run.closed()).verdict == "correct"


# --- the harness's own errors -------------------------------------------------------------------------------


def test_what_broke_the_harness_is_no_verdict_on_anyone(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).is_correct()
    run.add("runner", "broken", error="OSError: no more files")
    found = judged(make_trial(INVOICE, KILL), run.closed())
    assert (found.injection, found.verdict, found.reason) == ("none", "harness_error", "OSError: no more files")


def test_a_harness_error_goes_before_corruption(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).is_correct().does("pay")
    run.add("runner", "broken", error="x")
    assert judged(make_trial(INVOICE), run.closed()).verdict == "harness_error"


@pytest.mark.parametrize("left", range(10))
def test_a_history_that_was_cut_short_is_never_judged(
    left: int, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    events = write_history(INVOICE).is_correct().closed()
    found = judged(make_trial(INVOICE), events[: len(events) * left // 10])
    assert found.verdict == "harness_error"
    assert "cut short before the trial was closed" in found.reason


# --- effects that should not be -----------------------------------------------------------------------------


def test_a_second_payment_is_a_duplicate(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="note").does("pay").goes_on("note").ends()
    found = judged(make_trial(INVOICE), run.closed())
    assert found.verdict == "corrupted"
    assert found.reason.startswith("duplicate effect of bank.pay at step pay, request ")


def test_a_duplicate_after_the_end_report_is_still_one(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).is_correct().does("tell")
    assert judged(make_trial(INVOICE), run.closed()).reason.startswith("duplicate effect of mail.send")


def test_a_call_that_the_plan_does_not_lead_to_is_extra(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(LEADS).starts().goes_on(until="log")
    run.does("log", lead_id="L-4").goes_on("log").ends()
    found = judged(make_trial(LEADS), run.closed())
    assert found.reason.startswith("wrong arguments effect of crm.log_activity at step log")
    other = write_history(INVOICE).is_correct()
    named = other.named("unplanned")
    mail = {"tool": "bank.pay", "arguments": {"vendor_id": "V-1"}, "record": "payments/PAY-9", "unsafe": ""}
    other.add("world", "effect", **named, **mail)
    assert judged(make_trial(INVOICE), other.closed()).reason.startswith("extra effect of bank.pay at step unplanned")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"amount_cents": 1284000}, "amount_cents"),
        ({"amount_cents": 128401, "vendor_id": "V-208"}, "amount_cents, vendor_id"),
        ({"priority": "urgent"}, "priority"),
        ({"currency": None}, "currency"),
    ],
)
def test_wrong_arguments_are_named(
    changes: dict[str, Any], named: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").approval("pay").does("pay", **changes)
    run.goes_on("note").ends()
    found = judged(make_trial(INVOICE), run.closed())
    assert found.verdict == "corrupted"
    assert found.reason.startswith("wrong arguments effect of bank.pay at step pay")
    assert found.reason.endswith(f"({named})")


def test_text_that_the_model_never_gave_is_a_wrong_argument(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="tell").does("tell", body="We have paid you.").ends()
    found = judged(make_trial(INVOICE), run.closed())
    assert found.reason.endswith("(body holds text that the model never gave)")


def test_a_later_step_before_an_earlier_one_is_out_of_order(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").does("note").approval("pay").does("pay").does("tell")
    found = judged(make_trial(INVOICE), run.ends().closed())
    assert found.reason.startswith("out of order effect of bank.pay at step pay")


def test_the_items_of_one_step_have_no_order(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(LEADS).starts().goes_on(until="log").does("log", 2).does("log", 0).does("log", 1)
    assert judged(make_trial(LEADS), run.goes_on("hot").ends().closed()).verdict == "correct"


@pytest.mark.parametrize("unsafe", ["no approval", "approved for other arguments", "approval expired"])
def test_a_write_without_a_good_approval_is_unauthorised(
    unsafe: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").does("pay", unsafe=unsafe).goes_on("note").ends()
    found = judged(make_trial(INVOICE), run.closed())
    assert found.verdict == "corrupted"
    assert found.reason.startswith("unauthorised effect of bank.pay")
    assert found.reason.endswith(f"({unsafe})")


def test_an_effect_on_old_values_is_stale(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = stale(write_history(REFUND), "partly_refunded")
    found = judged(drifting(make_trial), run.ends().closed())
    assert (found.injection, found.verdict) == ("witnessed", "corrupted")
    assert found.reason.startswith("stale effect of shop.refund at step refund")


@pytest.mark.parametrize("step", ["pay", "note", "tell"])
def test_a_run_that_says_it_completed_and_left_something_out(
    step: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on(leave_out=(step,)).ends()
    found = judged(make_trial(INVOICE), run.closed())
    assert found.verdict == "corrupted"
    assert found.reason.startswith("missing effect of ")
    assert f"at step {step}" in found.reason


def test_a_call_that_was_made_and_never_took_effect_is_missing(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on(until="tell")
    run.answered(run.calls("tell"))
    assert "missing effect of mail.send" in judged(make_trial(INVOICE), run.ends().closed()).reason


# --- how far the injection came -----------------------------------------------------------------------------


def test_corruption_counts_even_where_the_injection_was_not_seen(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    for injected, injection in ((True, "invalid_injection"), (False, "not_exposed")):
        run = write_history(INVOICE).starts().goes_on(until="note")
        if injected:
            run.struck(witnessed=False)
        run.does("pay").goes_on("note").ends()
        found = judged(make_trial(INVOICE, KILL), run.closed())
        assert (found.injection, found.verdict) == (injection, "corrupted")
        assert found.reason.startswith("duplicate effect")


def test_done_but_not_seen_to_have_happened(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    events = write_history(INVOICE).starts().struck(witnessed=False).goes_on().ends().closed()
    found = judged(make_trial(INVOICE, KILL), events)
    assert (found.injection, found.verdict) == ("invalid_injection", None)
    assert found.reason == f"{KILL}: done, but not seen to have happened"


def test_never_reached(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    found = judged(make_trial(INVOICE, KILL), write_history(INVOICE).is_correct().closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason == f"{KILL}: the point was never reached"


def test_missed(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).is_correct().struck(witnessed=False).missed("the worker had ended by itself")
    found = judged(make_trial(INVOICE, KILL), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("the worker had ended by itself")


def test_one_of_several_repeats_may_be_missed(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    held = "tool_timeout.beyond_budget@tool:pay[0]#1@before"
    run = write_history(INVOICE).is_correct().struck().struck(witnessed=False).missed("the client never gave up")
    assert judged(make_trial(INVOICE, held), run.closed()).injection == "witnessed"


def test_a_restart_that_was_missed_made_a_late_approval_count_as_late_after_a_restart(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    late = "approval_delay.late_after_restart@human:pay[0]#1@waiting"
    run = write_history(INVOICE).is_correct().struck(witnessed=False).missed("no worker had taken the run up")
    run.add("nemesis", "witnessed", strike=0, evidence="decision approve after 24 h")
    found = judged(make_trial(INVOICE, late), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)


def test_a_kill_that_strikes_again_in_the_recovery_has_to_be_seen_twice(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    trial = make_trial(INVOICE, "worker_kill.again_in_recovery@tool:pay[0]#1@before")
    once = write_history(INVOICE).starts().struck().dies().goes_on().ends()
    found = judged(trial, once.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("the recovery did not come to this point again")
    twice = write_history(INVOICE).starts().struck().dies().struck().dies().goes_on().ends()
    assert judged(trial, twice.closed()).verdict == "correct"


def test_every_strike_of_a_schedule_has_to_be_seen(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, KILL, "worker_kill.at_boundary@tool:tell[0]#1@before")
    once = write_history(INVOICE).is_correct().struck(strike=0)
    assert judged(trial, once.closed()).injection == "not_exposed"
    twice = write_history(INVOICE).is_correct().struck(strike=0).struck(strike=1)
    assert judged(trial, twice.closed()).verdict == "correct"


AGAIN = "worker_kill.again_in_recovery@tool:pay[0]#1@before"
MAIL_KILL = "then worker_kill.at_boundary@tool:tell[0]#1@before"
NEVER = {
    MAIL_KILL: f"{MAIL_KILL}: the point was never reached",
    AGAIN: f"{AGAIN}: the recovery did not come to this point again",
}


def killed_once(write_history: WriteHistory, how: str) -> HandWritten:
    """A run whose worker was killed at its payment, and that ended in some way before anything else was struck."""
    run = write_history(INVOICE).starts().goes_on(until="pay").approval("pay")
    run.calls("pay")
    run.struck().dies(restarted=how != "lost")
    if how == "lost":
        run.add("runner", "extinct")
    elif how == "failed":
        run.ends("failed", "the journal is corrupt")
    elif how == "missing":
        run.ends()
    elif how == "wrong":
        run.does("pay", amount=1.0).goes_on("note").ends()
    elif how == "needless_halt":
        run.halts("verify", "pay")
        run.does("pay").goes_on("note").ends()
    else:
        run.does("pay").goes_on("note").ends()
    return run


@pytest.mark.parametrize("schedule", [(KILL, MAIL_KILL), (AGAIN,)])
@pytest.mark.parametrize(
    ("how", "verdict"), [("lost", "lost"), ("failed", "failed"), ("missing", "corrupted"), ("wrong", "corrupted")]
)
def test_a_run_that_ended_badly_is_judged_over_what_it_lived_to_see(
    schedule: tuple[str, ...], how: str, verdict: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    """A run that was lost at the first of two kills had no verdict, since it did not come to the second."""
    found = judged(make_trial(INVOICE, *schedule), killed_once(write_history, how).closed())
    assert (found.injection, found.verdict) == ("witnessed", verdict)
    alone = judged(make_trial(INVOICE, KILL), killed_once(write_history, how).closed())
    never = NEVER[schedule[-1]]
    assert found.reason == f"{alone.reason}; the rest of its schedule was never reached: {never}"
    assert (found.struck, alone.struck) == (make_trial(INVOICE, KILL), None)


@pytest.mark.parametrize("schedule", [(KILL, MAIL_KILL), (AGAIN,)])
@pytest.mark.parametrize("how", ["correct", "needless_halt"])
def test_of_a_run_that_ended_well_nothing_is_known_of_the_rest(
    schedule: tuple[str, ...], how: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    found = judged(make_trial(INVOICE, *schedule), killed_once(write_history, how).closed())
    assert (found.injection, found.verdict, found.reason) == ("not_exposed", None, NEVER[schedule[-1]])
    assert found.struck is None


def test_only_what_was_struck_in_order_and_seen_is_judged_by_itself(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    lost = killed_once(write_history, "lost").closed()
    other = "worker_kill.at_boundary@tool:order[0]#1@before"
    first = [{**event, "strike": 1} if event["who"] == "nemesis" else event for event in lost]
    found = judged(make_trial(INVOICE, other, KILL), first)
    assert (found.injection, found.verdict) == ("not_exposed", None)
    begun = [*lost, {"t": 99.0, "who": "nemesis", "what": "injected", "strike": 1}]
    found = judged(make_trial(INVOICE, KILL, other), begun)
    assert (found.injection, found.verdict) == ("invalid_injection", None)
    found = judged(make_trial(INVOICE, KILL, other, KILL), [*lost, {**begun[-1], "strike": 2}])
    assert (found.injection, found.verdict) == ("not_exposed", None)


def test_a_drift_that_was_not_reached_is_no_part_of_what_was_struck(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    moves = "then stale_data.while_waiting@human:pay[0]#1@waiting"
    trial = make_trial(INVOICE, KILL, moves, drift="corrected_amount")
    found = judged(trial, killed_once(write_history, "lost").closed())
    assert found.struck == make_trial(INVOICE, KILL)


@pytest.mark.parametrize("how", ["missing", "failed", "lost", "needless_halt"])
def test_what_is_no_wrong_effect_gives_way_to_an_unseen_injection(
    how: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    # A missing effect was once called corruption even here, ahead of its turn.
    run = write_history(INVOICE).starts()
    if how == "missing":
        run.goes_on(until="tell").ends()
    elif how == "failed":
        run.goes_on(until="tell").ends("failed")
    elif how == "needless_halt":
        run.goes_on().decides(run.halts("verify", "tell"), "continue").ends()
    found = judged(make_trial(INVOICE, KILL), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)


# --- how a run ended ----------------------------------------------------------------------------------------


def test_a_run_that_says_it_failed_failed(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").ends("failed", "match: not valid JSON")
    found = judged(make_trial(INVOICE), run.closed())
    assert (found.verdict, found.reason) == ("failed", "the run reported a failure: match: not valid JSON")


def test_corruption_goes_before_failure(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="note").does("pay").ends("failed")
    assert judged(make_trial(INVOICE), run.closed()).verdict == "corrupted"


@pytest.mark.parametrize("status", ["failed", "None", "", "COMPLETED", "unknown"])
def test_whatever_is_no_completion_is_never_correct(
    status: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on().ends(status)
    assert judged(make_trial(INVOICE), run.closed()).verdict == "failed"


@pytest.mark.parametrize("statuses", [("completed", "failed"), ("failed", "completed")])
def test_a_run_that_says_both_was_once_taken_at_its_first_word(
    statuses: tuple[str, str], write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on().ends(statuses[0]).ends(statuses[1], "again")
    assert judged(make_trial(INVOICE), run.closed()).verdict == "failed"


def test_lost_because_no_worker_was_left(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").dies(restarted=False, code=1)
    run.add("runner", "extinct")
    found = judged(make_trial(INVOICE), run.closed())
    assert found.verdict == "lost"
    assert "no worker was left" in found.reason
    assert "ended with 1" in found.reason


@pytest.mark.parametrize(
    ("output", "ends"),
    [
        ("", "ended with 1)"),
        ("Traceback\nKeyError: 'x'\n\n", "ended with 1: KeyError: 'x')"),
        ("y" * 500, f"1: {'y' * 200})"),
    ],
)
def test_lost_with_the_last_words_of_the_last_worker(
    output: str, ends: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().dies(restarted=False, code=1)
    run.events[-1] = {**run.events[-1], "output": output}
    run.add("runner", "extinct")
    assert judged(make_trial(INVOICE), run.closed()).reason.endswith(ends)


def test_lost_without_any_worker_ever(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE)
    run.add("runner", "extinct")
    assert judged(make_trial(INVOICE), run.closed()).reason.endswith("(the last one ended with ?)")


def test_lost_at_the_deadline_whatever_its_own_status_says(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on()
    run.add("runner", "deadline", seconds=90)
    run.add("runner", "status", run="r0", state="completed")
    run.add("runner", "closed")
    found = judged(make_trial(INVOICE), run.events)
    assert found.verdict == "lost"
    assert found.reason == "no end report before the deadline; its own status says 'completed'"


def test_a_run_of_which_nothing_was_ever_heard_is_lost(make_trial: MakeTrial) -> None:
    assert judged(make_trial(INVOICE), [{"t": 1.0, "who": "runner", "what": "closed"}]).verdict == "lost"


# --- halts --------------------------------------------------------------------------------------------------


def unanswered(run: HandWritten) -> HandWritten:
    """The mail is sent and its answer never arrives."""
    run.starts().goes_on(until="tell").takes_effect(run.calls("tell"))
    return run.struck().dies()


RESET = "partial_side_effect.killed@tool:tell[0]#1@committed"


def test_a_justified_halt_is_a_correct_one(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = unanswered(write_history(INVOICE))
    run.decides(run.halts("in_doubt", "tell"), "happened").ends()
    found = judged(make_trial(INVOICE, RESET), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "correct_halt")
    why = "mail.send is opaque, and a call of it was never answered"
    assert found.halts == (Halt("in_doubt", "tell", justified=True, why=why),)
    assert found.reason == f"halted at tell (in_doubt): {why}"


def test_one_needless_halt_among_justified_ones_is_needless(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = unanswered(write_history(INVOICE))
    run.decides(run.halts("in_doubt", "tell"), "happened").decides(run.halts("verify", "note"), "continue").ends()
    found = judged(make_trial(INVOICE, RESET), run.closed())
    assert found.verdict == "needless_halt"
    assert found.reason == "halted at note (verify): the workflow asks for no verify"
    assert [halt.justified for halt in found.halts] == [True, False]


def test_a_halt_does_not_excuse_what_is_missing_or_wrong(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="tell")
    run.calls("tell")
    run.struck().dies().decides(run.halts("in_doubt", "tell"), "not_happened").ends()
    assert "missing effect of mail.send" in judged(make_trial(INVOICE, RESET), run.closed()).reason
    twice = unanswered(write_history(INVOICE))
    twice.decides(twice.halts("in_doubt", "tell"), "happened").does("tell").ends()
    assert "duplicate effect of mail.send" in judged(make_trial(INVOICE, RESET), twice.closed()).reason


# --- approvals that were refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["reject", "expire"])
def test_a_refused_approval_leaves_only_what_the_policy_keeps(
    decision: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    stopped = write_history(BACKFILL).starts().goes_on(until="promote").approval("promote", decision)
    assert judged(make_trial(BACKFILL), stopped.ends(detail="not approved").closed()).verdict == "correct"
    undone = write_history(BACKFILL).starts().goes_on(until="promote", leave_out=("rebuild",))
    undone.approval("promote", decision).ends()
    assert "missing effect of warehouse.rebuild" in judged(make_trial(BACKFILL), undone.closed()).reason


@pytest.mark.parametrize("decision", ["reject", "expire"])
def test_going_on_after_a_refusal_is_corruption(
    decision: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").approval("pay", decision)
    run.does("pay", unsafe="no approval").goes_on("note").ends()
    assert judged(make_trial(INVOICE), run.closed()).reason.startswith("unauthorised effect of bank.pay")
    quietly = write_history(INVOICE).starts().goes_on(until="pay").approval("pay", decision).does("note").ends()
    assert judged(make_trial(INVOICE), quietly.closed()).reason.startswith("extra effect of erp.post_note")


def test_who_asks_until_there_is_a_yes_has_not_heard_the_no(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").approval("pay", "reject").goes_on("pay").ends()
    assert judged(make_trial(INVOICE), run.closed()).reason.startswith("extra effect of bank.pay")


# --- records that move on -----------------------------------------------------------------------------------


def drifting(make_trial: MakeTrial, workflow: str = REFUND, drift: str = "partly_refunded", step: str = "") -> Trial:
    point = f"timer:{step}[0]#1@waiting" if step else f"human:{WORKFLOWS[workflow].drifts[drift].step}[0]#1@waiting"
    return make_trial(workflow, f"stale_data.while_waiting@{point}", drift=drift)


def stale(run: HandWritten, drift: str) -> HandWritten:
    """A run that waits for its approval, misses that a record changed meanwhile, and goes on."""
    step = run.workflow.drifts[drift].step
    run.starts().goes_on(until=step)
    question = run.halts("approval", step)
    run.struck().moves_on(drift)
    run.drift = None
    run.decides(question, "approve").does(step).goes_on("comment")
    return run


@pytest.mark.parametrize("drift", ["partly_refunded", "fully_refunded"])
def test_a_run_that_decides_again_on_the_new_values_is_correct(
    drift: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund")
    question = run.halts("approval", "refund")
    run.struck().moves_on(drift).decides(question, "approve").does("order").goes_on("judge").ends()
    found = judged(drifting(make_trial, drift=drift), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "correct")


def test_a_drift_makes_what_was_right_before_missing(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund")
    run.halts("approval", "refund")
    run.struck().moves_on("partly_refunded").goes_on("judge", until="tell").ends()
    assert "missing effect of mail.send" in judged(drifting(make_trial), run.closed()).reason


def test_a_comment_in_words_from_before_the_change_is_stale(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund")
    old = run.visit("comment").call.arguments["text"]
    question = run.halts("approval", "refund")
    run.struck().moves_on("partly_refunded").decides(question, "approve").does("order").goes_on(
        "judge", until="comment"
    )
    run.does("comment", text=old).goes_on("close").ends()
    found = judged(drifting(make_trial), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "corrupted")
    assert found.reason.startswith("stale effect of tickets.comment at step comment")


def test_a_record_that_changed_before_it_was_read(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(REFUND).starts().struck().moves_on("partly_refunded").goes_on().ends()
    found = judged(drifting(make_trial), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("orders/ORD-9001 changed before it was read")


def test_a_drift_that_never_came(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    found = judged(drifting(make_trial), write_history(REFUND).is_correct().closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("the point was never reached")
    twice = write_history(REFUND).is_correct().does("tell")
    assert judged(drifting(make_trial), twice.closed()).reason.startswith("duplicate effect")


RESTARTING = "stale_data.while_restarting@human:refund[0]#1@waiting"


def test_a_restart_without_the_drift_that_goes_with_it(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund").struck().dies().goes_on("refund").ends()
    found = judged(make_trial(REFUND, RESTARTING, drift="partly_refunded"), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("orders/ORD-9001 did not change")


def test_a_drift_before_the_read_does_not_count_with_a_restart_either(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(REFUND).starts().struck().dies().moves_on("partly_refunded").goes_on().ends()
    found = judged(make_trial(REFUND, RESTARTING, drift="partly_refunded"), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)


def test_acting_before_the_record_changed_was_once_called_stale(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(REFUND).starts().goes_on(until="comment").struck().moves_on("partly_refunded")
    run.drift = None
    found = judged(drifting(make_trial), run.goes_on("comment").ends().closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("orders/ORD-9001 changed after step refund had acted")


def test_a_run_that_did_not_wait_for_its_timer_is_not_exposed(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(LEADS).starts().goes_on(until="log").struck().moves_on("unsubscribed")
    run.drift = None
    trial = drifting(make_trial, LEADS, "unsubscribed", step="a_day")
    found = judged(trial, run.goes_on("log").ends().closed())
    assert (found.injection, found.verdict) == ("not_exposed", None)
    assert found.reason.endswith("leads/L-3 changed after step mail had acted")


def test_what_is_wrong_under_either_truth_is_corruption_however_late_the_drift(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(REFUND).starts().goes_on(until="comment").struck().moves_on("partly_refunded")
    run.drift = None
    run.does("refund").goes_on("comment").ends()
    found = judged(drifting(make_trial), run.closed())
    assert (found.injection, found.verdict) == ("not_exposed", "corrupted")


def test_a_stale_mail_of_a_loop(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = write_history(LEADS).starts().goes_on(until="mail").struck().moves_on("unsubscribed")
    run.drift = None
    found = judged(drifting(make_trial, LEADS, "unsubscribed", step="a_day"), run.goes_on("mail").ends().closed())
    assert found.reason.startswith("stale effect of mail.send at step mail")


def waiting_for_the_export(run: HandWritten, drift: str = "legal_hold") -> HandWritten:
    run.starts().goes_on(until="export")
    question = run.halts("approval", "export")
    run.struck().moves_on(drift)
    run.drift = None
    return run.decides(question, "approve").does("ticket").does("holdings")


def test_a_flagged_drift_is_a_correct_halt(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = waiting_for_the_export(write_history(EXPORT))
    run.decides(run.asks_person("stale", "export"), "stop").ends()
    found = judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed())
    assert (found.injection, found.verdict) == ("witnessed", "correct_halt")


def test_going_on_after_a_flag_is_stale(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    run = waiting_for_the_export(write_history(EXPORT))
    run.decides(run.asks_person("stale", "export"), "stop").does("export").goes_on("register").ends()
    found = judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed())
    assert found.reason.startswith("stale effect of privacy.create_export")


def test_a_run_that_stopped_at_a_drift_without_a_word_was_once_correct(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = waiting_for_the_export(write_history(EXPORT)).ends()
    found = judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed())
    assert found.verdict == "corrupted"
    assert found.reason == "nobody was told that holdings/H-2 had changed, though the run says completed"


def test_nobody_needs_to_be_told_of_a_drift_once_the_person_said_no(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    question = run.halts("approval", "export")
    run.struck().moves_on("legal_hold").decides(question, "reject").approval("export").ends()
    assert judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed()).verdict == "correct"


def test_a_run_begun_anew_after_a_drift_may_act_on_the_new_values(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    run.halts("approval", "export")
    run.struck().moves_on("legal_hold").dies().goes_on().ends()
    assert judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed()).verdict == "correct"


def test_a_run_begun_anew_after_a_drift_may_flag_it_all_the_same(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    run.halts("approval", "export")
    run.struck().moves_on("legal_hold").dies().goes_on(until="export")
    run.decides(run.asks_person("stale", "export"), "stop").ends()
    assert judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed()).verdict == "correct_halt"


@pytest.mark.parametrize("again", [(), ("ticket",), ("holdings",)])
def test_a_run_that_did_not_read_it_all_anew_may_not(
    again: tuple[str, ...], write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    run.halts("approval", "export")
    run.struck().moves_on("legal_hold").dies()
    for step in again:
        run.does(step)
    run.goes_on("export").ends()
    found = judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed())
    assert found.verdict == "corrupted"
    assert "effect of privacy.create_export at step export" in found.reason


def test_a_run_that_read_it_all_anew_without_a_restart_may_not_either(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    question = run.halts("approval", "export")
    run.struck().moves_on("legal_hold").decides(question, "approve").goes_on().ends()
    assert judged(drifting(make_trial, EXPORT, "legal_hold"), run.closed()).verdict == "corrupted"


def test_a_flag_that_the_workflow_does_not_ask_for_is_needless(
    write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    run = write_history(REFUND).starts().goes_on(until="refund")
    question = run.halts("approval", "refund")
    run.struck().moves_on("partly_refunded").decides(question, "approve").does("order")
    run.decides(run.asks_person("stale", "refund"), "continue").goes_on("judge").ends()
    assert judged(drifting(make_trial), run.closed()).verdict == "needless_halt"


# --- many runs at once --------------------------------------------------------------------------------------

STORM = "retry_storm.unavailable_503@tool:pay[0]#1@before"


def several(write_history: WriteHistory, *ways: str) -> list[Event]:
    """Several runs of one workflow, each ending in its own way, in one history."""
    events: list[Event] = []
    run = write_history(INVOICE, "r0", events).struck()
    for number, way in enumerate(ways):
        run = write_history(INVOICE, f"r{number}", events).starts()
        if way == "corrupted":
            run.goes_on().does("pay").ends()
        elif way == "missing":
            run.goes_on(until="tell").ends()
        elif way == "needless_halt":
            run.goes_on().decides(run.halts("verify", "tell"), "continue").ends()
        elif way == "correct_halt":
            run.goes_on(until="tell").takes_effect(run.calls("tell"))
            run.decides(run.halts("in_doubt", "tell"), "happened").ends()
        elif way == "lost":
            run.goes_on(until="note")
        else:
            run.goes_on().ends({"correct": "completed"}.get(way, way))
    return run.closed()


@pytest.mark.parametrize(
    ("ways", "worst"),
    [
        (("correct", "correct"), "correct"),
        (("correct", "correct_halt"), "correct_halt"),
        (("correct_halt", "needless_halt"), "needless_halt"),
        (("needless_halt", "failed"), "failed"),
        (("failed", "lost"), "lost"),
        (("lost", "missing"), "corrupted"),
        (("corrupted", "lost"), "corrupted"),
        (("corrupted", "correct", "failed"), "corrupted"),
    ],
)
def test_the_worst_of_several_runs_speaks_for_all(
    ways: tuple[str, ...], worst: str, write_history: WriteHistory, make_trial: MakeTrial
) -> None:
    # A lost run once hid a corrupted one.
    for order in (ways, ways[::-1]):
        trial = make_trial(INVOICE, STORM, copies=len(ways))
        found = judged(trial, several(write_history, *order))
        assert (found.injection, found.verdict) == ("witnessed", worst)
        count = len(ways) if worst == "correct" else 1
        assert found.reason.startswith(f"{count} of {len(ways)} workflows: ")


def test_an_effect_of_one_run_is_none_of_another(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    events = several(write_history, "correct", "missing")
    trial = make_trial(INVOICE, STORM, copies=2)
    assert judged(trial, events).reason.startswith("1 of 2 workflows: missing effect of mail.send")


def test_a_run_that_never_began_is_lost(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, STORM, copies=3)
    assert judged(trial, several(write_history, "correct", "correct")).verdict == "lost"


def test_the_checker_is_pure(write_history: WriteHistory, make_trial: MakeTrial) -> None:
    workflow: Workflow = WORKFLOWS[REFUND]
    events = stale(write_history(REFUND), "partly_refunded").ends().closed()
    before = repr(events), repr(workflow.truth), repr(workflow.drifts)
    trial = drifting(make_trial)
    assert check(workflow, trial, events) == check(workflow, trial, tuple(events))
    assert (repr(events), repr(workflow.truth), repr(workflow.drifts)) == before
