"""What a fault class is: its forms, where each applies, the actions it is composed of, and what passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kintsugi.faults.actions import Action
from kintsugi.faults.points import Site

__all__ = ["FaultClass", "Form", "Layer"]

Layer = Literal["execution", "semantic", "side-effect"]


@dataclass(frozen=True)
class Form:
    """One real form of a fault: at which sites it can strike, and what is done there."""

    name: str
    applies: Callable[[Site], bool]
    actions: tuple[Action, ...]
    nodes: int = 1
    """How many nodes the trial needs."""
    copies: int = 1
    """How many workflows run at once."""
    may_halt: bool = False
    """Whether the fault outlasts a declared budget, so that stopping for a person is right."""
    pushed: bool = False
    """Whether it applies only to a SUT that decisions are pushed to: one that polls fetches each when it likes."""
    taken_over: bool = False
    """Whether it applies only to a SUT whose runs a worker on another node takes over: without a successor there is
    no zombie."""


@dataclass(frozen=True)
class FaultClass:
    """A class of the catalogue. `dealt_with_by` is the layer of a SUT that a pass mainly speaks for."""

    name: str
    layer: Layer
    what: str
    witness: str
    dealt_with_by: Literal["engine", "adapter", "chain"]
    forms: tuple[Form, ...]

    def form(self, name: str) -> Form:
        """The form of that name. KeyError where there is none."""
        for form in self.forms:
            if form.name == name:
                return form
        raise KeyError(name)
