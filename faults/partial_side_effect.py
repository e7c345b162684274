"""A write takes effect and its response is lost."""

from __future__ import annotations

from kintsugi.faults.actions import Answer, Cut, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _committed(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "committed"


FAULT = FaultClass(
    name="partial_side_effect",
    layer="side-effect",
    what="The effect is applied, and then the connection is reset, closed empty, answered 500, or the worker dies.",
    witness="The ledger holds the effect, and no byte of its result was sent.",
    dealt_with_by="adapter",
    forms=(
        Form("reset", _committed, (Cut("reset"),)),
        Form("empty", _committed, (Cut("empty"),)),
        Form("error_500", _committed, (Answer(500),)),
        Form("killed", _committed, (Kill(),)),
    ),
)
