"""What a SUT is told once is told again: a run is submitted twice, a decision arrives when it was heeded long ago."""

from __future__ import annotations

from collections.abc import Callable

from kintsugi.faults.actions import Redeliver, Resubmit
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _at(kind: str, *phases: str) -> Callable[[Site], bool]:
    def applies(site: Site) -> bool:
        return site.point.kind == kind and site.point.phase in phases

    return applies


def _decided(phase: str) -> Callable[[Site], bool]:
    return lambda site: site.guarded and _at("end", phase)(site)


_SUBMITTED = _at("submit", "after")

FAULT = FaultClass(
    name="duplicate_delivery",
    layer="execution",
    what="The run is submitted again, at once, twice together, or when it is over; its decisions come again late.",
    witness="The SUT's answer to what came again, a yes or a no.",
    dealt_with_by="engine",
    forms=(
        Form("submitted_again", _SUBMITTED, (Resubmit(),)),
        Form("submitted_together", _SUBMITTED, (Resubmit(copies=2),)),
        Form("submitted_in_between", _at("tool", "before"), (Resubmit(),)),
        Form("submitted_when_over", _at("end", "after"), (Resubmit(),)),
        Form("decided_again", _decided("before"), (Redeliver(),), wants=("pushed_decisions",)),
        Form("decided_when_over", _decided("after"), (Redeliver(),), wants=("pushed_decisions",)),
    ),
)
