"""The machine loses its power: its workers are gone, and with them what was not synced to the disk."""

from __future__ import annotations

from kintsugi.faults.actions import LosePower
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _any(_: Site) -> bool:
    """Also right after an answer was heard: what is recorded then may be written and not synced."""
    return True


FAULT = FaultClass(
    name="power_loss",
    layer="execution",
    what="The worker is killed, and its disk loses all that was not synced; both come back.",
    witness="Reaped with signal 9, the disk shut down; afterwards a synced file was there, and one not synced was not.",
    dealt_with_by="engine",
    forms=(Form("disk_cut", _any, (LosePower(),), wants=("own_files",), needs="loop_disk"),),
)
