"""Many workflows meet one failing tool at once."""

from __future__ import annotations

from kintsugi.faults.actions import Outage
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["COPIES", "FAULT"]

COPIES = 50


def _tool(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "before" and site.point.item == 0


FAULT = FaultClass(
    name="retry_storm",
    layer="execution",
    what="Fifty workflows run at once and one tool answers 503, or 429 with Retry-After, for a while.",
    witness="Refused requests in the ledger.",
    dealt_with_by="adapter",
    forms=(
        Form("unavailable_503", _tool, (Outage(503, seconds=1.0),), copies=COPIES),
        Form("limited_429", _tool, (Outage(429, seconds=1.0, retry_after_seconds=1.0),), copies=COPIES),
    ),
)
