"""Trial results made by hand, for what is computed from them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from kintsugi.harness.records import Human, Measures, Repeats, Times, TrialResult, Usage

MakeResult = Callable[..., TrialResult]


@pytest.fixture
def make_result() -> MakeResult:
    """Makes a witnessed fault at a point of its own, recovered from at no cost, unless told otherwise.

    ``kind="baseline"`` or ``"clean"`` leaves the fault out; a ``"timing"`` has one unless ``fault=""``.
    """
    numbers = count()

    def make(**changes: Any) -> TrialResult:  # noqa: ANN401 - as dataclasses.replace takes them
        number = next(numbers)
        plain = TrialResult(
            id=f"t{number:05}",
            kind="fault",
            sut="minimal",
            chain="optimized",
            workflow="finance/invoice_payment",
            workflow_class="finance",
            seed=7,
            variance="none",
            fault="worker_kill",
            form="at_boundary",
            points=(f"tool:pay[{number}]#1@before",),
            phase="before",
            layer="execution",
            dealt_with_by="engine",
            weight=1.0,
            injection="witnessed",
            verdict="correct",
            reason="",
            resumed_exactly=True,
            measures=Measures(),
            usage=Usage(),
            repeats=Repeats(),
            human=Human(),
            times=Times(),
        )
        calm = changes.get("kind") in {"baseline", "clean"} or changes.get("fault") == ""
        if calm:
            plain = replace(
                plain,
                fault="",
                form="",
                points=(),
                phase="",
                layer="",
                dealt_with_by="",
                injection="none",
                resumed_exactly=None,
                seed=number,
                variance="typical" if changes.get("kind") == "clean" else "none",
            )
        if "workflow" in changes:
            changes.setdefault("workflow_class", changes["workflow"].split("/")[0])
        return replace(plain, **changes)

    return make
