"""The points at which a workflow can be struck, for each chain, literally."""

from pathlib import Path

import pytest

from kintsugi.faults.points import Site
from kintsugi.golden_workflows.reference import check_truth, trajectory
from kintsugi.golden_workflows.spec import Workflow, load_workflow, load_workflows
from kintsugi.scenarios.points import met_in_recovery, sites

WORKFLOWS = load_workflows()
STOCKTAKE = load_workflow(Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml")

OPTIMIZED = """
submit:start[0]#1@after
tool:shelf[0]#1@before read
tool:shelf[0]#1@after read
model:decide[0]#1@before answer
model:decide[0]#1@during answer
model:decide[0]#1@after answer
human:order[0]#1@before
human:order[0]#1@committed
human:order[0]#1@waiting sold
decision:order[0]#1@before
decision:order[0]#1@after
tool:order[0]#1@before write key
tool:order[0]#1@during write key
tool:order[0]#1@committed write key
tool:order[0]#1@after write key
timer:pause[0]#1@waiting alone
tool:tell[0]#1@before write none
tool:tell[0]#1@during write none
tool:tell[0]#1@committed write none
tool:tell[0]#1@after write none
tool:tell[1]#1@before write none
tool:tell[1]#1@during write none
tool:tell[1]#1@committed write none
tool:tell[1]#1@after write none
end:end[0]#1@before
end:end[0]#1@committed
end:end[0]#1@after
"""

NAIVE = """
submit:start[0]#1@after
model:shelf[0]#1@before call
model:shelf[0]#1@during call
model:shelf[0]#1@after call
tool:shelf[0]#1@before read
tool:shelf[0]#1@after read
model:order[0]#1@before call
model:order[0]#1@during call
model:order[0]#1@after call
human:order[0]#1@before
human:order[0]#1@committed
human:order[0]#1@waiting sold
decision:order[0]#1@before
decision:order[0]#1@after
model:order[0]#2@before call
model:order[0]#2@during call
model:order[0]#2@after call
tool:order[0]#1@before write key
tool:order[0]#1@during write key
tool:order[0]#1@committed write key
tool:order[0]#1@after write key
model:pause[0]#1@before call
model:pause[0]#1@during call
model:pause[0]#1@after call
timer:pause[0]#1@waiting alone
model:tell[0]#1@before call
model:tell[0]#1@during call
model:tell[0]#1@after call
tool:tell[0]#1@before write none
tool:tell[0]#1@during write none
tool:tell[0]#1@committed write none
tool:tell[0]#1@after write none
model:tell[1]#1@before call
model:tell[1]#1@during call
model:tell[1]#1@after call
tool:tell[1]#1@before write none
tool:tell[1]#1@during write none
tool:tell[1]#1@committed write none
tool:tell[1]#1@after write none
model:end[0]#1@before close
model:end[0]#1@during close
model:end[0]#1@after close
end:end[0]#1@before
end:end[0]#1@committed
end:end[0]#1@after
"""


def told(site: Site) -> str:
    """A site in one line: its point, and the facts that decide which faults apply there."""
    facts = [str(site.point), site.effect, site.idempotency, *site.drifts, site.proposes]
    return " ".join(filter(None, facts))


@pytest.mark.parametrize(("chain", "listed"), [("optimized", OPTIMIZED), ("naive", NAIVE), ("own", NAIVE)])
def test_the_sites_of_a_chain(chain: str, listed: str, restock: Workflow) -> None:
    assert [told(site) for site in sites(restock, chain)] == listed.strip().splitlines()


def test_the_small_workflow_is_a_sound_one(restock: Workflow) -> None:
    check_truth(restock)


def shared(workflow: Workflow, chain: str) -> list[Site]:
    return [site for site in sites(workflow, chain) if site.point.kind != "model"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_all_but_the_models_sites_are_the_same_for_every_chain(name: str) -> None:
    assert shared(WORKFLOWS[name], "optimized") == shared(WORKFLOWS[name], "naive")


@pytest.mark.parametrize("chain", ["optimized", "naive"])
@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_site_has_its_own_point(name: str, chain: str) -> None:
    points = [site.point for site in sites(WORKFLOWS[name], chain)]
    assert len(points) == len(set(points))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_boundary_of_a_correct_run_can_be_struck(name: str) -> None:
    workflow = WORKFLOWS[name]
    found = {(site.point.kind, site.point.step, site.point.item) for site in sites(workflow, "optimized")}
    for call in trajectory(workflow):
        kind = {"sleep": "timer"}.get(call.kind, call.kind)
        assert (kind, call.step, call.item) in found
        if call.needs_approval:
            assert {("human", call.step, call.item), ("decision", call.step, call.item)} <= found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_declared_drift_has_a_wait_to_strike_in(name: str) -> None:
    for chain in ("optimized", "naive"):
        struck = {drift for site in sites(WORKFLOWS[name], chain) for drift in site.drifts}
        assert struck == set(WORKFLOWS[name].drifts)


@pytest.mark.parametrize(
    ("first", "met"),
    [
        # Nothing had come of it: the request is made again, and every phase of it is met again.
        ("tool:tell[1]#1@before", "tool:tell[1]#1@during/committed/after end:end[0]#1@before/committed/after"),
        ("tool:tell[1]#1@during", "tool:tell[1]#1@before/committed/after end:end[0]#1@before/committed/after"),
        # It had happened, and nothing but a person can tell: only what follows is met for sure.
        ("tool:tell[1]#1@committed", "end:end[0]#1@before/committed/after"),
        ("tool:tell[1]#1@after", "end:end[0]#1@before/committed/after"),
        ("end:end[0]#1@before", "end:end[0]#1@committed/after"),
        ("end:end[0]#1@committed", ""),
        ("end:end[0]#1@after", ""),
    ],
)
def test_what_a_recovery_is_sure_to_cross(restock: Workflow, first: str, met: str) -> None:
    every = sites(restock, "optimized")
    (site,) = [site for site in every if str(site.point) == first]
    wanted = [
        f"{at}@{phase}"
        for at, _, phases in (part.partition("@") for part in met.split())
        for phase in phases.split("/")
    ]
    assert [str(site.point) for site in met_in_recovery(every, site)] == wanted


def test_a_write_with_a_key_is_sent_again_after_its_effect(restock: Workflow) -> None:
    every = sites(restock, "optimized")
    (site,) = [site for site in every if str(site.point) == "tool:order[0]#1@committed"]
    met = [str(site.point) for site in met_in_recovery(every, site)]
    assert met[:3] == ["tool:order[0]#1@before", "tool:order[0]#1@after", "timer:pause[0]#1@waiting"]


def test_a_decision_is_not_given_again_after_its_worker_was_killed(restock: Workflow) -> None:
    every = sites(restock, "optimized")
    (site,) = [site for site in every if str(site.point) == "decision:order[0]#1@before"]
    assert str(met_in_recovery(every, site)[0].point) == "tool:order[0]#1@before"


def test_a_timer_after_a_boundary_that_is_not_crossed_again_can_not_be_told(restock: Workflow) -> None:
    every = sites(restock, "optimized")
    by_name = {str(site.point): site for site in every}
    timer = by_name["timer:pause[0]#1@waiting"]
    assert timer in met_in_recovery(every, by_name["tool:order[0]#1@during"])
    assert timer in met_in_recovery(every, by_name["tool:order[0]#1@committed"])
    assert timer not in met_in_recovery(every, by_name["tool:order[0]#1@after"])


def test_the_whole_frame_has_the_acknowledgement_of_a_question_too(restock: Workflow) -> None:
    drawn_from, whole = sites(restock, "optimized"), sites(restock, "optimized", whole=True)
    (more,) = [site for site in whole if site not in drawn_from]
    assert str(more.point) == "human:order[0]#1@after"
    assert [site for site in whole if site != more] == drawn_from
    met = [str(site.point) for site in met_in_recovery(whole, more)]
    assert met[:3] == ["human:order[0]#1@waiting", "decision:order[0]#1@before", "decision:order[0]#1@after"]


def test_a_recovery_is_not_sure_to_meet_the_others_of_a_parallel_group() -> None:
    every = sites(STOCKTAKE, "optimized")
    by_name = {str(site.point): site for site in every}
    met = {site.point.step for site in met_in_recovery(every, by_name["tool:dock[0]#1@before"])}
    assert met == {"dock", "close", "end"}
    before_it = {site.point.step for site in met_in_recovery(every, by_name["tool:count[0]#1@after"])}
    assert before_it == {"dock", "labels", "tell", "close", "end"}


def test_a_step_that_is_polled_has_the_points_of_one_read() -> None:
    points = [str(site.point) for site in sites(STOCKTAKE, "optimized") if site.point.step == "count"]
    assert points == ["tool:count[0]#1@before", "tool:count[0]#1@after"]
