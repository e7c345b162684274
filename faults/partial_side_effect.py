"""A write takes effect and its response is lost."""

from __future__ import annotations

from kintsugi.faults.actions import Answer, Cut, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import call_committed

__all__ = ["FAULT"]


FAULT = FaultClass(
    name="partial_side_effect",
    layer="side-effect",
    what="The effect is applied, and then the connection is reset, closed empty, answered 500, or the worker dies.",
    witness="The ledger holds the effect, and no byte of its result was sent.",
    dealt_with_by="adapter",
    forms=(
        Form("reset", call_committed, (Cut("reset"),)),
        Form("empty", call_committed, (Cut("empty"),)),
        Form("error_500", call_committed, (Answer(500),)),
        Form("killed", call_committed, (Kill(),)),
    ),
)
