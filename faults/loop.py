"""The model asks for the same call again and again, or never ends."""

from __future__ import annotations

from kintsugi.faults.actions import Corrupt
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _call(site: Site) -> bool:
    return site.point.kind == "model" and site.point.phase == "during" and site.proposes in {"call", "close"}


def _answer(site: Site) -> bool:
    return site.point.kind == "model" and site.point.phase == "during" and site.proposes == "answer"


FAULT = FaultClass(
    name="loop",
    layer="semantic",
    what="The model repeats its last call, or rambles without an answer, for a few turns or without end.",
    witness="Repeated asks in the gateway's log.",
    dealt_with_by="chain",
    forms=(
        Form("repeats_3", _call, (Corrupt("repeat_last_call", times=3),)),
        Form("repeats_forever", _call, (Corrupt("repeat_last_call", times=1000),), may_halt=True),
        Form("rambles_2", _answer, (Corrupt("ramble", times=2),)),
        Form("rambles_forever", _answer, (Corrupt("ramble", times=1000),), may_halt=True),
    ),
)
