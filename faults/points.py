"""Where a fault can strike: a boundary, named by the workflow, and a phase of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "PHASES", "Holds", "Point", "Site"]

KINDS = ("submit", "model", "tool", "human", "decision", "timer", "end")
"""The kinds of boundary: the interactions that cross from the SUT to the outside."""

PHASES = ("before", "during", "committed", "after", "waiting")
"""Nothing done; in progress; effect in the ledger and response withheld; response delivered; parked and quiet."""

Holds = Literal["number", "choice"]
"""A number that has a least value; one of a few values."""

_FORM = re.compile(
    r"(?P<kind>[a-z]+):(?P<step>[a-z0-9_]+)\[(?P<item>0|[1-9][0-9]*)\]#(?P<occurrence>[1-9][0-9]*)@(?P<phase>[a-z]+)"
)


@dataclass(frozen=True, order=True)
class Point:
    """A phase of a boundary: ``tool:pay[0]#1@committed`` is the first call of step `pay`, item 0, once it has acted."""

    kind: str
    step: str
    item: int = 0
    occurrence: int = 1
    phase: str = "before"

    def __str__(self) -> str:
        return f"{self.kind}:{self.step}[{self.item}]#{self.occurrence}@{self.phase}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """The point of its written form. ValueError says what is wrong with it."""
        match = _FORM.fullmatch(text)
        if match is None or match["kind"] not in KINDS or match["phase"] not in PHASES:
            raise ValueError(f"{text!r} is no point; its form is kind:step[item]#occurrence@phase")
        return cls(match["kind"], match["step"], int(match["item"]), int(match["occurrence"]), match["phase"])


@dataclass(frozen=True)
class Site:
    """A point with the facts that decide which faults apply there."""

    point: Point
    tool: str = ""
    effect: str = ""
    """``read`` or ``write`` for a tool's boundary, else empty."""
    idempotency: str = ""
    """``key``, ``lookup`` or ``none`` for a write's boundary, else empty."""
    drifts: tuple[str, ...] = ()
    """The declared drifts of the wait that this point is in."""
    instructions: tuple[str, ...] = ()
    """Those of them that correct an instruction."""
    holds: tuple[Holds, ...] = ()
    """What a read's declared result is sure to hold."""
    guarded: bool = False
    """Whether some call of the workflow needs a person's yes."""
    proposes: str = ""
    """What a model's reply holds there: ``call`` (of a tool), ``answer`` (a judgement) or ``close`` (the last word)."""
    group: str = ""
    """The steps that are done at the same time as that of this boundary, and in any order."""
