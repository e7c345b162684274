"""The state folder's disk has no space left for a while: under a living worker, while one restarts, or both in turn."""

from __future__ import annotations

from kintsugi.faults.actions import FillDisk, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import exact

__all__ = ["FAULT"]

MEANS = "small_disk"


FAULT = FaultClass(
    name="disk_full",
    layer="execution",
    what="The disk that holds the SUT's state is filled to its last byte, and freed a second or two later.",
    witness="A write of ours got ENOSPC, and the file system said that 0 bytes were left; a killed worker was reaped.",
    dealt_with_by="engine",
    forms=(
        Form("frees_up", exact, (FillDisk(),), wants=("own_files",), needs=MEANS),
        Form("while_restarting", exact, (Kill(), FillDisk()), wants=("own_files",), needs=MEANS),
        Form("killed_while_full", exact, (FillDisk(2.0, kill_after_seconds=1.0),), wants=("own_files",), needs=MEANS),
    ),
)
