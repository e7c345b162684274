"""The vocabulary of actions: the small closed set that every fault is composed of, and that the nemesis interprets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Action",
    "Answer",
    "Break",
    "Corrupt",
    "Cut",
    "Decide",
    "Deploy",
    "Drift",
    "Drip",
    "FillDisk",
    "Hold",
    "JumpClock",
    "Kill",
    "Limit",
    "LosePower",
    "Outage",
    "Partition",
    "Pause",
    "Poison",
    "Redeliver",
    "Refuse",
    "RestartStore",
    "Resubmit",
    "Suspend",
    "Tamper",
    "Toxic",
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
    others: int = 0
    """How many other nodes' workers go down with it."""


@dataclass(frozen=True)
class Poison:
    """SIGKILL whoever carries one run, each time that this run comes to the boundary, until a person steps in.

    Witness: the launcher's wait status, signal 9, seen each time before the boundary's request is let go.
    """

    run: str = "r0"
    times: int = 1000
    """More often than any worker is started again: it does not wear off."""


@dataclass(frozen=True)
class RestartStore:
    """SIGKILL the SUT's own server or database, and start it again after `seconds`, on the same ports and data.

    The request that it is struck at takes its ordinary course as soon as the server is dead.
    Witness: the server reaped by signal 9, its port refusing connections meanwhile, and accepting them again.
    """

    seconds: float = 1.0


@dataclass(frozen=True)
class Deploy:
    """From its next start on, whoever carries the run executes a newer release of the workflow's code.

    Witness: the command line of a worker that was started since names the release.
    """

    release: Literal["STEP_ADDED", "REWORDED"]
    """One more durable step before all others, or every question to the model in other words."""


@dataclass(frozen=True)
class Suspend:
    """An operator pauses the run, and resumes it after `seconds`; a request in flight takes its ordinary course.

    Witness: the SUT acknowledged the pause; and the launcher's wait status where its worker is killed.
    """

    seconds: float = 1.0
    kill: bool = False
    """Whether its worker is killed meanwhile; then it stays paused for as long again after another one has come."""
    while_down: bool = False
    """Whether it is paused while no worker is there: none is started before that was acknowledged, or turned down."""


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
class Partition:
    """Cut the worker's node off from every service, with all it has under way, and heal it after a while.

    At once where another node has taken the run over; not before the node has sent something. Or cut it off from its
    store alone, until another node has taken the run over.
    Witness: at least one request was kept from its service meanwhile, and then the node was healed; of a container, its
    networks as the engine lists them, without the trial's and then with it; of a store, connections that ended, and new
    ones that were refused until it was healed.
    """

    seconds: float
    rejects: bool = False
    """Whether its requests are reset at once; else nothing is heard until the client gives up, or it heals."""
    side: Literal["services", "store"] = "services"


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
    """From its first request on, a tool answers every request with an error for a while, or not at all.

    Witness: refused requests in the ledger, or requests in it whose client gave up.
    """

    status: int
    """0 for no answer: a request is kept until its client has gone."""
    seconds: float
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Limit:
    """From its first request on, turn a call away with 429 for a while, saying each time what is left of it.

    Witness: the 429 was written; each request that came sooner than it was told to is noted as such.
    """

    seconds: float
    date: bool = False
    """Whether Retry-After is a date, in whole seconds, rather than a number of them."""
    times: int = 1000
    """More often than anyone asks meanwhile."""


@dataclass(frozen=True)
class Break:
    """Reset the connection in the middle of a response's body.

    Witness: its head and half of its body were written to a client that was still there, and then it was reset by us.
    """

    times: int = 1


@dataclass(frozen=True)
class Drip:
    """Write a response's body piece by piece, spread over a while.

    Witness: the time from its first piece to its last, or to when the client gave up in the middle.
    """

    seconds: float
    times: int = 1


@dataclass(frozen=True)
class Tamper:
    """Change a tool's result on its way out, in a named way; what the world holds stays true.

    Witness: the result that was delivered differs from the one that was found.
    """

    how: str
    times: int = 1


@dataclass(frozen=True)
class Resubmit:
    """Submit the run again, as it was submitted first. Witness: the SUT's answer to that, a yes or a no."""

    copies: int = 1
    """How many times at once."""


@dataclass(frozen=True)
class Redeliver:
    """Deliver every decision of the run again, each as it was. Witness: the SUT's answer to that, a yes or a no."""


@dataclass(frozen=True)
class FillDisk:
    """Fill the disk that the state folder lies on to its last byte, and free it again after a while.

    Witness: a write of ours got ENOSPC, and the file system says that no byte is left for anyone; and the launcher's
    wait status where the worker is killed.
    """

    seconds: float = 1.0
    kill_after_seconds: float = 0.0
    """When in this time the worker is killed as well, after it has met the full disk; 0: it is not."""


@dataclass(frozen=True)
class JumpClock:
    """Set the workers' wall clock ahead or behind, for the one that runs now and for those that come after it.

    Witness: a program that is started with the workers' environment tells a time that is off by that, and a living
    worker has loaded what does that to it.
    """

    hours: float


@dataclass(frozen=True)
class LosePower:
    """SIGKILL every worker, take from the state folder's disk what it had not been made to keep, and bring it back.

    Witness: each was reaped with signal 9; the file system was shut down without a flush, and a write to it failed;
    mounted again, a synced file of ours is there and one that was not synced is gone.
    """


@dataclass(frozen=True)
class Toxic:
    """Put a toxic of Toxiproxy on the link to the boundary's service, or to the SUT's own store, and take it off again.

    It works on what the far side sends, or takes the proxy down. On a service's link it is lifted when `responses`
    have met it, `down` after `seconds`; on the store's link it is always lifted after `seconds`.
    Witness: Toxiproxy lists it, and its effect was seen: bytes that it took in and did not pass on, an answer that came
    no sooner than it allows, connections ended and new ones refused.
    """

    kind: Literal["latency", "timeout", "reset_peer", "limit_data", "slicer", "bandwidth", "slow_close", "down"]
    attributes: tuple[tuple[str, int], ...] = ()
    """As Toxiproxy names them; `limit_data` is given half of each response's body."""
    responses: int = 1
    seconds: float = 0.0
    link: Literal["service", "store"] = "service"


Action = (
    Kill
    | Poison
    | RestartStore
    | Suspend
    | Deploy
    | Pause
    | Hold
    | Cut
    | Answer
    | Limit
    | Refuse
    | Break
    | Drip
    | Corrupt
    | Tamper
    | Drift
    | Decide
    | Resubmit
    | Redeliver
    | Outage
    | Partition
    | FillDisk
    | JumpClock
    | LosePower
    | Toxic
)
