"""The model's service fails: errors, a reply that is cut off in the middle, one that only trickles, or an empty one."""

from __future__ import annotations

from kintsugi.faults.actions import Answer, Break, Corrupt, Drip
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import ATTEMPTS_MAX, ask_made, reply_generated

__all__ = ["FAULT"]


SLOW_SECONDS = 1.0
"""Well within any workflow's time-out for the model."""
STALLED_SECONDS = 12.0
"""Well beyond it."""


FAULT = FaultClass(
    name="model_outage",
    layer="execution",
    what="The model's service answers 5xx, cuts its reply off half way, lets it trickle, or gives no choice.",
    witness="What was written in place of the reply, or how much of it and how fast.",
    dealt_with_by="adapter",
    forms=(
        Form("error_500", ask_made, (Answer(500),)),
        Form("three_times_503", ask_made, (Answer(503, times=3),)),
        Form("beyond_budget", ask_made, (Answer(500, times=ATTEMPTS_MAX),), may_halt=True),
        Form("cut_mid_body", reply_generated, (Break(),)),
        Form("cut_twice", reply_generated, (Break(times=2),)),
        Form("slow", reply_generated, (Drip(SLOW_SECONDS),)),
        Form("stalls", reply_generated, (Drip(STALLED_SECONDS),)),
        Form("no_choices", reply_generated, (Corrupt("no_choices"),)),
    ),
)
