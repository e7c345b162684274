"""What a result owes to how its SUT was run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kintsugi.harness.commands.finish import _as_run
from kintsugi.harness.records import Human, Measures, Repeats, Times, TrialResult, Usage

RESULT = TrialResult(
    id="t",
    kind="fault",
    sut="engine",
    chain="naive",
    workflow="finance/invoice_payment",
    workflow_class="finance",
    seed=7,
    variance="none",
    fault="worker_kill",
    form="at_boundary",
    points=("tool:pay[0]#1@before",),
    phase="before",
    layer="execution",
    dealt_with_by="engine",
    weight=1.0,
    injection="witnessed",
    verdict="correct",
    reason="",
    resumed_exactly=True,
    measures=Measures(),
    usage=Usage(cpu_seconds=1.0),
    repeats=Repeats(),
    human=Human(),
    times=Times(),
    generations=2,
    trial={"copies": 1, "nodes": 1},
)


@pytest.mark.parametrize(("copies", "expected"), [(1, 1.5), (50, 26.0)])
def test_a_shared_servers_cpu_time_is_charged_by_runs(copies: int, expected: float) -> None:
    how = {"server": {"cpu_seconds": 100.0, "runs": 200}}
    charged = _as_run(replace(RESULT, trial={"copies": copies}), how)
    assert charged.usage.cpu_seconds == expected


@pytest.mark.parametrize("how", [{}, {"server": {}}, {"server": {"cpu_seconds": 1.0, "runs": 0}}])
def test_without_a_server_nothing_is_charged(how: dict[str, Any]) -> None:
    assert _as_run(RESULT, how) == RESULT


@pytest.mark.parametrize(
    ("nodes", "resumes", "failed_over_by", "expected"),
    [
        (1, "engine", "supervisor", "engine"),
        (2, "engine", "supervisor", "adapter"),
        (1, "supervisor", "supervisor", "adapter"),
        (2, "engine", "engine", "engine"),
        (1, "script", "", "engine"),
    ],
)
def test_what_the_supervisor_had_taken_up_is_not_the_engines(
    nodes: int, resumes: str, failed_over_by: str, expected: str
) -> None:
    result = replace(RESULT, trial={"nodes": nodes})
    assert _as_run(result, {"resumes": resumes, "failed_over_by": failed_over_by}).dealt_with_by == expected


def test_a_run_that_was_never_taken_up_owes_nothing_to_the_supervisor() -> None:
    assert _as_run(replace(RESULT, generations=1), {"resumes": "supervisor"}).dealt_with_by == "engine"
