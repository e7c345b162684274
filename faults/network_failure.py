"""The connection to a tool or to the model fails: refused, reset, or silent."""

from __future__ import annotations

from kintsugi.faults.actions import Cut, Hold, Refuse
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import call_committed, reply_generated, request_made

__all__ = ["FAULT"]


FAULT = FaultClass(
    name="network_failure",
    layer="execution",
    what="The service's port refuses connections for a while, or a connection is reset or goes silent.",
    witness="The socket was closed by us without a byte of a response; for refused, the listener was down.",
    dealt_with_by="adapter",
    forms=(
        Form("refused", request_made, (Refuse(),)),
        Form("reset_before", request_made, (Cut("reset"),)),
        Form("reset_twice", request_made, (Cut("reset", times=2),)),
        Form("reset_generated", reply_generated, (Cut("reset"),)),
        Form("reset_committed", call_committed, (Cut("reset"),)),
        Form("silent", request_made, (Hold(),)),
    ),
)
