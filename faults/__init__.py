"""What can go wrong: the action vocabulary, and one file for each fault class that composes it."""

from __future__ import annotations

from collections.abc import Mapping

from kintsugi.faults import (
    approval_delay,
    loop,
    malformed_output,
    network_failure,
    node_loss,
    partial_side_effect,
    retry_storm,
    stale_data,
    tool_timeout,
    worker_kill,
    zombie_worker,
)
from kintsugi.faults.fault import FaultClass

__all__ = ["FAULTS"]

FAULTS: Mapping[str, FaultClass] = {
    module.FAULT.name: module.FAULT
    for module in (
        worker_kill,
        tool_timeout,
        partial_side_effect,
        network_failure,
        malformed_output,
        stale_data,
        approval_delay,
        node_loss,
        loop,
        retry_storm,
        zombie_worker,
    )
}
"""Every fault class by its name, in the order of the catalogue."""
