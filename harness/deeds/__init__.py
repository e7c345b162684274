"""What is really done for each action of a fault: one deed each, told of its blow, and answering with a directive.

Three kinds of action have no deed, since they are not done to a request but asked for by a service when it answers:
damage to a reply, a person's decision, and a tool's outage. The nemesis says those itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.faults import actions
from kintsugi.harness.deeds import (
    again,
    bodies,
    clock,
    disk,
    network,
    operator,
    partition,
    pause,
    poison,
    processes,
    records,
    releases,
    requests,
    results,
    stores,
)
from kintsugi.harness.deeds.blow import Deed

__all__ = ["DEEDS"]

DEEDS: Mapping[type[Any], Deed] = {
    actions.Kill: processes.kill,
    actions.Poison: poison.poison,
    actions.Deploy: releases.deploy,
    actions.Suspend: operator.suspend,
    actions.RestartStore: stores.restart_store,
    actions.Pause: pause.pause,
    actions.Partition: partition.partition,
    actions.Drift: records.drift,
    actions.Hold: requests.hold,
    actions.Cut: requests.cut,
    actions.Answer: requests.answer,
    actions.Limit: requests.limit,
    actions.Refuse: requests.refuse,
    actions.Break: bodies.break_off,
    actions.Drip: bodies.drip,
    actions.Tamper: results.tamper,
    actions.Resubmit: again.resubmit,
    actions.Redeliver: again.redeliver,
    actions.FillDisk: disk.fill_disk,
    actions.JumpClock: clock.jump_clock,
    actions.LosePower: disk.lose_power,
    actions.Toxic: network.toxic,
}
