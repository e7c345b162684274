"""The workflow in which every primitive stands together, on each engine: polls, and a group side by side or in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi.golden_workflows.spec import load_workflow
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.history import of
from kintsugi.harness.results import Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.trial import Trial

pytestmark = [pytest.mark.engines, pytest.mark.process]

FILE = Path(__file__).parents[2] / "golden_workflows" / "primitives" / "depot" / "stocktake.toml"
WORKFLOW = load_workflow(FILE)
SIDE_BY_SIDE = {"langgraph": False, "dbos": False, "restate": False, "temporal": True}


@pytest.mark.parametrize("sut", SIDE_BY_SIDE)
async def test_an_engine_carries_it_to_its_truth(sut: str, tmp_path: Path) -> None:
    try:
        ADAPTERS[sut].must_be_there()
    except Unavailable as problem:
        pytest.skip(str(problem))
    results, trial = Results(tmp_path / "results"), Trial("baseline", sut, "optimized", WORKFLOW.name, seed=7)
    results.begin({"seed": 7}, resume=False)
    try:
        await SuiteRun({WORKFLOW.name: WORKFLOW}, results, 1, 1, 60.0, 5.0, lambda _: None).run([trial])
    finally:
        results.end()
    result = results.trials()[trial.id]
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")
    events = of(results.history(trial.id), "world", "request", "answer")
    group = {e["request"]: e["t"] for e in events if e["what"] == "request" and e["step"] in {"dock", "labels", "tell"}}
    first_answer = min(e["t"] for e in events if e["what"] == "answer" and e["request"] in group)
    assert (max(group.values()) < first_answer) is SIDE_BY_SIDE[sut]
