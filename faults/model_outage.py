"""The model's service fails: errors, a reply that is cut off in the middle, one that only trickles, or an empty one."""

from __future__ import annotations

from kintsugi.faults.actions import Answer, Break, Corrupt, Drip
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]

ATTEMPTS_MAX = 6
"""As many as any workflow's policy allows."""

SLOW_SECONDS = 1.0
"""Well within any workflow's time-out for the model."""
STALLED_SECONDS = 12.0
"""Well beyond it."""


def _request(site: Site) -> bool:
    return site.point.kind == "model" and site.point.phase == "before"


def _generated(site: Site) -> bool:
    return site.point.kind == "model" and site.point.phase == "during"


FAULT = FaultClass(
    name="model_outage",
    layer="execution",
    what="The model's service answers 5xx, cuts its reply off half way, lets it trickle, or gives no choice.",
    witness="What was written in place of the reply, or how much of it and how fast.",
    dealt_with_by="adapter",
    forms=(
        Form("error_500", _request, (Answer(500),)),
        Form("three_times_503", _request, (Answer(503, times=3),)),
        Form("beyond_budget", _request, (Answer(500, times=ATTEMPTS_MAX),), may_halt=True),
        Form("cut_mid_body", _generated, (Break(),)),
        Form("cut_twice", _generated, (Break(times=2),)),
        Form("slow", _generated, (Drip(SLOW_SECONDS),)),
        Form("stalls", _generated, (Drip(STALLED_SECONDS),)),
        Form("no_choices", _generated, (Corrupt("no_choices"),)),
    ),
)
