"""Whether a run that never fetched a person's decision had met it all the same: the wait for it is the fault. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kintsugi.faults.actions import Decide
from kintsugi.faults.points import Point
from kintsugi.harness.history import Event, of
from kintsugi.harness.session import SECONDS_PER_HOUR

__all__ = ["did_not_survive"]


def did_not_survive(events: Sequence[Event], decide: Decide, point: Point) -> str:
    """What shows that a run which asked at this point did not get over the wait for its decision; empty where none did.

    The decision was made and nobody fetched it before the run ended; or the run ended before that, and yet after
    anybody else would have answered. A run that completed is none of these, unless it left out what it had asked for.
    """
    over = [event["t"] for event in of(events, "runner", "extinct", "deadline")] or [events[-1]["t"]]
    for asked in of(events, "human", "asked"):
        if (asked["kind"], asked["step"], asked["item"]) != ("approval", point.step, point.item):
            continue
        mine = [event for event in events if event.get("run") == asked["run"]]
        reports = of(mine, "human", "end_report")
        if reports and all(report["status"] == "completed" for report in reports):
            acted = any((e["step"], e["item"]) == (point.step, point.item) for e in of(mine, "world", "effect"))
            if acted or decide.answer != "approve":
                continue
        ended = reports[0]["t"] if reports else over[0]
        decided = [event for event in of(mine, "human", "decided") if event["question"] == asked["question"]]
        if decided and decided[0]["t"] <= ended:
            when = "before the wait" if decide.before_wait else f"after {decide.delay_hours:g} h"
            return f"decision {decide.answer} was made {when}, and nobody fetched it before the end"
        waited = (ended - asked["t"]) / SECONDS_PER_HOUR
        if Decide().delay_hours < waited < decide.delay_hours:
            return f"the run ended {waited:.1f} h into a wait of {decide.delay_hours:g} h for decision {decide.answer}"
    return ""
