"""An instruction is corrected during the run, and the run is restarted after that."""

from __future__ import annotations

from kintsugi.faults.actions import Drift, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _waiting(site: Site) -> bool:
    return site.point.phase == "waiting" and bool(site.instructions)


FAULT = FaultClass(
    name="stale_context",
    layer="semantic",
    what="What somebody has asked for is corrected while the run waits; then the worker is killed and restarted.",
    witness="The instruction's version moved on after the run had read it, and the process was reaped with signal 9.",
    dealt_with_by="chain",
    forms=(Form("corrected_then_killed", _waiting, (Drift(), Kill()), drifts="instruction"),),
)
