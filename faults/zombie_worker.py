"""A worker is stopped for longer than its lease, another takes its run over, and then the first wakes up."""

from __future__ import annotations

from kintsugi.faults.actions import Pause
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _in_flight(site: Site) -> bool:
    """A request whose answer may be heard by a zombie and asked for again by its successor.

    That is any request to the model or of a read, and a write that carries a key; of another write nobody could tell
    whether the zombie's has happened.
    """
    if site.point.phase not in {"before", "during", "committed"}:
        return False
    return site.point.kind == "model" or site.effect == "read" or site.idempotency == "key"


def _parked(site: Site) -> bool:
    return site.point.kind in {"human", "timer"} and site.point.phase == "waiting"


FAULT = FaultClass(
    name="zombie_worker",
    layer="execution",
    what="The worker is stopped until another has taken its run over, and then goes on where it was.",
    witness="The launcher's wait status, stopped and then continued, and another worker's request between the two.",
    dealt_with_by="engine",
    forms=(
        Form("in_flight", _in_flight, (Pause(),), nodes=2, wants=("fail_over",)),
        Form("in_flight_of_three", _in_flight, (Pause(),), nodes=3, wants=("fail_over",)),
        Form("parked", _parked, (Pause(),), nodes=2, wants=("fail_over",)),
    ),
)
