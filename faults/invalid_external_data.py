"""What a tool reads out breaks its schema, or is absurd: of another type, below zero, an unknown choice, nothing."""

from __future__ import annotations

from collections.abc import Callable

from kintsugi.faults.actions import Tamper
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Holds, Site
from kintsugi.faults.schema_drift import FOR_GOOD

__all__ = ["FAULT"]


def _read(*holds: Holds) -> Callable[[Site], bool]:
    def applies(site: Site) -> bool:
        read = site.effect == "read" and site.point.phase == "before"
        return read and set(holds) <= set(site.holds)

    return applies


FAULT = FaultClass(
    name="invalid_external_data",
    layer="semantic",
    what="A read's result holds a value of another type, a number below zero, an unknown choice, or nothing at all.",
    witness="The result that was delivered differs from the one that was found.",
    dealt_with_by="adapter",
    forms=(
        Form("wrong_type", _read(), (Tamper("wrong_type"),)),
        Form("below_zero", _read("number"), (Tamper("below_zero"),)),
        Form("unknown_choice", _read("choice"), (Tamper("unknown_choice"),)),
        Form("empty_record", _read(), (Tamper("empty_record"),)),
        Form("empty_for_good", _read(), (Tamper("empty_record", times=FOR_GOOD),), may_halt=True),
    ),
)
