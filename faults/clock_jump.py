"""A worker's wall clock jumps by hours: it comes back with it after its death, or the clock is set under its feet."""

from __future__ import annotations

from kintsugi.faults.actions import JumpClock, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]

HOURS = 6.0
MEANS = "fake_clock"


def _exact(site: Site) -> bool:
    """After the last report nothing is left that could ask for the time."""
    return site.point.phase != "after" and site.point.kind != "end"


FAULT = FaultClass(
    name="clock_jump",
    layer="execution",
    what="The wall clock of the worker is six hours ahead or behind from here on; nobody else's is.",
    witness="A program with the worker's environment tells a time that is off by that, and the worker has loaded it.",
    dealt_with_by="engine",
    forms=(
        Form("back_ahead", _exact, (Kill(), JumpClock(HOURS)), needs=MEANS),
        Form("back_behind", _exact, (Kill(), JumpClock(-HOURS)), needs=MEANS),
        Form("set_ahead", _exact, (JumpClock(HOURS),), needs=MEANS),
        Form("set_behind", _exact, (JumpClock(-HOURS),), needs=MEANS),
    ),
)
