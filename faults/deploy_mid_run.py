"""Workers come back with a newer release of the workflow's code, in the middle of runs that an older one has begun."""

from __future__ import annotations

from kintsugi.faults.actions import Deploy, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _begun(site: Site) -> bool:
    return site.point.kind in {"tool", "model", "human", "timer"} and site.point.phase != "after"


FAULT = FaultClass(
    name="deploy_mid_run",
    layer="execution",
    what="SIGKILL of the worker, which comes back with a release that has one more step, or asks in other words.",
    witness="The old worker reaped by signal 9, and the command line of the new one names the new release.",
    dealt_with_by="engine",
    forms=(
        Form("step_added", _begun, (Kill(), Deploy("STEP_ADDED")), wants=("redeployable",)),
        Form("reworded", _begun, (Kill(), Deploy("REWORDED")), wants=("redeployable",)),
    ),
)
