"""The connection to a tool or to the model fails: refused, reset, or silent."""

from __future__ import annotations

from kintsugi.faults.actions import Cut, Hold, Refuse
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _request(site: Site) -> bool:
    return site.point.kind in {"tool", "model"} and site.point.phase == "before"


def _generated(site: Site) -> bool:
    return site.point.kind == "model" and site.point.phase == "during"


def _committed(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "committed"


FAULT = FaultClass(
    name="network_failure",
    layer="execution",
    what="The service's port refuses connections for a while, or a connection is reset or goes silent.",
    witness="The socket was closed by us without a byte of a response; for refused, the listener was down.",
    dealt_with_by="adapter",
    forms=(
        Form("refused", _request, (Refuse(),)),
        Form("reset_before", _request, (Cut("reset"),)),
        Form("reset_twice", _request, (Cut("reset", times=2),)),
        Form("reset_generated", _generated, (Cut("reset"),)),
        Form("reset_committed", _committed, (Cut("reset"),)),
        Form("silent", _request, (Hold(),)),
    ),
)
