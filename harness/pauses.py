"""Whether a run that an operator had paused stood still. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kintsugi.harness.history import Event, of

__all__ = ["acted_while_paused"]


def acted_while_paused(events: Sequence[Event]) -> str:
    """The first effect of a run between its pause and its being resumed; empty where there is none.

    `events` are the run's. What had been asked for before the pause may come to its end; and it may go on from the
    moment on at which it is told to, which is before that is acknowledged.
    """
    issued = {event["request"]: event["t"] for event in of(events, "world", "request")}
    paused_at: float | None = None
    for event in events:
        what = (event["who"], event["what"])
        if what == ("nemesis", "paused"):
            paused_at = event["t"]
        elif what == ("nemesis", "resuming"):
            paused_at = None
        elif what == ("world", "effect") and paused_at is not None and issued[event["request"]] > paused_at:
            return f"effect of {event['tool']} at step {event['step']}, request {event['request']}, while it was paused"
    return ""
