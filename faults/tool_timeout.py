"""A tool's response is delayed past the client's time-out, with its effect applied or not."""

from __future__ import annotations

from kintsugi.faults.actions import Hold
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import ATTEMPTS_MAX, call_committed, call_made

__all__ = ["FAULT"]


FAULT = FaultClass(
    name="tool_timeout",
    layer="side-effect",
    what="The tool does not answer until the client has given up: once, twice, or beyond any retry budget.",
    witness="The client closed the connection while its request was held.",
    dealt_with_by="adapter",
    forms=(
        Form("not_applied", call_made, (Hold(),)),
        Form("applied", call_committed, (Hold(),)),
        Form("twice", call_made, (Hold(times=2),)),
        Form("beyond_budget", call_made, (Hold(times=ATTEMPTS_MAX),), may_halt=True),
    ),
)
