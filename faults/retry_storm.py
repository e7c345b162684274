"""Many workflows meet one failing tool at once."""

from __future__ import annotations

from kintsugi.faults.actions import Outage
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["COPIES", "COPIES_MANY", "FAULT"]

COPIES = 50
COPIES_MANY = 500


def _tool(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "before" and site.point.item == 0


FAULT = FaultClass(
    name="retry_storm",
    layer="execution",
    what="Fifty workflows, or 500, run at once and one tool answers 503, 429 with Retry-After, or nothing for a while.",
    witness="Refused requests in the ledger, or requests in it whose client gave up.",
    dealt_with_by="adapter",
    forms=(
        Form("unavailable_503", _tool, (Outage(503, seconds=1.0),), copies=COPIES),
        Form("limited_429", _tool, (Outage(429, seconds=1.0, retry_after_seconds=1.0),), copies=COPIES),
        Form("silent", _tool, (Outage(0, seconds=1.0),), copies=COPIES),
        Form("unavailable_503_by_500", _tool, (Outage(503, seconds=2.0),), copies=COPIES_MANY),
        Form("limited_429_by_500", _tool, (Outage(429, seconds=2.0, retry_after_seconds=2.0),), copies=COPIES_MANY),
    ),
)
