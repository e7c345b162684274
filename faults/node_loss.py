"""A node disappears for good: its worker is killed, its scratch is gone; another node lives."""

from __future__ import annotations

from dataclasses import replace

from kintsugi.faults.actions import Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site
from kintsugi.faults.where import met_again

__all__ = ["FAULT"]


def _exact(site: Site) -> bool:
    return site.point.phase != "after" and site.point.kind != "submit"


_LOST = Kill(restart="never", lose_scratch=True)

FAULT = FaultClass(
    name="node_loss",
    layer="execution",
    what="The worker is killed, its scratch is gone, and nothing starts on its node again; of three nodes also two.",
    witness="The process was reaped with signal 9, and its scratch is gone; or the engine has removed its container.",
    dealt_with_by="engine",
    forms=(
        Form("process", _exact, (_LOST,), nodes=2),
        Form("successor_too", met_again, (replace(_LOST, times=2),), nodes=3, wants=("fail_over",)),
        Form("two_of_three", _exact, (replace(_LOST, others=1),), nodes=3, wants=("fail_over",)),
        Form("container", _exact, (_LOST,), nodes=2, wants=("containers",), needs="docker"),
    ),
)
