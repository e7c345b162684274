"""What is really done for each action of a fault: one deed each, told of its blow, and answering with a directive.

Three kinds of action have no deed, since they are not done to a request but asked for by a service when it answers:
damage to a reply, a person's decision, and a tool's outage. The nemesis says those itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.faults import actions
from kintsugi.harness.deeds import pause, processes, records, requests
from kintsugi.harness.deeds.blow import Deed

__all__ = ["DEEDS"]

DEEDS: Mapping[type[Any], Deed] = {
    actions.Kill: processes.kill,
    actions.Pause: pause.pause,
    actions.Drift: records.drift,
    actions.Hold: requests.hold,
    actions.Cut: requests.cut,
    actions.Answer: requests.answer,
    actions.Refuse: requests.refuse,
}
