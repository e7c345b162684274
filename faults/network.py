"""The TCP connections to the tools, the model or the store are slow, silent, reset, cut, or not to be had."""

from __future__ import annotations

from kintsugi.faults.actions import Toxic
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import ATTEMPTS_MAX, call_made, request_made

__all__ = ["FAULT"]

NEEDS = "toxiproxy"


def _service(name: str, toxic: Toxic) -> Form:
    return Form(name, request_made, (toxic,), needs=NEEDS)


def _store(name: str, toxic: Toxic) -> Form:
    return Form(name, request_made, (toxic,), wants=("store_link",), needs=NEEDS)


FAULT = FaultClass(
    name="network",
    layer="execution",
    what="A Toxiproxy on the way to a service or to the SUT's store delays, withholds, cuts or resets what comes back.",
    witness="Toxiproxy lists the toxic, and its effect was seen at the door, in its byte counts or by the kernel.",
    dealt_with_by="adapter",
    forms=(
        _service("latency", Toxic("latency", (("latency", 300), ("jitter", 100)), responses=4)),
        _service("bandwidth", Toxic("bandwidth", (("rate", 2),), responses=2)),
        _service(
            "slicer", Toxic("slicer", (("average_size", 32), ("size_variation", 8), ("delay", 10_000)), responses=2)
        ),
        _service("timeout", Toxic("timeout", (("timeout", 0),))),
        Form(
            "timeout_beyond_budget",
            call_made,
            (Toxic("timeout", (("timeout", 0),), responses=ATTEMPTS_MAX),),
            may_halt=True,
            needs=NEEDS,
        ),
        _service("reset_peer", Toxic("reset_peer", (("timeout", 0),))),
        _service("limit_data", Toxic("limit_data")),
        _service("limit_data_twice", Toxic("limit_data", responses=2)),
        _service("slow_close", Toxic("slow_close", (("delay", 800),))),
        _service("down", Toxic("down", seconds=0.15)),
        _store("store_latency", Toxic("latency", (("latency", 250), ("jitter", 50)), seconds=1.5, link="store")),
        _store("store_timeout", Toxic("timeout", (("timeout", 0),), seconds=1.0, link="store")),
        _store("store_down", Toxic("down", seconds=0.5, link="store")),
    ),
)
