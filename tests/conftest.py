"""With KINTSUGI_CI=1 a skipped test is a failed one: what CI did not run, it must not seem to have passed."""

import os
from collections.abc import Generator

import pytest

SKIPS_FAIL = os.environ.get("KINTSUGI_CI") == "1"


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip's report into a failure's, keeping its reason. An expected failure is no skip."""
    if not SKIPS_FAIL or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
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
