"""A machine that stands still is noticed, and what was run meanwhile does not count."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.history import of
from kintsugi.harness.pulse import STALL_SECONDS, Pulse
from kintsugi.harness.results import Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.trial import Trial

BASELINE = Trial("baseline", "minimal", "optimized", "finance/invoice_payment", seed=7)


async def test_a_stall_is_remembered_for_whoever_began_before_it() -> None:
    loop, found = asyncio.get_running_loop(), Pulse()
    task = asyncio.create_task(found.beat())
    await asyncio.sleep(0)
    began = loop.time()
    time.sleep(STALL_SECONDS * 1.5)  # noqa: ASYNC251 - it is the loop that is to stand still
    while not found.stalled_since(began):
        await asyncio.sleep(0)
    assert found.stalled_since(began) >= STALL_SECONDS
    assert found.stalled_since(loop.time()) == 0
    task.cancel()


class _Stalls(Pulse):
    """Says of the first trials that the machine stood still."""

    left = 0

    def stalled_since(self, began: float) -> float:
        type(self).left -= 1
        return 2.0 if type(self).left >= 0 else 0.0


def run(folder: Path) -> Results:
    results = Results(folder)
    results.begin({}, resume=False)
    asyncio.run(SuiteRun(load_workflows(), results, 1, 1, 60.0, 5.0, lambda _: None, _pulse=_Stalls()).run([BASELINE]))
    results.end()
    return results


@pytest.mark.process
@pytest.mark.parametrize(("stalls", "verdict"), [(1, "correct"), (99, "harness_error")])
def test_a_trial_that_met_a_stall_is_run_again_and_blamed_on_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalls: int, verdict: str
) -> None:
    monkeypatch.setattr(_Stalls, "left", stalls)
    results = run(tmp_path / "results")
    done = results.trials()[BASELINE.id]
    assert done.verdict == verdict
    stalled = of(results.history(BASELINE.id), "runner", "stalled")
    assert [event["seconds"] for event in stalled] == ([2.0] if verdict == "harness_error" else [])
    if verdict == "harness_error":
        assert "stood still for 2 s" in done.reason
