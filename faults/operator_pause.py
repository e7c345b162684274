"""A person pauses a run and resumes it later, while nothing is wrong or while its worker dies."""

from __future__ import annotations

from kintsugi.faults.actions import Kill, Suspend
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _step(site: Site) -> bool:
    """A request that is about to be served, or a run that waits for its person, who answers while it is paused."""
    point = site.point
    return (point.kind in {"tool", "model"} and point.phase == "before") or (point.kind, point.phase) == (
        "human",
        "waiting",
    )


FAULT = FaultClass(
    name="operator_pause",
    layer="execution",
    what="A person pauses a run, and resumes it later; meanwhile its worker dies, or has just died.",
    witness="The pause acknowledged by the SUT; what the run asked for until it was resumed is in the ledger.",
    dealt_with_by="engine",
    forms=(
        Form("paused", _step, (Suspend(),), wants=("operator",)),
        Form("killed_while_paused", _step, (Suspend(kill=True),), wants=("operator",)),
        Form("paused_while_down", _step, (Kill(), Suspend(while_down=True)), wants=("operator",)),
    ),
)
