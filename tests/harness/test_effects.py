"""Effects against the truth: every way to leave the truth of every shipped workflow is noticed, by its name."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.golden_workflows.chains.naive import APPROVAL_FUNCTION
from kintsugi.golden_workflows.plan import places
from kintsugi.golden_workflows.spec import load_workflow, load_workflows
from kintsugi.harness.checker import check
from kintsugi.harness.effects import (
    Anew,
    Said,
    Wrong,
    expected_effects,
    missing_effects,
    prose_of,
    said_anew,
    wrong_effects,
)
from kintsugi.harness.history import of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.harness.conftest import HandWritten, MakeTrial, WriteHistory

    from kintsugi.harness.history import Event

WORKFLOWS = load_workflows()
INVOICE = WORKFLOWS["finance/invoice_payment"]
LEADS = WORKFLOWS["marketing/lead_follow_up"]
EXPORT = WORKFLOWS["data/subject_access_export"]
STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")


def wrongs(name: str, events: Sequence[Event], drifted: str | None = None) -> list[Wrong]:
    workflow = WORKFLOWS[name]
    expected = expected_effects(workflow, drifted, events)
    return list(wrong_effects(workflow, drifted, expected, of(events, "world", "effect"), prose_of(events)))


# --- mutations of a correct history -------------------------------------------------------------------------


@cache
def reference(write_history: WriteHistory, name: str) -> list[Event]:
    return write_history(name).is_correct().closed()


def positions(events: Sequence[Event]) -> list[int]:
    """Where the effects are."""
    return [at for at, event in enumerate(events) if (event["who"], event["what"]) == ("world", "effect")]


def altered(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "X-1"]
    if isinstance(value, dict):
        return {**value, "more": 1}
    return f"{value}." if value is not None else "X-1"


def left_out(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    at = positions(events)[draw(len(positions(events)))]
    return events[:at] + events[at + 1 :]


def doubled(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    """One effect again, at once, later, or after all others."""
    found = positions(events)
    first = draw(len(found))
    later = first + draw(len(found) - first)
    again = {**events[found[first]], "request": 900}
    return [*events[: found[later] + 1], again, *events[found[later] + 1 :]]


def reordered(name: str, events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    """Two effects of different steps change places, but none within a parallel group."""
    found, place = positions(events), places(WORKFLOWS[name].plan)
    pairs = [(a, b) for a in found for b in found if a < b and place[events[a]["step"]] != place[events[b]["step"]]]
    a, b = pairs[draw(len(pairs))]
    swapped = list(events)
    swapped[a], swapped[b] = events[b], events[a]
    return swapped


def with_another_argument(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    found = positions(events)
    at = found[draw(len(found))]
    arguments = events[at]["arguments"]
    name = sorted(arguments)[draw(len(arguments))]
    changed = {**events[at], "arguments": {**arguments, name: altered(arguments[name])}}
    return [*events[:at], changed, *events[at + 1 :]]


def with_one_argument_less(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    found = positions(events)
    at = found[draw(len(found))]
    arguments = dict(events[at]["arguments"])
    del arguments[sorted(arguments)[draw(len(arguments))]]
    return [*events[:at], {**events[at], "arguments": arguments}, *events[at + 1 :]]


def of_another_tool(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    found = positions(events)
    at = found[draw(len(found))]
    return [*events[:at], {**events[at], "tool": "other.tool"}, *events[at + 1 :]]


def unsafe(events: list[Event], draw: Callable[[int], int]) -> list[Event]:
    found = positions(events)
    at = found[draw(len(found))]
    return [*events[:at], {**events[at], "unsafe": "no approval"}, *events[at + 1 :]]


def mutations(name: str) -> list[Callable[..., list[Event]]]:
    others = [left_out, doubled, with_another_argument, with_one_argument_less, of_another_tool, unsafe]
    return [*others, partial(reordered, name)]


@pytest.mark.parametrize("name", WORKFLOWS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_mutation_of_the_writes_is_ever_correct(
    name: str, write_history: WriteHistory, make_trial: MakeTrial, data: st.DataObject
) -> None:
    events = reference(write_history, name)
    trial = make_trial(name)
    assert check(WORKFLOWS[name], trial, events).verdict == "correct"
    mutate = data.draw(st.sampled_from(mutations(name)))
    mutated = mutate(events, lambda choices: data.draw(st.integers(0, choices - 1)))
    assert mutated != events
    assert check(WORKFLOWS[name], trial, mutated).verdict == "corrupted"


@pytest.mark.parametrize("name", WORKFLOWS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_each_mutation_is_called_by_its_name(name: str, write_history: WriteHistory, data: st.DataObject) -> None:
    events = reference(write_history, name)

    def draw(choices: int) -> int:
        return data.draw(st.integers(0, choices - 1))

    def kinds(mutated: list[Event]) -> set[str]:
        return {wrong.what for wrong in wrongs(name, mutated)}

    assert kinds(doubled(events, draw)) == {"duplicate"}
    assert kinds(reordered(name, events, draw)) == {"out of order"}
    assert "wrong arguments" in kinds(with_another_argument(events, draw))
    assert "unauthorised" in kinds(unsafe(events, draw))
    assert kinds(left_out(events, draw)) == set()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_reference_of_a_drift_is_right_under_it_and_wrong_without(name: str, write_history: WriteHistory) -> None:
    for drift in WORKFLOWS[name].drifts.values():
        run = write_history(name).moves_on(drift.name).is_correct()
        if drift.outcome == "refresh":
            assert wrongs(name, run.events, drift.name) == []
            found = of(run.events, "world", "effect")
            assert missing_effects(WORKFLOWS[name], drift.effects, found) == []
        seed = of(run.events, "world", "effect")
        assert wrongs(name, run.events) or missing_effects(WORKFLOWS[name], WORKFLOWS[name].truth.effects, seed)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_seeds_effects_under_a_drift_are_stale_or_not_enough(name: str, write_history: WriteHistory) -> None:
    for drift in WORKFLOWS[name].drifts.values():
        run = write_history(name).is_correct()
        events = [*run.events, {"t": 0.0, "who": "world", "what": "drift", "record": drift.record}]
        found = {wrong.what for wrong in wrongs(name, events, drift.name)}
        missing = missing_effects(WORKFLOWS[name], drift.effects, of(events, "world", "effect"))
        assert "stale" in found or (not found and missing)
        assert found <= {"stale", "out of order"}


# --- what is expected ---------------------------------------------------------------------------------------


def decided(decision: str, step: str = "pay", item: int = 0) -> list[Event]:
    asked = {"t": 1.0, "who": "human", "what": "asked", "question": "q", "kind": "approval", "item": item}
    answer = {"t": 2.0, "who": "human", "what": "decided", "question": "q", "kind": "approval", "step": step}
    return [asked, {**answer, "decision": decision}]


def test_an_approval_changes_nothing_in_what_is_expected() -> None:
    assert expected_effects(INVOICE, None, []) == INVOICE.truth.effects
    assert expected_effects(INVOICE, None, decided("approve")) == INVOICE.truth.effects


@pytest.mark.parametrize("decision", ["reject", "expire"])
def test_a_refusal_leaves_what_the_truth_says(decision: str) -> None:
    assert expected_effects(INVOICE, None, decided(decision)) == []
    backfill = WORKFLOWS["data/partition_backfill"]
    kept = expected_effects(backfill, None, decided(decision, "promote"))
    assert {effect.step for effect in kept} == {"rebuild"}
    assert len(kept) == 2


def test_the_answer_to_a_halt_is_no_refusal() -> None:
    events = [{**event, "kind": "stale"} for event in decided("reject")]
    assert expected_effects(INVOICE, None, events) == INVOICE.truth.effects


def test_a_refused_item_of_a_loop_keeps_the_items_before_it() -> None:
    kept = expected_effects(LEADS, None, decided("reject", "mail", item=2))
    assert [effect.args["to"] for effect in kept] == ["a.sorensen@fjordtex.example", "purchasing@casa-verde.example"]


def test_the_items_before_a_refused_one_are_those_of_its_own_step_and_question() -> None:
    other = {**decided("approve", "mail", item=2)[0], "question": "another"}
    kept = expected_effects(LEADS, None, [other, *decided("reject", "log", item=1)])
    assert [(effect.step, effect.args["lead_id"]) for effect in kept] == [("log", "L-1")]


# --- by name ------------------------------------------------------------------------------------------------


def test_a_parallel_group_has_its_effects_in_any_order_and_the_plan_keeps_its_own(write_history: WriteHistory) -> None:
    def found(*steps: str) -> list[tuple[str, str]]:
        run = write_history(STOCKTAKE).starts()
        for step in ("judge", *steps):
            if step == "judge":
                run.asks_model(step)
            else:
                run.does(step)
        effects = of(run.events, "world", "effect")
        wrong = wrong_effects(STOCKTAKE, None, STOCKTAKE.truth.effects, effects, prose_of(run.events))
        return [(each.what, each.step) for each in wrong]

    assert found("begin", "dock", "labels", "tell", "close") == []
    assert found("begin", "tell", "dock", "labels", "close") == []
    assert found("begin", "dock", "labels", "close", "tell") == [("out of order", "tell")]
    assert found("labels", "begin", "dock", "tell", "close") == [("out of order", "begin")]


def test_a_wrong_effect_names_tool_step_and_request() -> None:
    wrong = Wrong("duplicate", "pay", "bank.pay", 17)
    assert str(wrong) == "duplicate effect of bank.pay at step pay, request 17"
    assert str(Wrong("unauthorised", "pay", "bank.pay", 17, "no approval")).endswith("request 17 (no approval)")


def test_free_text_is_not_among_the_wrong_arguments_that_are_named(write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="note").does("note", status="held")
    assert [(wrong.what, wrong.detail) for wrong in wrongs(INVOICE.name, run.events)] == [("wrong arguments", "status")]


def test_under_a_drift_with_no_effects_left_acting_on_old_values_was_once_called_extra(
    write_history: WriteHistory,
) -> None:
    run = write_history(EXPORT.name).starts().goes_on(until="export").moves_on("legal_hold")
    run.drift = None
    run.does("export")
    assert [wrong.what for wrong in wrongs(EXPORT.name, run.events, "legal_hold")] == ["stale"]


def test_what_a_drift_leaves_right_and_a_person_refused_is_extra(write_history: WriteHistory) -> None:
    letters = "data/dead_letter_replay"
    run = write_history(letters).starts().goes_on(until="purge").moves_on("fix_rolled_back")
    run.approval("purge", "reject").does("purge")
    assert [wrong.what for wrong in wrongs(letters, run.events, "fix_rolled_back")] == ["extra"]


def test_an_unauthorised_effect_does_not_stand_in_for_the_right_one(write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay").does("pay", unsafe="no approval").goes_on("pay")
    assert [wrong.what for wrong in wrongs(INVOICE.name, run.events)] == ["unauthorised"]


def test_each_effect_is_matched_once(write_history: WriteHistory) -> None:
    run = write_history(LEADS.name).is_correct().does("mail", 0).does("mail", 0).does("log", 2)
    assert [wrong.what for wrong in wrongs(LEADS.name, run.events)] == ["duplicate"] * 3


# --- free text ----------------------------------------------------------------------------------------------


def reply(content: str | None, *, damaged: bool = False, **arguments: Any) -> Event:
    message: dict[str, Any] = {"content": content}
    if arguments:
        message["tool_calls"] = [{"function": {"name": "f", "arguments": json.dumps(arguments)}}]
    return {"t": 0.0, "who": "gateway", "what": "reply", "step": "s", "message": message, "damaged": damaged}


def test_prose_is_gathered_from_contents_answers_and_arguments() -> None:
    said = [
        reply("Plain words."),
        reply('{"a": "In an answer.", "b": [{"c": "Deep inside."}], "n": 3}'),
        reply(None, text="In a call.", arguments={"body": "To be approved."}),
        reply('"A string."'),
    ]
    assert prose_of(said) == [
        Said("Plain words.", ""),
        Said("In an answer.", "s.a"),
        Said("Deep inside.", "s.b"),
        Said("In a call.", "f(text)"),
        Said("To be approved.", "f(arguments)"),
        Said("A string.", ""),
    ]
    asked = reply(None, function="bank__pay", arguments={"note": "To be approved."})
    asked["message"]["tool_calls"][0]["function"]["name"] = APPROVAL_FUNCTION
    assert prose_of([asked]) == [Said("To be approved.", "bank__pay(note)")]


def test_what_a_fault_put_into_the_models_mouth_was_once_taken_for_its_words() -> None:
    assert prose_of([reply("Sure! I would now go ahead with the next step as planned.", damaged=True)]) == []
    assert prose_of([reply('{"note": "The amounts ag', damaged=True)]) == []
    # Twice the same call is damage too, and its words are the model's own.
    assert prose_of([reply(None, damaged=True, text="The amounts agree.")]) == [Said("The amounts agree.", "f(text)")]


def test_words_for_something_else_were_once_as_good_as_the_right_ones(write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="tell")
    note = of(run.events, "world", "effect")[-1]["arguments"]["text"]
    run.does("tell", body=note)
    assert [(wrong.what, wrong.step) for wrong in wrongs(INVOICE.name, run.events)] == [("wrong arguments", "tell")]


@pytest.mark.parametrize(
    "body", ["", "a", "Your invoice over 128400 EUR", "Your invoice. Best wishes. (B1)", "Payment of INV-1041 is done"]
)
def test_a_part_of_what_the_model_said_was_once_as_good_as_all_of_it(body: str, write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="tell").does("tell", body=body)
    (wrong,) = wrongs(INVOICE.name, run.events)
    assert (wrong.what, wrong.tool, wrong.step) == ("wrong arguments", "mail.send", "tell")
    assert wrong.detail == "body holds text that the model never gave"


@pytest.mark.parametrize("body", [None, 7, ["It is paid."], {"text": "It is paid."}])
def test_free_text_that_is_no_text_is_wrong(body: object, write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="tell").does("tell", body=body)
    assert [wrong.what for wrong in wrongs(INVOICE.name, run.events)] == ["wrong arguments"]


def test_an_earlier_wording_of_the_model_is_its_own_too(write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay")
    earlier = json.dumps({"note": "The amounts agree. Thank you. (K1)"})
    run.events.insert(3, {**reply(earlier), "step": "match"})
    run.approval("pay").does("pay").does("note", text="The amounts agree. Thank you. (K1)").does("tell")
    assert wrongs(INVOICE.name, run.events) == []


@pytest.mark.parametrize(("greeting", "found"), [("Dear all, ", []), ("", []), (None, ["wrong arguments"])])
def test_text_that_a_step_puts_together_holds_what_the_model_said(
    greeting: str | None, found: list[str], write_history: WriteHistory
) -> None:
    assert INVOICE.path is not None
    workflow = load_workflow(INVOICE.path)
    step = workflow.steps["tell"]
    workflow.steps["tell"] = step.model_copy(update={"args": {**step.args, "body": "= 'Dear all, ' ~ match.message"}})
    run = write_history(INVOICE.name).starts().goes_on(until="tell")
    said = run.visit("tell").call.arguments["body"]
    run.does("tell", body="Dear all, you are paid." if greeting is None else f"{greeting}{said}")
    actual = of(run.events, "world", "effect")
    wrong = wrong_effects(workflow, None, workflow.truth.effects, actual, prose_of(run.events))
    assert [each.what for each in wrong] == found


# --- words after a drift ------------------------------------------------------------------------------------


def after_the_drift(write_history: WriteHistory) -> HandWritten:
    """A run whose order was corrected while it waited, and that has read it again."""
    run = write_history(INVOICE.name).starts().goes_on(until="pay").moves_on("corrected_amount")
    return run.does("order")


def found_after(run: HandWritten) -> list[tuple[str, str]]:
    expected = expected_effects(INVOICE, "corrected_amount", run.events)
    actual, anew = of(run.events, "world", "effect"), said_anew(INVOICE, "corrected_amount", run.events)
    found = wrong_effects(INVOICE, "corrected_amount", expected, actual, prose_of(run.events), anew)
    return [(wrong.what, wrong.step) for wrong in found]


def test_words_that_rest_on_what_was_read_before_the_change_are_stale(write_history: WriteHistory) -> None:
    assert found_after(after_the_drift(write_history).does("note")) == [("stale", "note")]


def test_words_that_were_said_since_are_not(write_history: WriteHistory) -> None:
    assert found_after(after_the_drift(write_history).asks_model("match").does("note")) == []


def test_words_that_were_used_before_the_change_are_not_either(write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).starts().goes_on(until="pay")
    run.does("note", status="held").moves_on("corrected_amount")
    assert found_after(run) == []


def test_words_that_no_one_ever_said_are_made_up_rather_than_stale(write_history: WriteHistory) -> None:
    run = after_the_drift(write_history).asks_model("match").does("note", text="It is held.")
    assert found_after(run) == [("wrong arguments", "note")]


@pytest.mark.parametrize(("steps", "stale"), [({"match"}, ["stale", "stale"]), ({"other"}, []), (set(), [])])
def test_words_of_other_questions_stay_good(steps: set[str], stale: list[str], write_history: WriteHistory) -> None:
    run = write_history(INVOICE.name).is_correct()
    anew = Anew(0.0, frozenset(steps), [])
    actual = of(run.events, "world", "effect")
    found = wrong_effects(INVOICE, "corrected_amount", INVOICE.truth.effects, actual, prose_of(run.events), anew)
    assert [wrong.what for wrong in found] == stale


def test_only_the_questions_that_rest_on_the_record_are_to_be_asked_again(write_history: WriteHistory) -> None:
    assert said_anew(INVOICE, "corrected_amount", write_history(INVOICE.name).is_correct().events) is None
    review = WORKFLOWS["research/literature_review"]
    run = write_history(review.name).starts().goes_on(until="publish").moves_on("retracted_paper")
    anew = said_anew(review, "retracted_paper", run.events)
    assert anew is not None
    assert anew.steps == {"screen", "synthesis"}
    assert anew.prose == []
    assert anew.since == run.events[-1]["t"]
    unread = said_anew(review, "retracted_paper", [event for event in run.events if event["what"] != "read"])
    assert unread is not None
    assert unread.steps == frozenset()


@pytest.mark.parametrize(
    ("name", "drift", "asked_again"),
    [
        ("support/account_recovery", "owner_objects", set()),
        ("marketing/price_change", "smaller_cut", {"choose"}),
        ("operations/credential_rotation", "host_retired", {"choose"}),
        ("research/customer_survey", "smaller_budget", {"clean"}),
        ("support/subscription_cancellation", "leaves_later", {"settle"}),
    ],
)
def test_a_question_that_comes_to_the_same_need_not_be_asked_again(
    name: str, drift: str, asked_again: set[str], write_history: WriteHistory
) -> None:
    """Its old words were called stale, though nothing that it is asked by had changed."""
    run = write_history(name).starts().goes_on().moves_on(drift)
    anew = said_anew(run.workflow, drift, run.events)
    assert anew is not None
    assert anew.steps == asked_again
