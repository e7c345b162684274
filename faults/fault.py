"""What a fault class is: its forms, where each applies, the actions it is composed of, and what passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kintsugi.faults.actions import Action
from kintsugi.faults.points import Site

__all__ = ["FaultClass", "Form", "Layer", "Trait"]

Layer = Literal["execution", "semantic", "side-effect"]

Trait = Literal[
    "pushed_decisions",
    "fail_over",
    "own_server",
    "store_link",
    "own_files",
    "containers",
    "operator",
    "redeployable",
]
"""Decisions are pushed to it, where one that polls fetches each when it likes; a worker on another node takes its runs
over; it has a server of its own that can be restarted; its workers connect to that at an address they are given; it
keeps its state in the trial's state folder rather than in such a server; its workers can run in containers; an operator
can pause and resume its runs; it runs our chains, of which there are newer releases."""


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
    wants: tuple[Trait, ...] = ()
    """What a SUT must have for it to apply."""
    drifts: Literal["", "any", "instruction"] = ""
    """Which of a site's declared drifts it brings about, each in a trial of its own; none where empty."""
    needs: str = ""
    """What the machine must have for it, by its name in `kintsugi.harness.means`; without it the cell is a gap."""


@dataclass(frozen=True)
class FaultClass:
    """A class of the catalogue. `dealt_with_by` is the layer of a SUT that a pass mainly speaks for."""

    name: str
    layer: Layer
    what: str
    witness: str
    dealt_with_by: Literal["engine", "adapter", "chain"]
    forms: tuple[Form, ...]
    scope: Literal["trial", "server"] = "trial"
    """What it disturbs: its trial alone, or a SUT's server with whoever shares it; such a trial has one of its own."""

    def form(self, name: str) -> Form:
        """The form of that name. KeyError where there is none."""
        for form in self.forms:
            if form.name == name:
                return form
        raise KeyError(name)
