"""Whether this machine keeps up: how late the harness's own event loop is.

The doors, the human and the nemesis all run in that loop. Where it stands still for longer than a client waits, the SUT
meets a time-out that no fault asked for; such a trial says nothing of the SUT, and is run again.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["STALL_SECONDS", "Pulse"]

STALL_SECONDS = 0.75
"""From this lag on a trial does not count: half of the shortest time-out that any workflow has."""
BEAT_SECONDS = 0.05
KEPT = 1000
"""How many stalls are remembered; far more than any trial can meet."""


class Pulse:
    """Beats while `beat` runs, and remembers each time it came too late."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._last = 0.0

    async def beat(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._note(loop.time())

    def _note(self, now: float) -> None:
        late = now - self._last - BEAT_SECONDS
        if late >= STALL_SECONDS:
            self._late.append((now, late))
        self._last = now

    def stalled_since(self, began: float) -> float:
        """The longest stall that ended since an instant (event loop seconds), in seconds; 0 where there was none."""
        return max((late for ended, late in self._late if ended >= began), default=0.0)
