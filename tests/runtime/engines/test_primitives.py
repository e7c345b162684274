"""The workflow in which every primitive stands together, on each engine: polls, and a group side by side or in turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import Workflow, load_workflow
from kintsugi.harness import world
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.deeds.blow import Crossing
from kintsugi.harness.history import of
from kintsugi.harness.results import Results
from kintsugi.harness.session import Session
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.trial import Trial

pytestmark = [pytest.mark.engines, pytest.mark.process]

FILE = Path(__file__).parents[2] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml"
GROUP = {"dock", "labels", "tell"}
SIDE_BY_SIDE = {"langgraph": False, "dbos": False, "restate": False, "temporal": True}


def patient(folder: Path) -> Workflow:
    """The workflow; no machine is so slow that a call of it is taken for lost."""
    path = folder / "depot" / FILE.name
    path.parent.mkdir()
    path.write_text(f"{FILE.read_text(encoding='utf-8')}\n[policy]\ntool_timeout_seconds = 20\n", encoding="utf-8")
    return load_workflow(path, FILE.parents[1] / "tools")


def answer_none_before_all_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group's calls none is answered before each of them was made: made in turn, they would not get on."""
    groups: dict[Session, tuple[set[str], asyncio.Event]] = {}
    answer = world._answer

    async def held(incoming: Incoming, crossing: Crossing, *further: Any, **more: Any) -> None:
        if crossing.step in GROUP:
            # A trial is run again where the machine stood still meanwhile, and then has a session of its own.
            asked, all_asked = groups.setdefault(incoming.session, (set(), asyncio.Event()))
            asked.add(crossing.step)
            if asked == GROUP:
                all_asked.set()
            await all_asked.wait()
        await answer(incoming, crossing, *further, **more)

    monkeypatch.setattr(world, "_answer", held)


@pytest.mark.parametrize("sut", SIDE_BY_SIDE)
async def test_an_engine_carries_it_to_its_truth(sut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        ADAPTERS[sut].must_be_there()
    except Unavailable as problem:
        pytest.skip(str(problem))
    if SIDE_BY_SIDE[sut]:
        answer_none_before_all_are_asked(monkeypatch)
    workflow = patient(tmp_path)
    results, trial = Results(tmp_path / "results"), Trial("baseline", sut, "optimized", workflow.name, seed=7)
    results.begin({"seed": 7}, resume=False)
    try:
        await SuiteRun({workflow.name: workflow}, results, 1, 1, 180.0, 5.0, lambda _: None).run([trial])
    finally:
        results.end()
    result = results.trials()[trial.id]
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")
    events = of(results.history(trial.id), "world", "request", "answer")
    group = [e["request"] for e in events if e["what"] == "request" and e["step"] in GROUP]
    order = [e["what"] for e in events if e["request"] in group]
    assert order.index("answer") == (len(GROUP) if SIDE_BY_SIDE[sut] else 1)
