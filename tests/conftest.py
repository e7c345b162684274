"""No skips in CI: what it did not run, it must not seem to have passed. And trials on real SUTs, for their tests."""

import asyncio
import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kintsugi.harness.results import Results

TRIAL_SECONDS = 180.0
"""The deadline of a trial that a test runs: all that a module needs begin at once, and each loads an engine."""
SKIPS_FAIL = os.environ.get("KINTSUGI_CI") == "1"
CAN_NOT_BE_HAD = tuple(name + ":" for name in os.environ.get("KINTSUGI_CI_WITHOUT", "").split())
"""What no installation brings here, privileges above all, and what is then said loudly: by the names of the means."""


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip's report into a failure's, keeping its reason. An expected failure is no skip."""
    if not SKIPS_FAIL or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if reason.removeprefix("Skipped: ").startswith(CAN_NOT_BE_HAD):
        return
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: skipped, and KINTSUGI_CI=1 allows no skips. {reason}"


# Outermost, to see the outcome that every other plugin has agreed on.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


# A whole module that skips itself never becomes a test, only a collection report.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Results":
    """The `TRIALS` of the test's module, run all at once against real SUTs; skipped where one of these is not there."""
    from kintsugi.golden_workflows.spec import load_workflows
    from kintsugi.harness.adapters import ADAPTERS, Unavailable
    from kintsugi.harness.results import Results
    from kintsugi.harness.suite_run import SuiteRun

    trials = request.module.TRIALS
    for sut in sorted({trial.sut for trial in trials}):
        try:
            ADAPTERS[sut].must_be_there()
        except Unavailable as problem:
            pytest.skip(str(problem))
    kept = Results(tmp_path_factory.mktemp("trials") / "results")
    kept.begin({"seed": 7}, resume=False)
    run = SuiteRun(load_workflows(), kept, len(trials), 1, TRIAL_SECONDS, 5.0, lambda _: None)
    try:
        asyncio.run(run.run(trials))
    finally:
        kept.end()
    return kept
