"""The table of planted bugs, and when a bug counts as caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kintsugi.golden_workflows.chains import CHAINS, optimized
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.launcher import load
from kintsugi.harness.records import Human, Storm, TrialResult
from kintsugi.harness.selftest import BUGS, CORRECT, Bug, Sign, judged, needs, planned, seen, shown_here
from kintsugi.runtime import breaker, calls, context, minimal, model_call, tool_call, worker
from kintsugi.scenarios.planner import candidates
from kintsugi.scenarios.points import sites

MakeResult = Callable[..., TrialResult]

WORKFLOWS = load_workflows()
SIGNS = [(bug, sign) for bug in BUGS for sign in bug.signs]
SEED = 7

EVERY_BUG = {
    "forgets the last step on restart",
    "records the result before the effect",
    "no idempotency key",
    "new key on each retry",
    "retries an opaque tool blindly",
    "loses approvals on restart",
    "asks approval again",
    "acts on stale reads",
    "commits malformed output to state",
    "retries without backoff",
    "zombie commits after losing its lease",
    "dies silently",
    "reports success without doing the work",
    "swallows rejection",
    "believes whatever a tool answers",
    "goes by the wall clock",
    "does not sync its journal",
    "goes on when it can't record",
    "begins a run anew that is submitted again",
    "forgets a pause on restart",
    "knows its steps by their position",
}

# --- the table ----------------------------------------------------------------------------------------------


def test_every_bug_of_the_catalogue_is_planted_once() -> None:
    assert {bug.what for bug in BUGS} == EVERY_BUG
    assert len(BUGS) == len(EVERY_BUG)
    assert sorted(bug.sut for bug in BUGS) == sorted(PLANTED)
    assert all(bug.signs for bug in BUGS)


def test_a_planted_sut_is_the_runtime_but_for_one_thing_and_no_sut_of_a_suite() -> None:
    right = ADAPTERS[CORRECT]
    for name, adapter in PLANTED.items():
        assert name not in ADAPTERS
        assert (adapter.side != right.side) + (adapter.chains != right.chains) == 1
        same = replace(adapter, name=right.name, about=right.about, side=right.side, chains=right.chains)
        assert same == right


def test_loading_the_planted_suts_breaks_nothing_for_others() -> None:
    modules = (breaker, calls, context, minimal, model_call, tool_call, worker, optimized)
    before = [dict(vars(module)) for module in modules]
    chains = dict(CHAINS)
    for adapter in PLANTED.values():
        side, table = load(adapter.side, adapter.chains)
        assert all(callable(getattr(side, verb)) for verb in ("provision", "submit", "decide", "status", "work"))
        assert "optimized" in table
    assert [dict(vars(module)) for module in modules] == before
    assert chains == CHAINS


@pytest.mark.parametrize(("bug", "sign"), SIGNS, ids=[f"{bug.sut}~{sign.strike}" for bug, sign in SIGNS])
def test_a_sign_is_a_fault_that_a_suite_could_draw(bug: Bug, sign: Sign) -> None:
    trial = sign.trial(bug.sut, SEED)
    (strike,) = trial.schedule
    assert strike.point in {site.point for site in sites(WORKFLOWS[sign.workflow], trial.chain)}
    frame = candidates(WORKFLOWS[sign.workflow], trial.chain, strike.fault)
    (found,) = [c for c in frame if (c.form.name, c.site.point, c.drift) == (strike.form, strike.point, sign.drift)]
    assert trial.nodes == found.form.nodes
    assert 1 <= trial.copies <= found.form.copies


def test_the_right_runtime_meets_every_fault_that_a_bug_meets_and_each_cell_is_run_clean_first() -> None:
    trials = planned(BUGS, SEED)
    ids = [trial.id for trial in trials]
    assert len(ids) == len(set(ids))
    assert {trial.seed for trial in trials} == {SEED}
    struck = {trial.sut: set[tuple[object, ...]]() for trial in trials}
    for trial in trials:
        if trial.schedule:
            struck[trial.sut].add((trial.workflow, trial.schedule, trial.drift, trial.copies))
    assert struck[CORRECT] == set.union(*(struck[name] for name in PLANTED))
    clean = [(trial.sut, trial.workflow) for trial in trials if not trial.schedule]
    assert clean == list(dict.fromkeys((trial.sut, trial.workflow) for trial in trials))


# --- what this machine lacks --------------------------------------------------------------------------------

UNSYNCED = next(bug for bug in BUGS if bug.sut == "planted_does_not_sync")
FORGETFUL = next(bug for bug in BUGS if bug.sut == "planted_forgets_the_last_step")


def test_what_the_machine_lacks_is_skipped_and_said() -> None:
    assert needs([UNSYNCED, FORGETFUL]) == {"loop_disk"}
    kept, lines = shown_here([UNSYNCED, FORGETFUL], {"loop_disk": "run as root"})
    assert kept == [FORGETFUL]
    assert lines == ["skipped: 2 of 2 signs of 'does not sync its journal': run as root"]
    mixed = replace(FORGETFUL, signs=(*FORGETFUL.signs, UNSYNCED.signs[0]))
    kept, lines = shown_here([mixed], {"loop_disk": "run as root"})
    assert kept == [FORGETFUL]
    assert lines == ["skipped: 1 of 3 signs of 'forgets the last step on restart': run as root"]


def test_nothing_is_skipped_where_nothing_is_missing() -> None:
    assert shown_here(BUGS, {}) == (list(BUGS), [])


# --- caught, or not -----------------------------------------------------------------------------------------

SIGN = Sign("finance/invoice_payment", "worker_kill.at_boundary@tool:pay[0]#1@before", "corrupted", "duplicate")
BUG = Bug("a bug", "planted_no_key", (SIGN,))


def judge(bug: Bug, make_result: MakeResult, broken: TrialResult, right: TrialResult | None = None) -> list[bool]:
    (sign,) = bug.signs
    right = right or make_result()
    return [
        row.good
        for row in judged([bug], SEED, {sign.trial(s, SEED).id: r for s, r in ((bug.sut, broken), (CORRECT, right))})
    ]


def test_a_bug_is_caught_by_the_verdict_and_the_reason_that_were_expected(make_result: MakeResult) -> None:
    caught = make_result(verdict="corrupted", reason="duplicate effect of bank.pay")
    assert judge(BUG, make_result, caught) == [True, True]
    for wrong in (
        make_result(verdict="correct", reason="every expected effect, once"),
        make_result(verdict="corrupted", reason="missing effect of bank.pay"),
        make_result(verdict="lost", reason="duplicate"),
        make_result(
            verdict=None, injection="baseline_failed", reason="the clean run of this cell did not end correctly"
        ),
        make_result(verdict=None, injection="not_exposed", reason="duplicate"),
    ):
        assert judge(BUG, make_result, wrong) == [False, True]


def test_what_was_not_run_is_neither_caught_nor_passed() -> None:
    rows = judged([BUG], SEED, {})
    assert [(row.good, row.seen) for row in rows] == [(False, "not run"), (False, "not run")]


@pytest.mark.parametrize("verdict", ["corrupted", "failed", "lost", "needless_halt", "harness_error"])
def test_a_right_runtime_that_does_not_pass_is_a_false_alarm(make_result: MakeResult, verdict: str) -> None:
    caught = make_result(verdict="corrupted", reason="duplicate effect of bank.pay")
    assert judge(BUG, make_result, caught, make_result(verdict=verdict)) == [True, False]
    assert judge(BUG, make_result, caught, make_result(verdict="correct_halt")) == [True, True]
    asked = make_result(human=Human(re_asked=1))
    assert judge(BUG, make_result, caught, asked) == [True, False]


def test_what_is_no_verdict_is_caught_by_the_figure_that_is_out_of_bounds(make_result: MakeResult) -> None:
    asked = make_result(human=Human(re_asked=1))
    assert seen(asked) == ["correct", "approval asked again"]
    asks_again = replace(BUG, signs=(replace(SIGN, caught_as="approval asked again", reason=""),))
    assert judge(asks_again, make_result, asked) == [True, True]
    assert judge(asks_again, make_result, make_result()) == [False, True]
    storm = Storm(5, 7.0, 30.0, 0.5, within_bounds=False)
    assert seen(make_result(verdict="correct_halt", storm=storm)) == ["correct_halt", "storm out of bounds"]
    assert seen(make_result(storm=replace(storm, within_bounds=True))) == ["correct"]
