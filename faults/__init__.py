"""What can go wrong: the action vocabulary, and one file for each fault class that composes it."""

from __future__ import annotations

from collections.abc import Mapping

from kintsugi.faults import (
    approval_delay,
    clock_jump,
    deploy_mid_run,
    disk_full,
    duplicate_delivery,
    hostile_output,
    invalid_external_data,
    loop,
    malformed_output,
    model_outage,
    network,
    network_failure,
    node_loss,
    operator_pause,
    partial_side_effect,
    partition,
    poison_workflow,
    power_loss,
    rate_limit,
    retry_storm,
    schema_drift,
    stale_context,
    stale_data,
    store_restart,
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
        stale_context,
        network,
        partition,
        invalid_external_data,
        rate_limit,
        model_outage,
        duplicate_delivery,
        schema_drift,
        hostile_output,
        power_loss,
        clock_jump,
        disk_full,
        poison_workflow,
        store_restart,
        operator_pause,
        deploy_mid_run,
    )
}
"""Every fault class by its name, in the order of the catalogue."""
