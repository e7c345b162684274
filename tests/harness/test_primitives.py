"""The workflow in which every primitive stands together, run by real workers: without a fault, and killed anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import Workflow, load_workflow
from kintsugi.harness import trial as trial_module
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.harness.session import boundaries_before_timers
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.harness.world import serve_tools
from kintsugi.scenarios.points import sites
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

FILE = Path(__file__).parents[1] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml"
WORKFLOW = load_workflow(FILE)
SEED = 7
CELLS = [("minimal", "optimized"), ("minimal", "naive"), ("naive", "optimized"), ("naive", "naive")]
CLEAN = [Trial("baseline", sut, chain, WORKFLOW.name, seed=SEED) for sut, chain in CELLS]


def struck(*strikes: Strike) -> Trial:
    return Trial("fault", "minimal", "optimized", WORKFLOW.name, strikes, seed=SEED)


async def run(trials: Sequence[Trial], results: Results, workflow: Workflow = WORKFLOW) -> dict[str, TrialResult]:
    results.begin({"seed": SEED}, resume=False)
    try:
        await SuiteRun({workflow.name: workflow}, results, 4, 1, 60.0, 5.0, lambda _: None).run(trials)
    finally:
        results.end()
    return results.trials()


async def test_a_clean_run_is_correct_with_either_chain(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    found = await run(CLEAN, results)
    assert {found[t.id].verdict for t in CLEAN} == {"correct"}
    for trial in CLEAN:
        result, history = found[trial.id], results.history(trial.id)
        polls = [event for event in of(history, "world", "read") if event["step"] == "count"]
        assert len(polls) > 1, "the job takes longer than the first look at it"
        assert (result.repeats.model_calls, result.repeats.tool_calls) == (0, 0)
        used = result.measures
        assert (used.trajectory_in_order.k, used.trajectory_any_order.k) == (1, 1)
        # The optimized chain reads the pages again after the approval; the naive one does just what the plan says.
        assert used.trajectory_exact.k == (trial.chain == "naive")
        for share in (used.selection_proposed, used.selection_reached, used.calls_reached):
            assert share.k == share.n


async def test_the_optimized_chain_does_a_group_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the group is served before all of it is asked for, however slowly; one by one, it never is."""
    tools = {WORKFLOW.steps[step].tool for step in ("dock", "labels", "tell")}
    waiting: list[Incoming] = []
    all_asked = asyncio.Event()

    async def once_all_is_asked_for(incoming: Incoming) -> None:
        if incoming.session.trial.chain == "optimized" and incoming.path[0] in tools:
            waiting.append(incoming)
            if {one.path[0] for one in waiting if not one.gone.is_set()} == tools:
                all_asked.set()
            await all_asked.wait()
        await serve_tools(incoming)

    monkeypatch.setattr(trial_module, "serve_tools", once_all_is_asked_for)
    results = Results(tmp_path / "results")
    await run(CLEAN[:2], results)
    assert all_asked.is_set()
    for trial, together in zip(CLEAN[:2], (True, False), strict=True):
        events = of(results.history(trial.id), "world", "request", "answer")
        group = [e for e in events if e["what"] == "request" and e["step"] in {"dock", "labels", "tell"}]
        first = min(e["t"] for e in events if e["what"] == "answer" and e["request"] in {g["request"] for g in group})
        assert (max(e["t"] for e in group) < first) is together


async def test_a_timer_after_a_group_begins_when_all_of_it_has_been_answered(tmp_path: Path) -> None:
    """The worker is killed in the midst of the wait, which no request tells of."""
    text = FILE.read_text(encoding="utf-8")
    path = tmp_path / "depot" / "stocktake.toml"
    path.parent.mkdir()
    last = '[[plan]]\nid = "close"'
    assert last in text
    path.write_text(text.replace(last, f'[[plan]]\nid = "rest"\nsleep_seconds = 7200\n\n{last}'), encoding="utf-8")
    resting = load_workflow(path, FILE.parents[1] / "tools")
    group = [("tool", step, 0) for step in ("dock", "labels", "tell")]
    assert boundaries_before_timers(resting, "optimized") == {"rest": group}
    assert boundaries_before_timers(resting, "naive") == {"rest": [("model", "rest", 0)]}
    results = Results(tmp_path / "results")
    trial = struck(Strike("worker_kill", "at_boundary", Point.parse("timer:rest[0]#1@waiting")))
    found = (await run([CLEAN[0], trial], results, resting))[trial.id]
    assert (found.injection, found.verdict, found.generations) == ("witnessed", "correct", 2)
    events = results.history(trial.id)
    killed = of(events, "nemesis", "injected")[0]["t"]
    asked = {e["request"]: e["step"] for e in of(events, "world", "request")}
    before = {asked[e["request"]] for e in of(events, "world", "delivered") if e["t"] < killed}
    assert before >= {"dock", "labels", "tell"}
    assert "close" not in before


async def test_a_worker_may_be_killed_at_every_point_of_it(tmp_path: Path) -> None:
    trials = [struck(Strike("worker_kill", "at_boundary", site.point)) for site in sites(WORKFLOW, "optimized")]
    results = Results(tmp_path / "results")
    found = await run([CLEAN[0], *trials], results)
    fates = {str(t.schedule[0].point): (found[t.id].injection, found[t.id].verdict, found[t.id].reason) for t in trials}
    assert {p: f for p, f in fates.items() if f[0] != "witnessed" or f[1] not in {"correct", "correct_halt"}} == {}
