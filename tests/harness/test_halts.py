"""Halts, each kind justified and needless, on hand-written histories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kintsugi.golden_workflows.spec import load_workflow, load_workflows
from kintsugi.harness.halts import judge_halts
from kintsugi.harness.history import of

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, WriteHistory

WORKFLOWS = load_workflows()
STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")
INVOICE = "finance/invoice_payment"
EXPORT = "data/subject_access_export"
POLICY = WORKFLOWS[INVOICE].policy


def verdicts(run: HandWritten) -> list[tuple[bool, str]]:
    """Whether each halt is justified, and why."""
    return [(halt.justified, halt.why) for halt in judge_halts(run.workflow, run.drift, run.events)]


@pytest.fixture
def before_the_mail(write_history: WriteHistory) -> HandWritten:
    """A run that has yet to send its mail: a write by an opaque tool."""
    return write_history(INVOICE).starts().goes_on(until="tell")


@pytest.fixture
def before_the_payment(write_history: WriteHistory) -> HandWritten:
    """A run that has yet to pay: a write by a tool that takes a key."""
    return write_history(INVOICE).starts().goes_on(until="pay")


def test_an_approval_is_no_halt(write_history: WriteHistory) -> None:
    assert verdicts(write_history(INVOICE).is_correct()) == []


# --- in doubt -----------------------------------------------------------------------------------------------

OPAQUE = (True, "mail.send is opaque, and a call of it was never answered")
ANSWERED = (False, "every call of mail.send was answered")


def test_an_opaque_call_without_an_answer_is_in_doubt(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.takes_effect(run.calls("tell"))
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE]


def test_so_is_one_whose_answer_did_not_arrive(before_the_mail: HandWritten) -> None:
    before_the_mail.answered(before_the_mail.calls("tell"), told=False)
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [OPAQUE]


def test_so_is_one_that_was_answered_500_as_that_does_not_tell(before_the_mail: HandWritten) -> None:
    before_the_mail.answered(before_the_mail.calls("tell"), 500)
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [OPAQUE]


def test_so_is_one_of_two_calls(before_the_mail: HandWritten) -> None:
    before_the_mail.answered(before_the_mail.calls("tell"))
    before_the_mail.calls("tell")
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [OPAQUE]


def test_an_answer_right_after_which_the_worker_was_killed_may_not_have_been_read(before_the_mail: HandWritten) -> None:
    before_the_mail.does("tell")
    (answer,) = of(before_the_mail.events, "world", "answer")[-1:]
    before_the_mail.struck(after=answer["request"]).dies().halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [OPAQUE]


def test_an_answer_that_came_while_the_disk_was_full_could_not_be_kept(before_the_mail: HandWritten) -> None:
    before_the_mail.add("nemesis", "filled", strike=0)
    before_the_mail.does("tell")
    before_the_mail.dies().halts("in_doubt", "tell")
    before_the_mail.add("nemesis", "freed", strike=0)
    assert verdicts(before_the_mail) == [OPAQUE]


@pytest.mark.parametrize(("of_another_run", "long_before"), [(True, False), (True, True), (False, False)])
def test_an_answer_that_came_as_another_run_brought_the_worker_down_may_not_have_been_read(
    of_another_run: bool, long_before: bool, before_the_mail: HandWritten
) -> None:
    run = before_the_mail
    called = run.calls("tell")
    run.answered(called)
    for _ in range(20 * long_before):
        run.add("runner", "time passes")
    request = 99 if of_another_run else called["request"]
    run.add("nemesis", "injected", strike=0, is_="poison_workflow.one_node@tool:order[0]#1@before", request=request)
    run.add("nemesis", "witnessed", strike=0, evidence="reaped", generation=1, pid=41)
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE if of_another_run and not long_before else ANSWERED]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nor_one_that_came_before_or_while_it_died_however_long_that_was_not_seen(
    when: str, before_the_mail: HandWritten
) -> None:
    """The harness hears of a death late where the machine is slow."""
    run = before_the_mail
    called = run.calls("tell")
    if when == "before":
        run.answered(called)
    run.add("nemesis", "injected", strike=0, is_="poison_workflow.one_node@tool:order[0]#1@before", request=99)
    if when == "meanwhile":
        run.answered(called)
    for _ in range(20):
        run.add("runner", "time passes")
    run.add("nemesis", "witnessed", strike=0, evidence="reaped", request=99, generation=1, pid=41)
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE]


@pytest.mark.parametrize(("first", "verdict"), [(99, OPAQUE), (98, ANSWERED)])
def test_of_two_deaths_that_overlap_each_is_of_its_own_strike(
    first: int, verdict: tuple[bool, str], before_the_mail: HandWritten
) -> None:
    """Whose worker died of the later strike read its answer long before that."""
    run = before_the_mail.does("tell")
    poison = "poison_workflow.two_nodes@tool:order[0]#1@before"
    for request in (99, 98):
        run.add("nemesis", "injected", strike=0, is_=poison, request=request)
        for _ in range(20):
            run.add("runner", "time passes")
    run.add("nemesis", "witnessed", strike=0, evidence="reaped", request=first, generation=1, pid=41)
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [verdict]


# --- in doubt, in a parallel group --------------------------------------------------------------------------

DOCK = (True, "depot.book_dock is opaque, and a call of it was never answered")
DOCK_ANSWERED = (False, "every call of depot.book_dock was answered")


@pytest.fixture
def in_a_group(write_history: WriteHistory) -> HandWritten:
    """A run that is about to book a dock, print labels and tell the drivers, all at once."""
    return write_history(STOCKTAKE).starts().goes_on(until="dock")


def brought_down(run: HandWritten, request: int, how: str = "witnessed") -> HandWritten:
    """Its worker is killed (``witnessed``) or ``stopped`` as it makes a request."""
    run.add("nemesis", "injected", strike=0, is_="worker_kill.at_boundary@tool:tell[0]#1@before", request=request)
    run.add("nemesis", how, strike=0, evidence="seen", generation=run.generation, pid=41)
    return run.dies()


@pytest.mark.parametrize("how", ["witnessed", "stopped"])
@pytest.mark.parametrize("answered", [True, False])
def test_a_call_is_in_doubt_whose_worker_was_brought_down_beside_it(
    how: str, answered: bool, in_a_group: HandWritten
) -> None:
    run = in_a_group
    dock, tell = run.calls("dock"), run.calls("tell")
    run.takes_effect(dock)
    if answered:
        run.answered(dock)
    brought_down(run, tell["request"], how).halts("in_doubt", "dock")
    assert verdicts(run) == [DOCK]


def test_one_that_had_been_answered_long_before_is_not(in_a_group: HandWritten) -> None:
    run = in_a_group.does("dock")
    for _ in range(20):
        run.add("runner", "time passes")
    brought_down(run, run.calls("tell")["request"]).halts("in_doubt", "dock")
    assert verdicts(run) == [DOCK_ANSWERED]


def test_nor_is_one_whose_worker_was_brought_down_by_a_step_after_the_group(in_a_group: HandWritten) -> None:
    run = in_a_group.does("dock").does("labels").does("tell")
    brought_down(run, run.calls("close")["request"]).halts("in_doubt", "dock")
    assert verdicts(run) == [DOCK_ANSWERED]


def test_nor_is_one_of_a_later_worker(in_a_group: HandWritten) -> None:
    run = brought_down(in_a_group, in_a_group.calls("tell")["request"]).does("dock")
    run.halts("in_doubt", "dock")
    assert verdicts(run) == [DOCK_ANSWERED]


def test_a_call_that_had_not_left_yet_may_be_in_doubt_too(in_a_group: HandWritten) -> None:
    run = brought_down(in_a_group, in_a_group.calls("tell")["request"])
    run.halts("in_doubt", "dock")
    why = "depot.book_dock is opaque, and its worker was brought down in the midst of its parallel group"
    assert verdicts(run) == [(True, why)]


def test_a_call_of_no_group_that_was_never_made_is_not(in_a_group: HandWritten) -> None:
    run = in_a_group
    run.add("nemesis", "injected", strike=0, is_="worker_kill.at_boundary@tool:count[0]#1@before", request=1)
    run.add("nemesis", "witnessed", strike=0, evidence="seen", generation=1, pid=41)
    run.dies().halts("in_doubt", "dock")
    assert verdicts(run) == [(False, "depot.book_dock was never called")]


# --- in doubt, while it could not be told -------------------------------------------------------------------


def test_one_that_came_before_or_after_that_could_be(before_the_mail: HandWritten) -> None:
    before_the_mail.add("nemesis", "filled", strike=0)
    before_the_mail.add("nemesis", "freed", strike=0)
    before_the_mail.does("tell")
    before_the_mail.add("nemesis", "filled", strike=1)
    before_the_mail.dies().halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


def test_an_answer_long_before_a_kill_was_once_taken_for_unread(before_the_mail: HandWritten) -> None:
    before_the_mail.does("tell").struck().dies().halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


def test_a_call_that_had_left_when_its_worker_was_killed_was_issued(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    arguments = dict(run.visit("tell").call.arguments)
    run.add("doors", "request_of_the_dead", run=run.run, generation=1, tool="mail.send", arguments=arguments)
    run.halts("in_doubt", "tell")
    assert [justified for justified, _ in verdicts(run)] == [True]


def test_an_answer_to_a_worker_that_lived_on_was_heard(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.does("tell").asks_model("match").dies().halts("in_doubt", "tell")
    assert verdicts(run) == [ANSWERED]


def test_a_worker_that_died_before_it_did_anything_has_heard_nothing_and_missed_nothing(
    before_the_mail: HandWritten,
) -> None:
    before_the_mail.does("tell").asks_model("match").dies().dies().halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


def test_an_answer_to_a_worker_that_then_asks_is_heard(before_the_mail: HandWritten) -> None:
    before_the_mail.does("tell").halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


def test_a_call_that_was_refused_leaves_no_doubt(before_the_mail: HandWritten) -> None:
    before_the_mail.answered(before_the_mail.calls("tell"), 422)
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


def test_a_call_that_was_never_made_leaves_no_doubt(before_the_mail: HandWritten) -> None:
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [(False, "mail.send was never called")]


def test_a_call_that_comes_only_after_the_halt_does_not_justify_it(before_the_mail: HandWritten) -> None:
    before_the_mail.halts("in_doubt", "tell")
    before_the_mail.calls("tell")
    assert verdicts(before_the_mail) == [(False, "mail.send was never called")]


@pytest.mark.parametrize(("early", "swallowed", "right"), [(True, 449, True), (True, 0, False), (False, 449, False)])
def test_a_call_may_have_gone_into_a_connection_that_was_closed_at_the_other_end(
    before_the_mail: HandWritten, early: bool, swallowed: int, right: bool
) -> None:
    run = before_the_mail
    if early:
        run.add("nemesis", "half_open", strike=0)
    run.halts("in_doubt", "tell")
    if not early:
        run.add("nemesis", "half_open", strike=0)
    run.add("nemesis", "witnessed", strike=0, evidence="bytes", swallowed_bytes=swallowed)
    ((justified, why),) = verdicts(run)
    assert justified == right
    assert why.startswith("mail.send is opaque, and a request had gone into" if right else "mail.send was never called")


def half_open(run: HandWritten, *, strike: int = 0) -> None:
    """A connection was closed at its service's end, and a request went into it."""
    run.add("nemesis", "half_open", strike=strike)
    run.add("nemesis", "witnessed", strike=strike, evidence="bytes", swallowed_bytes=300)


def test_a_connection_swallows_no_call_after_which_the_run_went_on(write_history: WriteHistory) -> None:
    """One that was closed early on excused a halt about any opaque call later in the run."""
    run = write_history(INVOICE).starts().does("invoice")
    half_open(run)
    run.goes_on("order", until="tell").halts("in_doubt", "tell")
    assert verdicts(run) == [(False, "mail.send was never called")]


def test_what_is_read_again_is_no_going_on(before_the_mail: HandWritten) -> None:
    half_open(before_the_mail)
    before_the_mail.does_each("invoice", "order")
    before_the_mail.halts("in_doubt", "tell")
    assert [justified for justified, _ in verdicts(before_the_mail)] == [True]


def test_a_connection_swallows_one_request(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    half_open(run)
    first = run.halts("in_doubt", "tell")
    run.halts("in_doubt", "tell")
    run.halts("in_doubt", "tell", arguments={"to": "someone@else.example"})
    assert [justified for justified, _ in verdicts(run)] == [True, True, False]
    run.decides(first, "not_happened").halts("in_doubt", "tell")
    assert verdicts(run)[3] == (False, "mail.send was not called since a person had said what came of it")
    half_open(run, strike=1)
    run.halts("in_doubt", "tell")
    assert [justified for justified, _ in verdicts(run)] == [True, True, False, False, True]


def test_another_call_of_the_tool_does_not_justify_it(before_the_mail: HandWritten) -> None:
    before_the_mail.calls("tell", to="someone@else.example")
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [(False, "mail.send was never called")]


@pytest.mark.parametrize(("step", "tool", "kind"), [("pay", "bank.pay", "key"), ("note", "erp.post_note", "lookup")])
def test_a_tool_that_can_be_repeated_or_looked_up_leaves_no_doubt(
    step: str, tool: str, kind: str, write_history: WriteHistory
) -> None:
    run = write_history(INVOICE).starts().goes_on(until=step)
    run.calls(step)
    run.dies().halts("in_doubt", step)
    assert verdicts(run) == [(False, f"{tool} can be repeated safely (idempotency {kind!r})")]


def test_a_read_leaves_no_doubt(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts()
    run.calls("invoice")
    run.dies().halts("in_doubt", "invoice")
    run.asks_person("in_doubt", "pay")
    run.asks_person("in_doubt", "pay", tool="no.such")
    assert verdicts(run) == [(False, "it concerns no write")] * 3


def tampered(run: HandWritten, step: str, breaks: str) -> None:
    """A call whose answer is not what was found."""
    named = run.calls(step)
    run.add("world", "tampered", request=named["request"], run=run.run, how="loses_field", breaks=breaks)
    run.answered(named)


def test_so_is_one_whose_answer_breaks_what_its_tool_declares(before_the_mail: HandWritten) -> None:
    tampered(before_the_mail, "tell", "the value: 'message_id' is a required property")
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [(True, "mail.send is opaque, and an answer of it broke what it declares")]


def test_an_answer_that_only_holds_more_is_an_answer(before_the_mail: HandWritten) -> None:
    tampered(before_the_mail, "tell", "")
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [ANSWERED]


SETTLED = (False, "mail.send was not called since a person had said what came of it")


@pytest.mark.parametrize(("kind", "decision"), [("in_doubt", "happened"), ("budget", "not_happened")])
def test_what_a_person_had_settled_could_once_be_asked_again_for_ever(
    kind: str, decision: str, before_the_mail: HandWritten
) -> None:
    run = before_the_mail
    run.takes_effect(run.calls("tell"))
    run.dies().decides(run.halts(kind, "tell"), decision)
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run)[1] == SETTLED


def test_a_call_that_was_made_again_is_in_doubt_again(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.calls("tell")
    question = run.dies().halts("in_doubt", "tell")
    run.decides(question, "not_happened").calls("tell")
    # Who polls may be told the same once more.
    run.dies().add("human", "delivered", run=run.run, question=question, kind="in_doubt", step="tell")
    run.halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE, OPAQUE]


def test_a_decision_may_be_acted_on_before_it_is_acknowledged(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.calls("tell")
    question = run.dies().halts("in_doubt", "tell")
    run.decides(question, "not_happened")
    acknowledged = run.events.pop()
    run.calls("tell")
    run.add("human", "delivered", **{key: acknowledged[key] for key in ("run", "question", "kind", "step")})
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE, OPAQUE]


def test_what_a_person_said_and_nobody_heard_settles_nothing(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.calls("tell")
    run.dies().decides(run.halts("in_doubt", "tell"), "happened")
    del run.events[-1]
    run.halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE, OPAQUE]


def test_an_answer_about_another_call_settles_nothing(before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.calls("tell")
    run.calls("tell", to="someone@else.example")
    other = {**run.visit("tell").call.arguments, "to": "someone@else.example"}
    run.dies().decides(run.halts("in_doubt", "tell", arguments=other), "happened")
    run.halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE, OPAQUE]


@pytest.mark.parametrize("why", ["full", "killed"])
def test_what_could_not_be_kept_may_be_asked_again(why: str, before_the_mail: HandWritten) -> None:
    run = before_the_mail
    run.calls("tell")
    question = run.dies().halts("in_doubt", "tell")
    if why == "full":
        run.add("nemesis", "filled", strike=0)
        run.decides(question, "happened").add("nemesis", "freed", strike=0)
    else:
        run.add("runner", "submitted", runs=5)
        run.decides(question, "happened").add("nemesis", "witnessed", strike=0, evidence="", generation=2, pid=41)
    run.dies().halts("in_doubt", "tell")
    assert verdicts(run) == [OPAQUE, OPAQUE]


# --- budgets ------------------------------------------------------------------------------------------------


def spent(run: HandWritten, tries: int, status: int = 503) -> None:
    for _ in range(tries):
        run.answered(run.calls("pay"), status)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_budget_of_tries_is_spent_when_the_last_of_them_failed(status: int, before_the_payment: HandWritten) -> None:
    spent(before_the_payment, POLICY.attempts - 1, status)
    before_the_payment.halts("budget", "pay")
    spent(before_the_payment, 1, status)
    before_the_payment.halts("budget", "pay")
    assert verdicts(before_the_payment) == [
        (False, "only 5 tries of bank.pay had come to nothing, the budget is 6"),
        (True, "6 tries of bank.pay came to nothing, the budget is 6"),
    ]


@pytest.mark.parametrize(("breaks", "justified"), [("the value: empty", True), ("", False)])
def test_a_try_whose_answer_can_t_be_believed_came_to_nothing(
    breaks: str, justified: bool, before_the_payment: HandWritten
) -> None:
    for _ in range(POLICY.attempts):
        tampered(before_the_payment, "pay", breaks)
    before_the_payment.halts("budget", "pay")
    assert [halt for halt, _ in verdicts(before_the_payment)] == [justified]


def test_a_try_that_came_sooner_than_it_was_told_to_is_none(before_the_payment: HandWritten) -> None:
    run = before_the_payment
    spent(run, 1, 429)
    for _ in range(POLICY.attempts):
        named = run.calls("pay")
        run.add("nemesis", "too_soon", request=named["request"], run=run.run, seconds=3.5)
        run.answered(named, 429)
    run.halts("budget", "pay")
    assert verdicts(run) == [(False, "only 1 tries of bank.pay had come to nothing, the budget is 6")]


def test_tries_without_any_answer_count(before_the_payment: HandWritten) -> None:
    for _ in range(POLICY.attempts - 1):
        before_the_payment.calls("pay")
    before_the_payment.answered(before_the_payment.calls("pay"), told=False)
    before_the_payment.halts("budget", "pay")
    assert [justified for justified, _ in verdicts(before_the_payment)] == [True]


@pytest.mark.parametrize("status", [200, 404, 409, 412, 422])
def test_an_answer_that_can_be_used_is_no_failed_try(status: int, before_the_payment: HandWritten) -> None:
    spent(before_the_payment, POLICY.attempts, status)
    before_the_payment.halts("budget", "pay")
    assert [justified for justified, _ in verdicts(before_the_payment)] == [False]


def test_tries_of_another_call_do_not_count(before_the_payment: HandWritten) -> None:
    spent(before_the_payment, POLICY.attempts)
    before_the_payment.halts("budget", "note")
    before_the_payment.halts("budget", "pay", arguments={"vendor_id": "V-1"})
    assert [justified for justified, _ in verdicts(before_the_payment)] == [False, False]


def test_after_a_person_stepped_in_a_budget_was_once_still_spent(before_the_payment: HandWritten) -> None:
    run = before_the_payment
    spent(run, POLICY.attempts)
    run.decides(run.halts("budget", "pay"), "not_happened")
    spent(run, 1)
    run.halts("budget", "pay")
    assert [justified for justified, _ in verdicts(run)] == [True, False]


def test_an_answer_of_a_person_to_something_else_gives_no_new_budget(before_the_payment: HandWritten) -> None:
    run = before_the_payment
    spent(run, POLICY.attempts - 1)
    run.approval("pay").decides(run.halts("verify", "pay"), "continue").decides(run.halts("budget", "note"), "continue")
    spent(run, 1)
    run.halts("budget", "pay")
    assert [justified for justified, _ in verdicts(run)] == [False, False, True]


def ramble(run: HandWritten, asks: int, *, answered: bool = True) -> None:
    for _ in range(asks):
        run.asks_model("match", damaged=True, answered=answered, says="Let me think.")


@pytest.fixture
def before_the_match(write_history: WriteHistory) -> HandWritten:
    """A run whose model has yet to be asked."""
    return write_history(INVOICE).starts().goes_on(until="match")


def test_a_budget_of_malformed_replies(before_the_match: HandWritten) -> None:
    ramble(before_the_match, POLICY.malformed_attempts - 1)
    before_the_match.asks_person("budget", "match")
    ramble(before_the_match, 1)
    before_the_match.asks_person("budget", "match")
    assert verdicts(before_the_match) == [
        (False, "only 3 replies of the model had come to nothing, the budget is 4"),
        (True, "4 replies of the model came to nothing, the budget is 4"),
    ]


def test_one_malformed_reply_is_no_spent_budget(before_the_match: HandWritten) -> None:
    ramble(before_the_match, 1)
    before_the_match.asks_person("budget", "match")
    assert verdicts(before_the_match) == [(False, "only 1 replies of the model had come to nothing, the budget is 4")]


def test_asks_without_an_answer_have_a_budget_of_their_own(before_the_match: HandWritten) -> None:
    ramble(before_the_match, POLICY.malformed_attempts, answered=False)
    before_the_match.asks_person("budget", "match")
    ramble(before_the_match, POLICY.attempts - POLICY.malformed_attempts, answered=False)
    before_the_match.asks_person("budget", "match")
    assert [justified for justified, _ in verdicts(before_the_match)] == [False, True]


def test_malformed_replies_here_and_there_were_once_added_up(write_history: WriteHistory) -> None:
    run = write_history("research/literature_review").starts()
    for step in ("screen", "synthesis"):
        for _ in range(POLICY.malformed_attempts - 2):
            run.asks_model(step, damaged=True, says="Hm.")
        run.asks_model(step)
    run.asks_model("synthesis", damaged=True, says="Hm.").asks_person("budget", "synthesis")
    assert [justified for justified, _ in verdicts(run)] == [False]


def test_a_reply_that_did_not_arrive_is_no_good_one(before_the_match: HandWritten) -> None:
    run = before_the_match
    for _ in range(POLICY.attempts):
        run.asks_model("match")
        run.events[-1] = {**run.events[-1], "delivered": False}
    run.asks_person("budget", "match")
    assert [justified for justified, _ in verdicts(run)] == [True]


def test_the_budget_of_model_calls_of_a_whole_run(before_the_match: HandWritten) -> None:
    for _ in range(POLICY.model_calls_max - 1):
        before_the_match.asks_model("match")
    before_the_match.asks_person("budget", "unplanned")
    before_the_match.asks_model("match").asks_person("budget", "unplanned")
    assert [justified for justified, _ in verdicts(before_the_match)] == [False, True]


def test_a_budget_of_which_nothing_was_used_is_not_spent(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts()
    run.asks_person("budget", "match")
    run.halts("budget", "invoice")
    assert [justified for justified, _ in verdicts(run)] == [False, False]


# --- stale, and the rest ------------------------------------------------------------------------------------


def test_a_drift_that_is_to_be_flagged(write_history: WriteHistory) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export").moves_on("legal_hold")
    run.asks_person("stale", "export")
    assert verdicts(run) == [(True, "the drift is to be flagged")]


def test_a_drift_that_is_to_be_refreshed(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay").moves_on("corrected_amount")
    run.asks_person("stale", "pay")
    assert verdicts(run) == [(False, "nothing changed that is to be flagged")]


def test_a_flag_without_a_drift_and_one_before_it(write_history: WriteHistory) -> None:
    run = write_history(EXPORT).starts().goes_on(until="export")
    run.asks_person("stale", "export")
    assert [justified for justified, _ in verdicts(run)] == [False]
    run.moves_on("legal_hold").asks_person("stale", "export")
    assert [justified for justified, _ in verdicts(run)] == [False, True]


@pytest.mark.parametrize("kind", ["verify", "", "None", "unheard_of"])
def test_any_other_halt_is_needless(kind: str, write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts()
    run.asks_person(kind, "pay")
    assert verdicts(run) == [(False, f"the workflow asks for no {kind}")]


# --- a node that is cut off ---------------------------------------------------------------------------------


def kept(run: HandWritten, step: str, times: int) -> None:
    """Requests of the run's node are kept from their service, or (no step) from the model."""
    call = run.visit(step).call if step else None
    tool = call.tool if call else "/v1/chat/completions"
    for _ in range(times):
        arguments = dict(call.arguments) if call else {"messages": []}
        run.add("doors", "cut_off", run=run.run, generation=1, tool=tool, arguments=arguments)


def test_tries_that_never_reached_their_service_count(before_the_payment: HandWritten) -> None:
    before_the_payment.calls("pay")
    kept(before_the_payment, "pay", 4)
    before_the_payment.halts("budget", "pay")
    kept(before_the_payment, "pay", 1)
    before_the_payment.halts("budget", "pay")
    assert verdicts(before_the_payment) == [
        (False, "only 5 tries of bank.pay had come to nothing, the budget is 6"),
        (True, "6 tries of bank.pay came to nothing, the budget is 6"),
    ]


def test_so_do_those_of_the_model_since_it_last_answered(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="match")
    kept(run, "", 6)
    run.asks_model("match")
    kept(run, "", 5)
    run.halts("budget", "pay", tool="")
    kept(run, "", 1)
    run.halts("budget", "pay", tool="")
    assert [justified for justified, _ in verdicts(run)] == [False, True]


def test_an_opaque_call_that_was_kept_from_its_service_is_in_doubt(before_the_mail: HandWritten) -> None:
    kept(before_the_mail, "tell", 1)
    before_the_mail.halts("in_doubt", "tell")
    assert verdicts(before_the_mail) == [(True, "mail.send is opaque, and its worker's node was cut off")]


@pytest.mark.parametrize(("generation", "unseen"), [(1, True), (1, False), (2, True)])
def test_what_a_node_without_a_network_tries_is_seen_by_nobody(
    before_the_payment: HandWritten, generation: int, unseen: bool
) -> None:
    run = before_the_payment
    run.add("nemesis", "cut_off", strike=0, generation=generation, pid=41, evidence="", unseen=unseen)
    run.add("nemesis", "healed", strike=0, generation=generation, pid=41, evidence="")
    run.halts("budget", "pay")
    assert [justified for justified, _ in verdicts(run)] == [generation == 1 and unseen]
