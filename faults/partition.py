"""One node loses its way to every outside service, while the others keep theirs; later it heals."""

from __future__ import annotations

from kintsugi.faults.actions import Partition
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site
from kintsugi.faults.where import in_flight, parked

__all__ = ["FAULT"]

BRIEF_SECONDS = 1.0
"""Shorter than any lease: nobody else can have noticed."""
LONG_SECONDS = 5.0
"""Twice the failure-detection budget and more, and shorter than the retry budget of any workflow."""

TAKE_OVER_SECONDS = 12.0
"""Several times the failure-detection budget of 2 s, and beyond what engines take to hand a run on."""


def _struck(site: Site) -> bool:
    """A request is on its way, or the run is parked and the next one will be."""
    if parked(site):
        return True
    if site.point.phase not in {"before", "during", "committed"}:
        return False
    return site.point.kind in {"tool", "model", "human", "end"}


FAULT = FaultClass(
    name="partition",
    layer="execution",
    what="From a request on, one node reaches no service and hears from none, or it loses its store; then it heals.",
    witness="Requests of the node were kept from their services while it was cut off, and it was healed.",
    dealt_with_by="adapter",
    forms=(
        Form("brief", _struck, (Partition(BRIEF_SECONDS),), nodes=2),
        Form("long", _struck, (Partition(LONG_SECONDS),), nodes=2),
        Form("rejected", _struck, (Partition(BRIEF_SECONDS, rejects=True),), nodes=2, may_halt=True),
        Form(
            "container",
            _struck,
            (Partition(BRIEF_SECONDS),),
            nodes=2,
            may_halt=True,
            wants=("containers",),
            needs="docker",
        ),
        Form(
            "store",
            in_flight,
            (Partition(TAKE_OVER_SECONDS, side="store"),),
            nodes=2,
            wants=("fail_over", "store_link"),
            needs="toxiproxy",
        ),
    ),
)
