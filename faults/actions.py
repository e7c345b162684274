"""The vocabulary of actions: the small closed set that every fault is composed of, and that the nemesis interprets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Action",
    "Answer",
    "Corrupt",
    "Cut",
    "Decide",
    "Drift",
    "Hold",
    "Kill",
    "Outage",
    "Pause",
    "Refuse",
]


@dataclass(frozen=True)
class Kill:
    """SIGKILL the worker at the boundary and wait until it is reaped; then restart it, or never.

    Witness: the launcher's wait status, signal 9, seen before the boundary's request is let go.
    """

    restart: Literal["same_node", "never"] = "same_node"
    lose_scratch: bool = False
    delay_ms: float = 0.0
    """Only for phase ``after``: how long after the response was written the signal is sent."""
    times: int = 1
    """How often, where the boundary is reached again in the recovery."""


@dataclass(frozen=True)
class Pause:
    """SIGSTOP the worker until another one has sent a request for its run, then SIGCONT.

    What it had asked for is served meanwhile, so that the answer is there when it wakes. Where nobody takes the run
    over in `seconds_max`, it is continued all the same, and there was no such fault.
    Witness: the launcher's wait status, stopped and then continued, and the other worker's request between the two.
    """

    seconds_max: float = 12.0
    """Several times the failure-detection budget of 2 s, and beyond what engines take to hand a run on."""


@dataclass(frozen=True)
class Hold:
    """Keep the request (before its effect) or its response (after it) until the client has gone.

    Witness: the connection was closed by the client while it was held.
    """

    times: int = 1
    seconds_max: float = 30.0


@dataclass(frozen=True)
class Cut:
    """End the connection in place of a response: a TCP reset, or a close without a byte.

    Witness: the socket was closed by us and no byte of a response was written.
    """

    how: Literal["reset", "empty"] = "reset"
    times: int = 1


@dataclass(frozen=True)
class Answer:
    """Answer with an error status in place of the real response. Witness: the status was written."""

    status: int = 500
    retry_after_seconds: float | None = None
    times: int = 1


@dataclass(frozen=True)
class Refuse:
    """Reset the request and close the service's listening socket for a while, so that connections are refused.

    Witness: the socket was closed by us, and the listener was down for the whole time.
    """

    seconds: float = 0.15


@dataclass(frozen=True)
class Corrupt:
    """Damage the model's reply in a named way. Witness: the bytes sent differ from the script's."""

    how: str
    times: int = 1


@dataclass(frozen=True)
class Drift:
    """Change a record as the workflow's drift declares. Witness: its version moved after it was read."""


@dataclass(frozen=True)
class Decide:
    """How the human answers the approval at this point. Witness: the decision was delivered as said."""

    answer: Literal["approve", "reject", "expire"] = "approve"
    delay_hours: float = 1.0
    deliveries: int = 1
    before_wait: bool = False
    """Deliver the decision before the question is acknowledged."""


@dataclass(frozen=True)
class Outage:
    """From its first request on, a tool answers every request with an error for a while.

    Witness: refused requests in the ledger.
    """

    status: int
    seconds: float
    retry_after_seconds: float | None = None


Action = Kill | Pause | Hold | Cut | Answer | Refuse | Corrupt | Drift | Decide | Outage
