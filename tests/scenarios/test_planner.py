"""A suite and a seed make one plan: drawn evenly, weighted rightly, the same points for everyone."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.faults import FAULTS
from kintsugi.faults.fault import FaultClass
from kintsugi.golden_workflows.spec import Workflow, load_workflows
from kintsugi.scenarios.planner import Candidate, Plan, candidates, plan, targets
from kintsugi.scenarios.points import met_in_recovery, sites
from kintsugi.scenarios.suite import FaultShare, Pairs, Suite, load_suite
from kintsugi.scenarios.trial import Trial

STANDARD = load_suite("standard")
WORKFLOWS = {name: workflow for name, workflow in load_workflows().items() if STANDARD.wants(name)}
PLAN = plan(STANDARD, WORKFLOWS, 7)
SUTS = STANDARD.suts
CLASSES = {name.split("/")[0] for name in WORKFLOWS}


def suite_of(*faults: dict[str, Any], **more: Any) -> Suite:
    asked = {"suts": ["minimal+optimized"], **more}
    return Suite.model_validate({"name": "some", "version": 1, "about": "Some.", "faults": list(faults), **asked})


def of(trials: Plan, sut: str, kind: str = "fault") -> list[Trial]:
    return [trial for trial in trials.trials if f"{trial.sut}+{trial.chain}" == sut and trial.kind == kind]


def drawn(trials: list[Trial], *, model: bool = False) -> list[tuple[Any, ...]]:
    """What was drawn, without for whom."""
    return [
        (trial.workflow, trial.schedule, trial.seed, trial.drift, trial.weight)
        for trial in trials
        if model == any(strike.point.kind == "model" for strike in trial.schedule)
    ]


# --- the standard suite -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(STANDARD, load_workflows(), 7) == PLAN, "what it does not name changes nothing"
    assert plan(STANDARD, dict(reversed(WORKFLOWS.items())), 7) == PLAN


def test_another_seed_draws_other_points() -> None:
    other = plan(STANDARD, WORKFLOWS, 8)
    for sut in SUTS:
        for model in (False, True):
            ours = {strikes for _, strikes, *_ in drawn(of(PLAN, sut), model=model)}
            theirs = {strikes for _, strikes, *_ in drawn(of(other, sut), model=model)}
            assert ours != theirs
            assert abs(len(drawn(of(PLAN, sut), model=model)) - len(drawn(of(other, sut), model=model))) <= 2


def test_shared_points_are_the_same_for_every_sut_and_chain() -> None:
    first = drawn(of(PLAN, SUTS[0]))
    assert first
    for sut in SUTS[1:]:
        assert drawn(of(PLAN, sut)) == first


def test_model_points_are_the_same_for_every_sut_of_a_chain() -> None:
    by_chain: dict[str, list[list[Any]]] = defaultdict(list)
    for sut in SUTS:
        by_chain[sut.split("+")[1]].append(drawn(of(PLAN, sut), model=True))
    assert len(by_chain) == 2
    for plans in by_chain.values():
        assert len(plans) == 2
        assert plans[0] == plans[1]
        assert plans[0]


def test_narrowing_to_some_suts_changes_nothing_for_them() -> None:
    narrowed = plan(STANDARD, WORKFLOWS, 7, [SUTS[2]])
    assert list(narrowed.trials) == [t for t in PLAN.trials if f"{t.sut}+{t.chain}" == SUTS[2]]


def test_every_trial_has_its_own_id_and_survives_json() -> None:
    ids = [trial.id for trial in PLAN.trials]
    assert len(ids) == len(set(ids))
    assert [Trial.from_json(trial.to_json()) for trial in PLAN.trials] == list(PLAN.trials)


def test_each_distinct_schedule_is_planned_once() -> None:
    for sut in SUTS:
        for kind in ("fault", "timing"):
            struck = [(t.workflow, t.schedule, t.drift) for t in of(PLAN, sut, kind) if t.schedule]
            assert len(struck) == len(set(struck))


def test_what_is_really_the_same_under_two_names_is_planned_once() -> None:
    for sut in SUTS:
        done = [
            (trial.workflow, strike.point, FAULTS[strike.fault].form(strike.form).actions, trial.nodes, trial.drift)
            for trial in of(PLAN, sut)
            for strike in trial.schedule
        ]
        assert len(done) == len(set(done))
    # A reset after the effect is a network's failure and a partial side effect.
    both = [{"fault": fault, "shared": 99, "forms": [form]} for fault, form in SAME]
    found = [t for t in plan(suite_of(*both), WORKFLOWS, 7).trials if t.schedule]
    one = [t for t in plan(suite_of(both[0]), WORKFLOWS, 7).trials if t.schedule]
    assert found == one


SAME = (("partial_side_effect", "reset"), ("network_failure", "reset_committed"))


def test_what_is_taken_keeps_its_weight_in_the_frame() -> None:
    shares = [{"fault": "partial_side_effect", "shared": 1, "forms": ["reset"]}]
    shares += [{"fault": "network_failure", "shared": 99, "forms": ["reset_committed"]}]
    name = "finance/invoice_payment"
    found = [t for t in plan(suite_of(*shares, workflows=[name]), WORKFLOWS, 7).trials if t.schedule]
    frame = candidates(WORKFLOWS[name], "optimized", "network_failure", ["reset_committed"])
    rest = [trial for trial in found if trial.fault == "network_failure"]
    assert len(rest) == len(frame) - 1
    assert sum(trial.weight for trial in rest) == pytest.approx(len(frame))


def test_a_sut_that_polls_is_not_given_what_is_pushed() -> None:
    suite = suite_of({"fault": "approval_delay", "shared": 99}, suts=["minimal+naive", "naive+naive"])
    found = plan(suite, WORKFLOWS, 7, lacks={"naive": {"pushed_decisions"}})
    pushed = {form.name for form in FAULTS["approval_delay"].forms if "pushed_decisions" in form.wants}
    assert pushed
    forms = {sut: {trial.schedule[0].form for trial in of(found, sut)} for sut in suite.suts}
    assert forms["minimal+naive"] - forms["naive+naive"] == pushed
    kept = [trial for trial in drawn(of(found, "minimal+naive")) if trial[1][0].form not in pushed]
    assert drawn(of(found, "naive+naive")) == kept


def test_a_sut_whose_runs_nobody_takes_over_meets_no_zombie() -> None:
    suite = suite_of({"fault": "zombie_worker", "shared": 2, "model": 1}, suts=["minimal+naive", "naive+naive"])
    found = plan(suite, WORKFLOWS, 7, lacks={"naive": {"fail_over"}})
    assert len(of(found, "minimal+naive")) == 3 * len(WORKFLOWS)
    assert {trial.nodes for trial in of(found, "minimal+naive")} <= {2, 3}
    assert of(found, "naive+naive") == []
    assert found.not_applicable == tuple(("naive+naive", name, "zombie_worker") for name in sorted(WORKFLOWS))


def test_a_polling_sut_with_nothing_else_to_be_given(restock: Workflow) -> None:
    share = {"fault": "approval_delay", "shared": 1, "forms": ["delivered_twice"]}
    suite = suite_of(share, suts=["minimal+naive", "naive+naive"])
    found = plan(suite, {"shop/restock": restock}, 7, lacks={"naive": {"pushed_decisions"}})
    assert found.not_applicable == (("naive+naive", "shop/restock", "approval_delay"),)


def test_ten_classes_of_faults_meet_four_classes_of_workflows() -> None:
    assert {"finance", "marketing", "research", "data"} <= CLASSES
    for sut in SUTS:
        cells = Counter((trial.fault, trial.workflow.split("/")[0]) for trial in of(PLAN, sut))
        assert set(cells) == {(share.fault, name) for share in STANDARD.faults for name in CLASSES}


def test_at_least_three_hundred_faults_are_planned_for_each_sut() -> None:
    for sut in SUTS:
        assert len(of(PLAN, sut)) >= 150
    minimal = [t for t in PLAN.trials if t.kind == "fault" and t.sut == "minimal"]
    assert len(minimal) >= 300


def test_every_cell_has_its_baseline_and_its_clean_runs() -> None:
    for sut in SUTS:
        baselines = of(PLAN, sut, "baseline")
        assert [trial.workflow for trial in baselines] == sorted(WORKFLOWS)
        assert {(trial.variance, trial.schedule) for trial in baselines} == {("none", ())}
        clean = Counter(trial.workflow for trial in of(PLAN, sut, "clean"))
        assert clean == dict.fromkeys(WORKFLOWS, STANDARD.clean_seeds)
        assert {trial.variance for trial in of(PLAN, sut, "clean")} == {"typical"}
        seeds = {trial.seed for trial in of(PLAN, sut, "clean")}
        assert seeds == set(range(7, 7 + STANDARD.clean_seeds))


def test_faults_are_scored_without_the_models_own_mistakes() -> None:
    assert {trial.variance for trial in PLAN.trials if trial.schedule} == {"none"}


def test_every_strike_is_a_form_where_it_applies() -> None:
    frame_of = cache(lambda workflow, chain, fault: candidates(WORKFLOWS[workflow], chain, fault))
    for trial in PLAN.trials:
        for strike in trial.schedule:
            frame = frame_of(trial.workflow, trial.chain, strike.fault)
            (found,) = [
                c for c in frame if (c.form.name, c.site.point, c.drift) == (strike.form, strike.point, trial.drift)
            ]
            assert (trial.copies, trial.nodes) == (found.form.copies, found.form.nodes)
            assert bool(trial.drift) == (strike.fault == "stale_data")


def test_recovery_times_are_taken_at_the_same_exact_points_by_everyone() -> None:
    assert STANDARD.timing is not None
    first = drawn(of(PLAN, SUTS[0], "timing"))
    for sut in SUTS:
        timing = of(PLAN, sut, "timing")
        assert drawn(timing) == first
        struck = [trial for trial in timing if trial.schedule]
        assert Counter(t.workflow.split("/")[0] for t in struck) == dict.fromkeys(CLASSES, STANDARD.timing.per_class)
        assert {(t.schedule[0].point.kind, t.fault) for t in struck} == {("tool", STANDARD.timing.fault)}
        assert {t.schedule[0].point.phase for t in struck} <= {"before", "committed"}
        assert {trial.weight for trial in timing} == {1.0}
        calm = [trial.workflow for trial in timing if not trial.schedule]
        assert calm == [
            w for name in sorted(CLASSES) for w in sorted({t.workflow for t in struck if t.workflow.startswith(name)})
        ]


def test_baselines_come_before_what_rests_on_them() -> None:
    for sut in SUTS:
        kinds = [trial.kind for trial in PLAN.trials if f"{trial.sut}+{trial.chain}" == sut]
        assert kinds.index("fault") > max(at for at, kind in enumerate(kinds) if kind == "baseline")


# --- one share ----------------------------------------------------------------------------------------------


def strata(trials: list[Trial], frame: list[Candidate]) -> dict[str, list[Trial]]:
    """Trials by what they were dealt over: phases, or forms where all share one phase."""
    phases = {candidate.site.point.phase for candidate in frame}
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        (strike,) = trial.schedule
        found[strike.point.phase if len(phases) > 1 else strike.form].append(trial)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(WORKFLOWS)),
    fault=st.sampled_from(sorted(FAULTS)),
    chain=st.sampled_from(["optimized", "naive"]),
    count=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_a_draw_is_even_without_repetition_and_weighted(
    name: str, fault: str, chain: str, count: int, seed: int
) -> None:
    suite = suite_of({"fault": fault, "shared": count, "model": count}, suts=[f"minimal+{chain}"], workflows=[name])
    found = [trial for trial in plan(suite, WORKFLOWS, seed).trials if trial.kind == "fault"]
    frame = candidates(WORKFLOWS[name], chain, fault)
    for model in (False, True):
        part = [c for c in frame if (c.site.point.kind == "model") == model]
        mine = [t for t in found if (t.schedule[0].point.kind == "model") == model]
        assert len(mine) == min(count, len(part))
        assert len({(t.schedule, t.drift) for t in mine}) == len(mine)
        sizes = Counter(
            c.site.point.phase if len({p.site.point.phase for p in part}) > 1 else c.form.name for c in part
        )
        dealt = strata(mine, part)
        for key, trials in dealt.items():
            assert sum(trial.weight for trial in trials) == pytest.approx(sizes[key])
        counts = {key: len(dealt.get(key, [])) for key in sizes}
        for key, had in counts.items():
            assert had == sizes[key] or had >= max(counts.values()) - 1, (
                "the next round is dealt to all that have some left"
            )


def test_the_whole_frame_has_weight_one_each() -> None:
    suite = suite_of({"fault": "worker_kill", "shared": 10_000, "model": 10_000})
    found = [trial for trial in plan(suite, WORKFLOWS, 7).trials if trial.kind == "fault"]
    assert {trial.weight for trial in found} == {1.0}
    frames = [candidates(workflow, "optimized", "worker_kill") for workflow in WORKFLOWS.values()]
    assert len(found) == sum(map(len, frames))


def test_some_forms_only() -> None:
    suite = suite_of({"fault": "worker_kill", "shared": 50, "forms": ["after_5ms", "after_0ms"]})
    found = {trial.schedule[0].form for trial in plan(suite, WORKFLOWS, 7).trials if trial.schedule}
    assert found == {"after_5ms", "after_0ms"}


def test_one_workflow_of_each_class() -> None:
    suite = suite_of({"fault": "retry_storm", "shared": 2, "one_per_class": True})
    found = plan(suite, WORKFLOWS, 7)
    struck = Counter(trial.workflow for trial in found.trials if trial.schedule)
    assert {workflow.split("/")[0] for workflow in struck} == CLASSES
    assert set(struck.values()) == {2}
    assert len(struck) == len(CLASSES)
    several = [sorted({t.workflow for t in plan(suite, WORKFLOWS, seed).trials if t.schedule}) for seed in range(9)]
    assert len({tuple(each) for each in several}) > 1, "which one is drawn"


def test_what_has_no_point_is_listed(restock: Workflow) -> None:
    workflows = {"shop/restock": restock}
    suite = suite_of(
        {"fault": "stale_data", "shared": 2},
        {"fault": "loop", "model": 1, "forms": ["repeats_3"]},
        suts=["minimal+optimized", "minimal+naive"],
    )
    assert plan(suite, workflows, 7).not_applicable == (("minimal+optimized", "shop/restock", "loop"),)


def test_every_declared_drift_is_a_candidate_of_its_own(restock: Workflow) -> None:
    found = [(c.form.name, str(c.site.point), c.drift) for c in candidates(restock, "naive", "stale_data")]
    assert found == [
        ("while_waiting", "human:order[0]#1@waiting", "sold"),
        ("while_waiting", "timer:pause[0]#1@waiting", "alone"),
        ("while_restarting", "human:order[0]#1@waiting", "sold"),
        ("while_restarting", "timer:pause[0]#1@waiting", "alone"),
    ]


def test_only_the_workflows_that_a_suite_wants() -> None:
    suite = suite_of({"fault": "worker_kill", "shared": 1}, workflows=["finance/*", "data/dead_letter_replay"])
    found = {trial.workflow for trial in plan(suite, WORKFLOWS, 7).trials}
    assert {name.split("/")[0] for name in found} == {"finance", "data"}
    assert [name for name in found if name.startswith("data/")] == ["data/dead_letter_replay"]


def test_a_suite_without_faults_still_has_its_baselines() -> None:
    found = plan(suite_of(clean_seeds=2), WORKFLOWS, 7)
    assert Counter(trial.kind for trial in found.trials) == {"baseline": len(WORKFLOWS), "clean": 2 * len(WORKFLOWS)}


def test_every_pair_of_a_named_workflow_and_a_weighed_draw_of_the_others(restock: Workflow) -> None:
    named = Suite(name="s", version=1, about="-", suts=["minimal+optimized"], pairs=Pairs(all=["shop/*"]))
    every = sites(restock, "optimized", whole=True)
    frame = {(str(first.point), str(second.point)) for first in every for second in met_in_recovery(every, first)}
    trials = [t for t in plan(named, {"shop/restock": restock}, 7).trials if t.schedule]
    assert {tuple(str(strike.point) for strike in trial.schedule) for trial in trials} == frame
    assert len(trials) == len(frame) == len({trial.id for trial in trials})
    assert {tuple(strike.then for strike in trial.schedule) for trial in trials} == {(False, True)}
    assert {trial.fault for trial in trials} == {"worker_kill+worker_kill"}
    drawn = named.model_copy(update={"pairs": Pairs(sampled=10)})
    some = [t for t in plan(drawn, {"shop/restock": restock}, 7).trials if t.schedule]
    assert len(some) == 10
    assert sum(trial.weight for trial in some) == pytest.approx(len(frame))
    assert {trial.id for trial in some} <= {trial.id for trial in trials}


def test_a_share_of_all_strikes_every_point_and_form(restock: Workflow) -> None:
    share = FaultShare(fault="worker_kill", forms=["at_boundary", "after_0ms"], all=True)
    suite = Suite(name="s", version=1, about="-", suts=["minimal+optimized"], faults=[share])
    trials = [t for t in plan(suite, {"shop/restock": restock}, 7).trials if t.schedule]
    assert [str(t.schedule[0].point) for t in trials] != []
    assert {str(t.schedule[0].point) for t in trials} == {
        str(site.point) for site in sites(restock, "optimized", whole=True)
    }
    found = targets(suite, {"shop/restock": restock}, "minimal", "optimized")
    assert {t.trial.what for t in found} == {t.what for t in trials}
    assert all(target.whole for target in found)


def test_what_the_machine_lacks_is_a_gap_and_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = FAULTS["worker_kill"]
    needing = replace(kill, forms=(replace(kill.forms[0], needs="moon"), *kill.forms[1:]))
    monkeypatch.setitem(cast("dict[str, FaultClass]", FAULTS), "worker_kill", needing)
    suite = Suite(
        name="s", version=1, about="-", suts=["minimal+optimized"], faults=[FaultShare(fault="worker_kill", shared=6)]
    )
    here, there = plan(suite, WORKFLOWS, 7), plan(suite, WORKFLOWS, 7, missing=["moon"])
    kept = tuple(t for t in here.trials if not t.schedule or t.schedule[0].form != kill.forms[0].name)
    assert there.trials == kept != here.trials
    assert len(there.gaps) == len(here.trials) - len(kept)
    assert {(gap.fault, gap.needs) for gap in there.gaps} == {("worker_kill", "moon")}
    assert there.not_applicable == here.not_applicable
