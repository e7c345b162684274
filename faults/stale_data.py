"""A record that the workflow has read changes while it waits."""

from __future__ import annotations

from kintsugi.faults.actions import Drift, Kill
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _waiting(site: Site) -> bool:
    return site.point.phase == "waiting" and bool(site.drifts)


FAULT = FaultClass(
    name="stale_data",
    layer="semantic",
    what="A record moves on while the run waits for a person or a timer, with or without a restart meanwhile.",
    witness="The record's version moved on after the run had read it and before the effect that rests on it.",
    dealt_with_by="chain",
    forms=(
        Form("while_waiting", _waiting, (Drift(),), drifts="any"),
        Form("while_restarting", _waiting, (Kill(), Drift()), drifts="any"),
    ),
)
