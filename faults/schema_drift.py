"""A tool's response is no longer what it was: its service adds, drops or renames a field."""

from __future__ import annotations

from kintsugi.faults.actions import Tamper
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import call_made

__all__ = ["FAULT", "FOR_GOOD"]

FOR_GOOD = 1000
"""More often than anything is asked for."""


FAULT = FaultClass(
    name="schema_drift",
    layer="semantic",
    what="A tool's result gains a field for good, or a declared one is lost or renamed, once or for good.",
    witness="The result that was delivered differs from the one that was found.",
    dealt_with_by="adapter",
    forms=(
        Form("gains_field", call_made, (Tamper("gains_field", times=FOR_GOOD),)),
        Form("loses_field", call_made, (Tamper("loses_field"),)),
        Form("renames_field", call_made, (Tamper("renames_field"),)),
        Form("loses_for_good", call_made, (Tamper("loses_field", times=FOR_GOOD),), may_halt=True),
        Form("renames_for_good", call_made, (Tamper("renames_field", times=FOR_GOOD),), may_halt=True),
    ),
)
