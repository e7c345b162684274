"""Which schedules a search tries and in which order, what of one was exposed, and how one that fails is shrunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, islice, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Drift
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.explore import COPIES_MAX, Frame, ddmin, exposed, holds_a_race, shrinking, stream
from kintsugi.harness.found import ToReplay, read
from kintsugi.harness.means import TAKES, clash_of
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.planner import candidates
from kintsugi.scenarios.points import sites
from kintsugi.scenarios.trial import Trial

if TYPE_CHECKING:
    from tests.harness.conftest import MakeTrial, WriteHistory

WORKFLOWS = load_workflows()
INVOICE = "finance/invoice_payment"
NEEDS = frozenset(form.needs for fault in FAULTS.values() for form in fault.forms if form.needs)


def frame(*names: str, seed: int = 7, chain: str = "optimized", **more: Any) -> Frame:
    return Frame("minimal", chain, {name: WORKFLOWS[name] for name in names or WORKFLOWS}, seed, TAKES, **more)


def first(count: int, of: Frame) -> list[Trial]:
    return list(islice(stream(of), count))


# --- the stream ---------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_stream_and_another_one_another() -> None:
    ours = first(200, frame())
    assert first(200, frame()) == ours
    assert first(200, frame(*reversed(WORKFLOWS))) == ours
    assert [trial.what for trial in first(200, frame(seed=8))] != [trial.what for trial in ours]


@pytest.mark.parametrize("chain", ["optimized", "naive"])
def test_no_two_trials_do_the_same(chain: str) -> None:
    trials = first(1500, frame(chain=chain))
    assert len({trial.id for trial in trials}) == len(trials) == 1500
    done = [
        (t.workflow, [(FAULTS[s.fault].form(s.form).actions, s.point, s.then) for s in t.schedule], t.drift, t.nodes)
        for t in trials
    ]
    # What is the same under two names is tried under one.
    assert len({str(what) + str(trial.copies) for what, trial in zip(done, trials, strict=True)}) == len(trials)


def test_every_schedule_of_one_fault_has_its_turn_and_then_there_is_nothing_more() -> None:
    trials = list(stream(frame(INVOICE, faults_max=1)))
    assert {len(trial.schedule) for trial in trials} == {1}
    struck = {
        (FAULTS[t.schedule[0].fault].form(t.schedule[0].form).actions, t.schedule[0].point, t.drift) for t in trials
    }
    every = {
        (candidate.form.actions, candidate.site.point, candidate.drift)
        for fault in FAULTS
        for candidate in candidates(WORKFLOWS[INVOICE], "optimized", fault)
    }
    assert struck == every


def test_each_fault_class_has_its_turn_early_and_so_have_schedules_of_several() -> None:
    trials = first(3 * len(FAULTS), frame())
    singles = [trial for trial in trials if len(trial.schedule) == 1]
    turns = Counter(trial.fault for trial in singles)
    assert (set(turns), len(singles)) == (set(FAULTS), 2 * len(FAULTS))
    # What is the same under two names is tried under one: the other's turn is then the next one's.
    assert set(turns.values()) <= {1, 2, 3}
    assert len(trials) - len(singles) == len(FAULTS)
    assert {len(trial.schedule) for trial in first(300, frame())} == {1, 2, 3}


def test_a_schedule_has_no_more_faults_than_asked_for() -> None:
    trials = first(600, frame(INVOICE, faults_max=5))
    assert {len(trial.schedule) for trial in trials} == {1, 2, 3, 4, 5}


def test_what_is_tried_can_be_done_in_one_trial() -> None:
    """One drift, one node that is lost of two, points in the order in which a run comes to them."""
    for trial in first(1500, frame(faults_max=4)):
        forms = [FAULTS[strike.fault].form(strike.form) for strike in trial.schedule]
        assert trial.nodes == max(form.nodes for form in forms)
        assert trial.copies == min(COPIES_MAX, max(form.copies for form in forms))
        drifting = [form for form in forms if any(isinstance(action, Drift) for action in form.actions)]
        assert len(drifting) <= 1
        assert bool(drifting) == bool(trial.drift)
        assert not trial.schedule[0].then
        if len(forms) == 1:
            continue
        assert trial.copies == 1
        assert sum(form.nodes > 1 for form in forms) <= 1
        needs = [form.needs for form in forms if form.needs]
        assert len(needs) == len(set(needs))
        assert clash_of(trial) == ""
        points = [site.point for site in sites(WORKFLOWS[trial.workflow], trial.chain)]
        places = [points.index(strike.point) for strike in trial.schedule]
        for (one, two), (before, after) in zip(pairwise(trial.schedule), pairwise(places), strict=True):
            assert before <= after or two.then
            same = (one.point.kind, one.point.step, one.point.item) == (two.point.kind, two.point.step, two.point.item)
            assert two.then or not same or one.point.occurrence != two.point.occurrence


def test_means_that_take_the_same_of_a_trial_are_in_none_together_and_all_others_are() -> None:
    assert set(TAKES) >= NEEDS
    assert all(TAKES.values())
    every = {frozenset(pair) for pair in combinations(sorted(NEEDS), 2)}
    apart = {frozenset(pair) for pair in every if frozenset.intersection(*(TAKES[name] for name in pair))}
    assert apart == {
        frozenset(pair)
        for pair in (
            ("small_disk", "loop_disk"),  # Each would be mounted on the state folder.
            ("docker", "small_disk"),  # The engine sees none of our mounts.
            ("docker", "loop_disk"),
            ("docker", "toxiproxy"),  # Each says where the services are.
            ("docker", "fake_clock"),  # A container has no library of this machine.
        )
    }
    met = set()
    for trial in first(6000, frame(INVOICE, faults_max=3)):
        needs = {FAULTS[strike.fault].form(strike.form).needs for strike in trial.schedule} - {""}
        met |= {frozenset(pair) for pair in combinations(sorted(needs), 2)}
    assert met == every - apart


def test_nothing_is_tried_that_the_sut_or_the_machine_can_t_do() -> None:
    naive = ADAPTERS["naive"]
    assert naive.lacks()
    trials = first(800, frame(lacks=naive.lacks(), missing=NEEDS))
    forms = [FAULTS[strike.fault].form(strike.form) for trial in trials for strike in trial.schedule]
    assert not any(set(form.wants) & naive.lacks() or form.needs for form in forms)
    with_all = first(800, frame())
    assert {"zombie_worker"} <= {strike.fault for trial in with_all for strike in trial.schedule}


def test_the_stream_tells_nothing_of_planted_bugs() -> None:
    """A planted SUT meets what the right one meets: a search knows nothing but the faults and the workflows."""
    for name, adapter in PLANTED.items():
        theirs = islice(stream(Frame(name, "optimized", WORKFLOWS, 7, TAKES, lacks=adapter.lacks())), 20)
        ours = first(20, frame(lacks=ADAPTERS["minimal"].lacks()))
        assert [(t.workflow, t.schedule) for t in theirs] == [(t.workflow, t.schedule) for t in ours]


# --- delta debugging ----------------------------------------------------------------------------------------


def shrunk(items: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> tuple[list[int], list[list[int]]]:
    """What is left of some items, and everything that was tried on the way."""
    steps = ddmin(items, list)
    tried: list[list[int]] = []
    try:
        candidates = next(steps)
        while True:
            tried += candidates
            candidates = steps.send(next((n for n, one in enumerate(candidates) if fails(one)), None))
    except StopIteration as ended:
        return ended.value, tried


@given(st.integers(1, 12), st.data())
def test_delta_debugging_finds_the_few_that_matter(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    left, tried = shrunk(range(count), needed.issubset)
    assert left == sorted(needed)
    assert all(one and one == sorted(one) and len(one) < count for one in tried)


@settings(max_examples=200)
@given(st.integers(1, 9), st.data())
def test_of_what_is_left_none_can_be_left_out(count: int, data: st.DataObject) -> None:
    """Whatever fails, monotonous or not."""
    memory: dict[tuple[int, ...], bool] = {}

    def fails(one: Sequence[int]) -> bool:
        key = tuple(one)
        return len(key) == count or memory.setdefault(key, data.draw(st.booleans()))

    left, _ = shrunk(range(count), fails)
    assert fails(left)
    assert not any(fails(left[:n] + left[n + 1 :]) for n in range(len(left)) if len(left) > 1)


def simplest(trial: Trial, fails: Callable[[Trial], bool]) -> Trial:
    steps = shrinking(trial)
    try:
        candidates: Iterable[Trial] = next(steps)
        while True:
            candidates = steps.send(next((n for n, one in enumerate(candidates) if fails(one)), None))
    except StopIteration as ended:
        smallest: Trial = ended.value
        return smallest


KILL = "worker_kill.at_boundary@tool:pay[0]#1@before"
AGAIN = "worker_kill.at_boundary@tool:note[0]#1@before"
LOST = "node_loss.process@tool:tell[0]#1@before"
CHANGED = "stale_data.while_waiting@human:pay[0]#1@waiting"


def test_a_trial_is_shrunk_to_the_strikes_nodes_and_copies_that_matter(make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, CHANGED, KILL, f"then {AGAIN}", LOST, nodes=2, drift="corrected_amount")
    whole = simplest(trial, lambda one: len(one.schedule) == 4 and one.schedule[2].then)
    assert whole == trial
    # What followed a strike that is gone follows nothing; a drift goes with its strike, and a node.
    one = simplest(trial, lambda one: AGAIN in one.what)
    assert one == make_trial(INVOICE, AGAIN)
    two = simplest(trial, lambda one: CHANGED in one.what and LOST in one.what)
    assert two == make_trial(INVOICE, CHANGED, LOST, nodes=2, drift="corrected_amount")
    storm = make_trial(INVOICE, "retry_storm.unavailable_503@tool:order[0]#1@before", copies=5)
    assert simplest(storm, lambda one: one.copies >= 3).copies == 3
    assert simplest(storm, lambda _: True).copies == 2, "one of several needs another"
    assert simplest(make_trial(INVOICE), lambda _: True) == make_trial(INVOICE)


def test_a_strike_that_need_not_wait_for_another_does_not(make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, KILL, f"then {AGAIN}")
    assert simplest(trial, lambda one: len(one.schedule) == 2) == make_trial(INVOICE, KILL, AGAIN)


# --- what was exposed ---------------------------------------------------------------------------------------


def test_a_strike_that_was_never_reached_hides_no_failure(make_trial: MakeTrial, write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="pay")
    run.add("nemesis", "armed", strike=0, is_=AGAIN)
    run.add("nemesis", "armed", strike=1, is_=KILL)
    run.add("nemesis", "injected", strike=1, is_=KILL)
    run.add("nemesis", "witnessed", strike=1, evidence="reaped with signal 9")
    run.dies()
    run.add("runner", "extinct")
    trial, events = make_trial(INVOICE, AGAIN, KILL), run.closed()
    assert judge_trial(run.workflow, trial, events, {}, 5.0).injection == "not_exposed"
    smaller, told = exposed(trial, events)
    assert smaller == make_trial(INVOICE, KILL)
    result = judge_trial(run.workflow, smaller, told, {}, 5.0)
    assert (result.injection, result.verdict) == ("witnessed", "lost")
    assert exposed(smaller, told) == (smaller, told)
    # What was begun, and not seen to have happened, was done all the same: it stays, and there is no verdict.
    begun = [event for event in events if event["what"] != "witnessed"]
    smaller, told = exposed(trial, begun)
    assert judge_trial(run.workflow, smaller, told, {}, 5.0).verdict is None


def test_a_drift_that_was_not_reached_is_no_part_of_it(make_trial: MakeTrial, write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts()
    run.add("nemesis", "armed", strike=0, is_=CHANGED)
    smaller, told = exposed(make_trial(INVOICE, CHANGED, drift="corrected_amount"), run.closed())
    assert smaller == make_trial(INVOICE, kind="fault")
    assert not [event for event in told if event["who"] == "nemesis"]
    assert judge_trial(run.workflow, smaller, told, {}, 5.0).verdict == "lost"


# --- the file -----------------------------------------------------------------------------------------------


def test_a_trial_alone_or_what_was_found_can_be_read(make_trial: MakeTrial) -> None:
    trial = make_trial(INVOICE, KILL)
    assert read(trial.to_json()) == ToReplay(trial)
    whole = {"trial": trial.to_json(), "deadline_seconds": 5, "storm_calls_max": 3.5, "adapters": {"x": {"file": "x"}}}
    assert read(whole) == ToReplay(trial, 5.0, 3.5, {"x": {"file": "x"}})
    for name, wrong in (("deadline_seconds", 0), ("storm_calls_max", "5"), ("deadline_seconds", True), ("adapters", 5)):
        with pytest.raises(ValueError, match=name):
            read({**whole, name: wrong})


def test_a_kill_after_an_answer_is_a_race(make_trial: MakeTrial) -> None:
    assert holds_a_race(make_trial(INVOICE, KILL, "worker_kill.after_1ms@tool:pay[0]#1@after"))
    assert not holds_a_race(make_trial(INVOICE, KILL))
