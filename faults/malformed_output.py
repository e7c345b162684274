"""The model's reply is damaged on its way: not JSON, not the schema, not a call, or more than was wanted."""

from __future__ import annotations

from collections.abc import Callable

from kintsugi.faults.actions import Corrupt
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.points import Site

__all__ = ["FAULT"]


def _reply(*proposals: str) -> Callable[[Site], bool]:
    def applies(site: Site) -> bool:
        return site.point.kind == "model" and site.point.phase == "during" and site.proposes in proposals

    return applies


_ANY = _reply("call", "answer")
_CALL = _reply("call")
_ANSWER = _reply("answer")

FAULT = FaultClass(
    name="malformed_output",
    layer="semantic",
    what="One or more replies of the model are truncated, invalid, prose, mistyped, incomplete or repeated.",
    witness="The bytes that were sent differ from what the script said.",
    dealt_with_by="chain",
    forms=(
        Form("truncated_json", _ANY, (Corrupt("truncated_json"),)),
        Form("invalid_json", _ANY, (Corrupt("invalid_json"),)),
        Form("prose", _ANY, (Corrupt("prose"),)),
        Form("wrong_types", _ANY, (Corrupt("wrong_types"),)),
        Form("missing_parameter", _ANY, (Corrupt("missing_parameter"),)),
        Form("invented_parameter", _ANY, (Corrupt("invented_parameter"),)),
        Form("unknown_tool", _CALL, (Corrupt("unknown_tool"),)),
        Form("same_call_twice", _CALL, (Corrupt("same_call_twice"),)),
        Form("empty_reply", _ANY, (Corrupt("empty_reply"),)),
        Form("finish_length", _ANY, (Corrupt("finish_length"),)),
        Form("three_times", _ANSWER, (Corrupt("invalid_json", times=3),)),
    ),
)
