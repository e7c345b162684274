"""One workflow of several crashes its worker again and again; the others are to end as if it were not there."""

from __future__ import annotations

from kintsugi.faults.actions import Poison
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]

COPIES = 5
NODES = 2


def _step(site: Site) -> bool:
    return site.point.kind in {"tool", "model"} and site.point.phase == "before" and site.point.item == 0


FAULT = FaultClass(
    name="poison_workflow",
    layer="execution",
    what="Of five workflows one kills whichever worker carries it, each time that it comes to the same step.",
    witness="Each worker reaped by signal 9 before the request is let go.",
    dealt_with_by="engine",
    forms=(
        Form("one_node", _step, (Poison(),), copies=COPIES),
        Form("two_nodes", _step, (Poison(),), copies=COPIES, nodes=NODES, wants=("fail_over",)),
    ),
)
