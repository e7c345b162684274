"""The worker is killed at any phase of any boundary, and restarted on the same node."""

from __future__ import annotations

from kintsugi.faults.actions import Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site
from kintsugi.faults.where import exact, met_again

__all__ = ["FAULT"]

AFTER_MS = (0, 1, 5, 20)
"""When, after a response was delivered, the kill is sampled: the window between hearing a result and recording it."""


def _after(site: Site) -> bool:
    return site.point.phase == "after"


FAULT = FaultClass(
    name="worker_kill",
    layer="execution",
    what="SIGKILL of the worker at a boundary; the same node starts a new one.",
    witness="The process was reaped with signal 9 before the boundary's request was let go.",
    dealt_with_by="engine",
    forms=(
        Form("at_boundary", exact, (Kill(),)),
        Form("again_in_recovery", met_again, (Kill(times=2),)),
        *(Form(f"after_{ms}ms", _after, (Kill(delay_ms=ms),)) for ms in AFTER_MS),
    ),
)
