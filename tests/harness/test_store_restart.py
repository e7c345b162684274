"""A database that is killed under an engine: one that keeps what it acknowledged, and one that only says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.adapters import ADAPTERS, Adapter, Unavailable
from kintsugi.harness.adapters.planted import DOES_NOT_FLUSH
from kintsugi.harness.crew import Crew
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

WORKFLOW = load_workflows()["finance/invoice_payment"]
DEADLINE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("adapter", "verdicts"),
    [(ADAPTERS["dbos_postgres"], {"correct"}), (DOES_NOT_FLUSH, {"lost", "corrupted"})],
    ids=lambda given: given.name if isinstance(given, Adapter) else "",
)
async def test_what_was_acknowledged_is_there_when_the_database_comes_back(
    adapter: Adapter, verdicts: set[str], tmp_path: Path
) -> None:
    strike = Strike("store_restart", "with_worker", Point.parse("end:end[0]#1@before"))
    trial = Trial("fault", adapter.name, "optimized", WORKFLOW.name, (strike,), 7)
    crew = Crew(adapter, tmp_path / "server")
    try:
        await crew.start()
    except Unavailable as problem:
        await crew.close()
        pytest.skip(str(problem))
    try:
        events = await run_trial(trial, WORKFLOW, crew, tmp_path / "t", tmp_path / "history.jsonl", DEADLINE_SECONDS)
    finally:
        await crew.close()
    result = judge_trial(WORKFLOW, trial, events, {}, 5.0)
    assert result.injection == "witnessed", result.reason
    assert result.verdict in verdicts, result.reason
