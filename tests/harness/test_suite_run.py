"""A list of trials, run into a results folder: the same seed gives the same, and what was judged stays judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.adapters.command import lacking
from kintsugi.harness.history import History, Unwritable
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.harness.story import tell
from kintsugi.harness.suite_run import SuiteRun, judge_stored
from kintsugi.scenarios.planner import plan
from kintsugi.scenarios.suite import Suite
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

WORKFLOWS = load_workflows()
SUTS = ["minimal+optimized", "minimal+naive", "naive+naive", "naive+optimized"]
SUITE = Suite.model_validate(
    {
        "name": "subset",
        "version": 1,
        "about": "Every SUT and chain, with no point at which a kill is a race.",
        "suts": SUTS,
        "workflows": ["finance/invoice_payment"],
        "clean_seeds": 2,
        "faults": [
            {"fault": "worker_kill", "forms": ["at_boundary", "again_in_recovery"], "shared": 4, "model": 1},
            {"fault": "partial_side_effect", "shared": 2},
            {"fault": "network_failure", "forms": ["refused", "reset_before", "reset_committed"], "shared": 1},
            {"fault": "malformed_output", "model": 1},
            {"fault": "stale_data", "shared": 1},
            {"fault": "node_loss", "shared": 1},
        ],
    }
)
SEED = 11
KILLED = Trial(
    "fault",
    "minimal",
    "optimized",
    "finance/invoice_payment",
    (Strike("worker_kill", "at_boundary", Point.parse("tool:order[0]#1@before")),),
    SEED,
)


async def run(trials: Sequence[Trial], folder: Path, jobs: int) -> dict[str, TrialResult]:
    results = Results(folder)
    results.begin({"seed": SEED}, resume=folder.exists())
    try:
        await SuiteRun(WORKFLOWS, results, jobs, 1, 60.0, 5.0, lambda _: None).run(trials)
    finally:
        results.end()
    return results.trials()


async def test_a_sut_that_can_t_be_run_here_is_a_gap_and_the_others_go_on(tmp_path: Path) -> None:
    def missing() -> str:
        raise Unavailable("mine: its server is not there; install it")

    adapters = {**ADAPTERS, "mine": replace(ADAPTERS["naive"], name="mine", check=missing)}
    results = Results(tmp_path / "results")
    results.begin({"seed": SEED}, resume=False)
    told: list[str] = []
    work = SuiteRun(WORKFLOWS, results, 2, 1, 60.0, 5.0, lambda _: None, adapters, told.append)
    trials = [Trial("baseline", sut, "naive", "finance/invoice_payment") for sut in ("mine", "naive")]
    await work.run(trials)
    results.note_suts(work.suts)
    results.end()
    assert told == ["mine: its server is not there; install it"]
    assert [result.sut for result in results.trials().values()] == ["naive"]
    assert results.suts()["mine"]["gap"] == told[0]
    assert results.suts()["naive"]["gap"] == ""


class Idle:
    """A server that is none, and says that it used some CPU time."""

    closed = 0

    started = 0

    async def start(self, folder: Path) -> dict[str, str]:
        Idle.started += 1
        return {"KINTSUGI_IDLE_URL": "nowhere"}

    async def kill(self) -> int:
        return 1

    async def listens(self) -> bool:
        return False

    async def restart(self) -> None:
        raise Unavailable("it is none")

    def cpu_seconds(self) -> float:
        return 3.0

    async def close(self) -> None:
        Idle.closed += 1


async def test_a_shared_server_is_charged_by_runs_and_stopped(tmp_path: Path) -> None:
    adapters = {"naive": replace(ADAPTERS["naive"], server=Idle)}
    results = Results(tmp_path / "results")
    for number in range(2):
        results.begin({"seed": SEED}, resume=number > 0)
        work = SuiteRun(WORKFLOWS, results, 2, 1, 60.0, 5.0, lambda _: None, adapters)
        await work.run([Trial("baseline", "naive", "naive", "finance/invoice_payment", repeat=number)])
        results.note_suts(work.suts)
        results.end()
    assert results.suts()["naive"]["server"] == {"cpu_seconds": 6.0, "runs": 2}
    assert Idle.closed == 2


async def test_what_ends_a_server_is_done_to_one_that_no_other_trial_has(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.begin({"seed": SEED}, resume=False)
    adapters = {"naive": replace(ADAPTERS["naive"], server=Idle)}
    work = SuiteRun(WORKFLOWS, results, 2, 1, 60.0, 5.0, lambda _: None, adapters)
    strike = Strike("store_restart", "server", Point.parse("tool:order[0]#1@before"))
    kinds: list[tuple[Any, tuple[Strike, ...]]] = [("baseline", ()), ("fault", (strike,))]
    Idle.started = Idle.closed = 0
    await work.run([Trial(kind, "naive", "naive", "finance/invoice_payment", strikes) for kind, strikes in kinds])
    results.end()
    assert (Idle.started, Idle.closed) == (2, 2)
    assert work.suts["naive"]["server"]["runs"] == 1, "the other had a server of its own"
    (struck,) = [result for result in results.trials().values() if result.kind == "fault"]
    assert (struck.injection, struck.verdict) == ("not_exposed", None)
    assert struck.reason.endswith("it did not come back: it is none")


async def test_the_same_seed_gives_the_same_verdicts(tmp_path: Path) -> None:
    """However many run at once: the load of the machine is no part of a verdict."""
    trials = plan(SUITE, WORKFLOWS, SEED, lacks=lacking({})).trials
    assert plan(SUITE, WORKFLOWS, SEED, lacks=lacking({})).trials == trials
    faults = [trial for trial in trials if trial.kind == "fault"]
    assert len(faults) >= 40
    assert {f"{trial.sut}+{trial.chain}" for trial in faults} == set(SUTS)
    assert not [trial for trial in faults if trial.schedule[0].point.phase == "after"]
    many = await run(trials, tmp_path / "many", 20)
    few = await run(trials, tmp_path / "few", 6)
    assert set(many) == set(few) == {trial.id for trial in trials}
    said = {name: (one.injection, one.verdict) for name, one in many.items()}
    assert said == {name: (one.injection, one.verdict) for name, one in few.items()}
    # Not all alike, or the same would be no wonder.
    assert len(Counter(said.values())) >= 4
    assert {injection for injection, _ in said.values()} == {"none", "witnessed"}
    # What the model said is the same to the letter, and so is what it cost.
    for name, one in many.items():
        if one.kind in {"baseline", "clean"} and one.sut == "minimal":
            assert (one.usage.model_calls, one.usage.prompt_tokens) == (
                few[name].usage.model_calls,
                few[name].usage.prompt_tokens,
            )
    # And what is stored says the same once more.
    assert [old for old, new in judge_stored(WORKFLOWS, Results(tmp_path / "few"), 5.0) if old != new] == []


def clean(*workflows: str) -> list[Trial]:
    return [Trial("baseline", "minimal", "optimized", workflow, seed=SEED) for workflow in workflows]


async def test_a_full_disk_ends_the_run_and_keeps_what_was_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = clean("finance/invoice_payment", "finance/customer_refund", "data/dead_letter_replay")
    room = Results.must_have_room

    def full(self: Results) -> None:
        if len(self.trials()) == 1:
            raise Unwritable("only 3 MiB are left")
        room(self)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "must_have_room", full)
        # By itself, not in a group of everything that was cancelled with it.
        with pytest.raises(Unwritable, match="only 3 MiB"):
            await run(trials, tmp_path / "out", 1)
    (kept,) = Results(tmp_path / "out").trials()
    after = await run(trials, tmp_path / "out", 3)
    assert next(iter(after)) == kept
    assert {one.verdict for one in after.values()} == {"correct"}
    assert len(after) == 3


async def test_a_trial_that_broke_the_harness_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [*clean("finance/invoice_payment"), KILLED]
    with monkeypatch.context() as patch:
        patch.setattr("kintsugi.harness.trial.serve_tools", None)
        broken = await run(trials, tmp_path / "out", 1)
    assert [one.verdict for one in broken.values()] == ["harness_error", "harness_error"]
    again = await run(trials, tmp_path / "out", 1)
    assert [(one.injection, one.verdict) for one in again.values()] == [("none", "correct"), ("witnessed", "correct")]


async def test_no_fault_is_run_where_the_clean_run_did_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say nothing, and a real model is paid for it."""
    ran: list[Trial] = []

    async def never_ends(trial: Trial, workflow: object, crew: object, folder: object, path: Path, *_: object) -> Any:
        ran.append(trial)
        with closing(History(path)) as history:
            history.add("runner", "closed")
            return history.events

    monkeypatch.setattr("kintsugi.harness.suite_run.run_trial", never_ends)
    (baseline,) = clean("finance/invoice_payment")
    typical = replace(baseline, kind="clean", variance="typical")
    timed = replace(KILLED, kind="timing")
    found = await run([baseline, typical, KILLED, timed], tmp_path / "out", 1)
    assert ran == [baseline, typical]
    assert [found[trial.id].injection for trial in (KILLED, timed)] == ["baseline_failed"] * 2
    kept = Results(tmp_path / "out")
    assert [old for old, new in judge_stored(WORKFLOWS, kept, 5.0) if old != new] == []
    story = tell(WORKFLOWS[KILLED.workflow], KILLED, kept.history(KILLED.id), found[KILLED.id])
    assert "the trial was not run: the clean run of this cell did not end correctly" in story
    # Nor when the run is gone on with: that would give another verdict than one that was never interrupted.
    ran.clear()
    assert await run([baseline, typical, KILLED, timed], tmp_path / "out", 1) == found
    assert ran == []
