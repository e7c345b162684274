"""Runs work that an interrupt ends without leaving anything behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine

__all__ = ["EXIT_INTERRUPTED", "to_its_end"]

EXIT_INTERRUPTED = 130
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def to_its_end(work: Coroutine[object, object, None]) -> bool:
    """Run work in an event loop of its own; whether it came to its end. Interrupted, it has cleared up first."""

    async def until_done_or_interrupted() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            # Once: a second Ctrl-C would cut the clearing up short.
            for number in INTERRUPTS:
                loop.add_signal_handler(number, lambda: None)
            task.cancel()

        for number in INTERRUPTS:
            loop.add_signal_handler(number, interrupt)
        await task

    try:
        asyncio.run(until_done_or_interrupted())
    except asyncio.CancelledError:
        return False
    return True
