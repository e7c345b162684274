"""A run's clock: Unix time that no one can turn back or ahead while the machine is up.

A worker may come back with its wall clock hours off. So a run's time is counted from its submission by the
machine's own count of seconds since boot, which goes on during suspend and which nobody sets; the wall clock
is asked only after a reboot, when there is nothing better.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Moment", "RunClock", "moment"]


@dataclass(frozen=True)
class Moment:
    """One point in time: Unix seconds, and seconds since the boot called `boot_id` (empty if not known)."""

    wall: float
    boot_id: str
    boot_seconds: float


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def moment() -> Moment:
    """Now."""
    return Moment(time.time(), _boot_id(), _boot_seconds())


class RunClock:
    """The time of a run that was submitted at `born`; `floor` is the latest time that it has recorded."""

    def __init__(self, born: Moment, floor: float = 0.0) -> None:
        same_boot = born.boot_id != "" and born.boot_id == _boot_id()
        self._floor = 0.0 if same_boot else floor
        self._offset = born.wall - born.boot_seconds if same_boot else None

    def now(self) -> float:
        """Unix seconds, never less than before."""
        reading = time.time() if self._offset is None else self._offset + _boot_seconds()
        self._floor = max(self._floor, reading)
        return self._floor
