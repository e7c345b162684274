"""A worker is stopped for longer than its lease, another takes its run over, and then the first wakes up."""

from __future__ import annotations

from kintsugi.faults.actions import Pause
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import in_flight, parked

__all__ = ["FAULT"]


FAULT = FaultClass(
    name="zombie_worker",
    layer="execution",
    what="The worker is stopped until another has taken its run over, and then goes on where it was.",
    witness="The launcher's wait status, stopped and then continued, and another worker's request between the two.",
    dealt_with_by="engine",
    forms=(
        Form("in_flight", in_flight, (Pause(),), nodes=2, wants=("fail_over",)),
        Form("in_flight_of_three", in_flight, (Pause(),), nodes=3, wants=("fail_over",)),
        Form("parked", parked, (Pause(),), nodes=2, wants=("fail_over",)),
    ),
)
