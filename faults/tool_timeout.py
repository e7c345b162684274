"""A tool's response is delayed past the client's time-out, with its effect applied or not."""

from __future__ import annotations

from kintsugi.faults.actions import Hold
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


ATTEMPTS_MAX = 6
"""As many as any workflow's policy allows."""


def _unapplied(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "before"


def _applied(site: Site) -> bool:
    return site.point.kind == "tool" and site.point.phase == "committed"


FAULT = FaultClass(
    name="tool_timeout",
    layer="side-effect",
    what="The tool does not answer until the client has given up: once, twice, or beyond any retry budget.",
    witness="The client closed the connection while its request was held.",
    dealt_with_by="adapter",
    forms=(
        Form("not_applied", _unapplied, (Hold(),)),
        Form("applied", _applied, (Hold(),)),
        Form("twice", _unapplied, (Hold(times=2),)),
        Form("beyond_budget", _unapplied, (Hold(times=ATTEMPTS_MAX),), may_halt=True),
    ),
)
