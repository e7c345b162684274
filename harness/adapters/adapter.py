"""What an adapter says of its SUT. The verbs themselves are functions of the SUT's side, called by a launcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Adapter"]


@dataclass(frozen=True)
class Adapter:
    """How to drive one SUT.

    `side` is the module that a launcher loads: ``provision(state_dir)``, ``submit(state_dir, run_id, payload)``,
    ``decide(state_dir, run_id, request_id, decision)``, ``status(state_dir, run_id)`` and the coroutine
    ``work(environment, chains)``.
    """

    name: str
    about: str
    side: str
    decisions: Literal["push", "poll"]
    """Whether decisions are delivered to it by ``decide``, or it asks the human's inbox for them."""
    fails_over: bool
    """Whether a worker on another node can take a run over; if not, a second node would have nothing to do."""
    submit_first: bool = False
    """Whether a worker finds its runs when it starts (a script) rather than being handed them while it runs."""
    chains: str = "kintsugi.golden_workflows.chains:CHAINS"
