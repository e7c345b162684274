"""The decision on an approval comes late, twice, too early, as a no, or never."""

from __future__ import annotations

from kintsugi.faults.actions import Decide, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]

LATE_HOURS = 24.0
EXPIRY_HOURS = 48.0
RESTART_HOURS = 12.0
"""Long enough for the worker that was killed meanwhile to be back."""


def _waiting(site: Site) -> bool:
    return site.point.kind == "human" and site.point.phase == "waiting"


FAULT = FaultClass(
    name="approval_delay",
    layer="execution",
    what="The person answers a day later, after a restart, twice, before the wait begins, with no, or not at all.",
    witness="When the decision was delivered, and how many workers had lived since the question.",
    dealt_with_by="engine",
    forms=(
        Form("late", _waiting, (Decide(delay_hours=LATE_HOURS),)),
        Form("late_after_restart", _waiting, (Kill(), Decide(delay_hours=LATE_HOURS))),
        Form("delivered_twice", _waiting, (Decide(deliveries=2),), wants=("pushed_decisions",)),
        Form("before_wait", _waiting, (Decide(before_wait=True),)),
        Form("rejected", _waiting, (Decide("reject"),)),
        Form("rejected_after_restart", _waiting, (Kill(), Decide("reject", delay_hours=RESTART_HOURS))),
        Form("never", _waiting, (Decide("expire", delay_hours=EXPIRY_HOURS),)),
    ),
)
