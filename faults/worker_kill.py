"""The worker is killed at any phase of any boundary, and restarted on the same node."""

from __future__ import annotations

from kintsugi.faults.actions import Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]

AFTER_MS = (0, 1, 5, 20)
"""When, after a response was delivered, the kill is sampled: the window between hearing a result and recording it."""


def _exact(site: Site) -> bool:
    return site.point.phase != "after"


def _after(site: Site) -> bool:
    return site.point.phase == "after"


def _met_again(site: Site) -> bool:
    """Nothing has come of the request yet, so that every recovery has to make it again."""
    return site.point.phase in {"before", "during"} and site.point.kind != "decision"


FAULT = FaultClass(
    name="worker_kill",
    layer="execution",
    what="SIGKILL of the worker at a boundary; the same node starts a new one.",
    witness="The process was reaped with signal 9 before the boundary's request was let go.",
    dealt_with_by="engine",
    forms=(
        Form("at_boundary", _exact, (Kill(),)),
        Form("again_in_recovery", _met_again, (Kill(times=2),)),
        *(Form(f"after_{ms}ms", _after, (Kill(delay_ms=ms),)) for ms in AFTER_MS),
    ),
)
