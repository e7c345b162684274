"""Whole runs with a model that errs, on real workers: each ends with a verdict, and what was proposed is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.records import Count, TrialResult
from kintsugi.harness.results import Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.trial import Trial

pytestmark = pytest.mark.process

NAMES = ("finance/invoice_payment", "marketing/lead_follow_up")
SEEDS = {"typical": (1, 2, 3), "hostile": (4, 5, 6)}
"""A trial's id does not name its variance: a suite has one."""


def total(results: list[TrialResult], measure: str) -> Count:
    counts = [getattr(result.measures, measure) for result in results]
    return Count(sum(count.k for count in counts), sum(count.n for count in counts))


async def test_a_run_with_an_erring_model_ends_with_a_verdict_and_its_calls_are_counted(tmp_path: Path) -> None:
    workflows = {name: workflow for name, workflow in load_workflows().items() if name in NAMES}
    cells = [("minimal", chain, name) for chain in ("naive", "optimized") for name in NAMES]
    trials = [Trial("baseline", *cell) for cell in cells]
    trials += [Trial("clean", *cell, seed=n, variance=name) for cell in cells for name in SEEDS for n in SEEDS[name]]
    store = Results(tmp_path / "r")
    store.begin({"seed": 1}, resume=False)
    try:
        await SuiteRun(workflows, store, 2, 1, 60.0, 5.0, lambda _: None).run(trials)
    finally:
        store.end()
    found = list(store.trials().values())
    assert len(found) == len(trials)
    assert {result.verdict for result in found if result.kind == "baseline"} == {"correct"}
    for result in found:
        assert result.verdict not in {None, "harness_error"}, result
        # A run that ends before its first call has none.
        assert result.measures.selection_reached.n <= result.usage.tool_calls, result.id
        choices, answers = result.measures.selection_proposed.n, result.measures.judgements_proposed.n
        assert (choices > 0, answers > 0) == ((True, False) if result.chain == "naive" else (False, True)), result.id
    assert total(found, "selection_reached").n > 100
    for chain, measure in (("naive", "selection_proposed"), ("optimized", "judgements_proposed")):
        right, erring = (
            total([r for r in found if (r.chain, r.variance) == (chain, variance)], measure)
            for variance in ("none", "hostile")
        )
        assert right.k == right.n > 0, "a baseline's model does not err"
        assert erring.k < erring.n, chain
