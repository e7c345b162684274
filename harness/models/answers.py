"""The seam between the gateway and whoever answers: what is asked, what comes back, and what keeps it from coming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kintsugi.golden_workflows.spec import Workflow
    from kintsugi.harness.deeds.blow import Crossing
    from kintsugi.harness.script import Reply, Wanted
    from kintsugi.scenarios.trial import Trial

__all__ = [
    "BROKEN_OFF",
    "MAY_BE_CHARGED",
    "TIMED_OUT",
    "Answer",
    "Asked",
    "Model",
    "NoAnswer",
    "NoneAtAll",
    "Refused",
    "Tokens",
]

BROKEN_OFF, TIMED_OUT = MAY_BE_CHARGED = (502, 504)
"""The statuses of a request that went out and was not answered: an answer may have been made all the same."""


@dataclass(frozen=True)
class Asked:
    """One chat completion request of a SUT, with what the script makes of it."""

    trial: Trial
    workflow: Workflow
    crossing: Crossing
    request: Mapping[str, Any]
    wanted: Wanted
    right: Reply
    """The script's right answer: the reference, whoever answers."""
    n: int
    """How often this step and item was asked for in this run, this ask included."""


@dataclass(frozen=True)
class Tokens:
    """What one reply used."""

    prompt: int
    cached: int
    """Those of the prompt that are charged as cached."""
    completion: int
    estimated: bool = True
    """Whether we counted, or the provider did."""


@dataclass(frozen=True)
class Answer:
    """A reply with what it used."""

    reply: Reply
    tokens: Tokens
    good: bool
    """Whether it is as right as the script's own."""


class Model(Protocol):
    """Answers what is asked at the gateway."""

    @property
    def stopped(self) -> str:
        """Why no further trial is to be begun, in one line; empty while nothing keeps the run from going on."""
        ...

    async def answer(self, asked: Asked) -> Answer:
        """The answer to one request. Raises Refused, NoAnswer."""
        ...

    def vouch(self, trial: Trial) -> None:
        """Raise NoAnswer where a trial that has ended says nothing of its SUT, since no model was there to ask."""
        ...


class Refused(Exception):
    """The provider gave an error in place of a reply. It is the SUT's to deal with, and is passed on to it."""

    def __init__(self, status: int, message: str, retry_after: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NoAnswer(Exception):
    """No reply can be had, which is no matter of the SUT's: the trial is a harness error. Its text is one line."""


class NoneAtAll(NoAnswer):
    """And no other request will be answered either: no further trial is to be begun."""
