"""A tool or the model says 429: too many requests, with the time after which it may be asked again, or without."""

from __future__ import annotations

from kintsugi.faults.actions import Answer, Limit
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import ATTEMPTS_MAX, request_made

__all__ = ["FAULT", "SECONDS"]

SECONDS = 4.0
"""Longer than all the waits of any workflow's retry budget together: only Retry-After tells when to come back."""


FAULT = FaultClass(
    name="rate_limit",
    layer="execution",
    what="A tool or the model answers 429, with Retry-After as a number or a date, or without; once, twice, or on.",
    witness="The 429 was written; each request that came sooner than Retry-After said is noted.",
    dealt_with_by="adapter",
    forms=(
        Form("with_retry_after", request_made, (Limit(SECONDS),)),
        Form("with_a_date", request_made, (Limit(SECONDS, date=True),)),
        Form("without_retry_after", request_made, (Answer(429),)),
        Form("twice", request_made, (Answer(429, times=2),)),
        Form(
            "beyond_budget", request_made, (Answer(429, retry_after_seconds=0.05, times=ATTEMPTS_MAX),), may_halt=True
        ),
    ),
)
