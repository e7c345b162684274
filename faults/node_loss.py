"""A node disappears for good: its worker is killed, its scratch is gone; another node lives."""

from __future__ import annotations

from kintsugi.faults.actions import Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _exact(site: Site) -> bool:
    return site.point.phase != "after" and site.point.kind != "submit"


FAULT = FaultClass(
    name="node_loss",
    layer="execution",
    what="The worker is killed, its scratch folder removed, and nothing starts on its node again.",
    witness="The process was reaped with signal 9, and the scratch folder is gone.",
    dealt_with_by="engine",
    forms=(Form("process", _exact, (Kill(restart="never", lose_scratch=True),), nodes=2),),
)
