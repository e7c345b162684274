"""What a trial is: plain data that says everything needed to run it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Action
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point

__all__ = ["Strike", "Trial"]

TrialKind = Literal["baseline", "clean", "fault", "timing"]


@dataclass(frozen=True)
class Strike:
    """One fault of a schedule: a form of a fault class, at a point."""

    fault: str
    form: str
    point: Point
    then: bool = False
    """Whether it is armed only once the strike before it has been witnessed, as one that is to meet the recovery."""

    @property
    def form_struck(self) -> Form:
        """What it does, and where it may. KeyError where there is no such fault, or no such form of it."""
        return FAULTS[self.fault].form(self.form)

    def __str__(self) -> str:
        return f"{'then ' * self.then}{self.fault}.{self.form}@{self.point}"


@dataclass(frozen=True)
class Trial:
    """SUT × chain × workflow × schedule × seed.

    `kind` says what it counts for: ``baseline`` (clean, no variance), ``clean`` (clean, with the model's variance),
    ``fault`` (a verdict under faults), ``timing`` (recovery times, from cold-started workers).
    `weight` is how many points of the declared frame it stands for.
    """

    kind: TrialKind
    sut: str
    chain: str
    workflow: str
    schedule: tuple[Strike, ...] = ()
    seed: int = 0
    variance: str = "none"
    copies: int = 1
    nodes: int = 1
    drift: str = ""
    weight: float = 1.0
    repeat: int = 0

    @property
    def id(self) -> str:
        """A readable name, unique within a suite and the same for the same seed."""
        kind = f"~{self.kind}" if self.kind == "timing" else ""
        repeat = f"~{self.repeat}" if self.repeat else ""
        return f"{self.sut}+{self.chain}~{self.workflow}~{self.what or self.kind}{kind}~s{self.seed}{repeat}"

    @property
    def cell(self) -> tuple[str, str, str]:
        """The SUT, chain and workflow that share a baseline."""
        return self.sut, self.chain, self.workflow

    @property
    def forms(self) -> list[Form]:
        """The form of each of its strikes."""
        return [strike.form_struck for strike in self.schedule]

    @property
    def actions(self) -> list[Action]:
        """Everything that is done in it."""
        return [action for form in self.forms for action in form.actions]

    @property
    def what(self) -> str:
        """What is done in it, in words that no other schedule has; empty for a clean one."""
        drift = f"~{self.drift}" if self.drift else ""
        return ",".join(map(str, self.schedule)).replace(",then ", ">") + drift

    @property
    def fault(self) -> str:
        """What it is counted under: its fault class, or those of a schedule of several; empty for a clean trial."""
        return "+".join(strike.fault for strike in self.schedule)

    def to_json(self) -> dict[str, Any]:
        """The trial as JSON, readable by `from_json`."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        strikes = [
            {"fault": s.fault, "form": s.form, "point": str(s.point), **({"then": True} if s.then else {})}
            for s in self.schedule
        ]
        return {"id": self.id, **data, "schedule": strikes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` wrote. ValueError, KeyError or TypeError where it is not one."""
        for strike in data["schedule"]:
            _must_be_words(strike, "fault", "form", "point")
        strikes = tuple(
            Strike(s["fault"], s["form"], Point.parse(s["point"]), then=bool(s.get("then"))) for s in data["schedule"]
        )
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        _must_be_words(fields, "kind", "sut", "chain", "workflow", *({"variance", "drift"} & fields.keys()))
        if fields["kind"] not in get_args(TrialKind):
            raise ValueError(f"kind: found {fields['kind']!r}, one of {', '.join(get_args(TrialKind))} is needed")
        for name, least in (("seed", -math.inf), ("copies", 1), ("nodes", 1), ("repeat", 0)):
            number = fields.get(name, 1)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                from_ = "" if least == -math.inf else f" from {least} on"
                raise ValueError(f"{name}: found {number!r}, a whole number{from_} is needed")
        weight = fields.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"weight: found {weight!r}, a number from 0 on is needed")
        return cls(**{**fields, "schedule": strikes})


def _must_be_words(data: Mapping[str, Any], *names: str) -> None:
    """Raise KeyError for what is not there, ValueError for what is no text."""
    for name in [name for name in names if not isinstance(data[name], str)]:
        raise ValueError(f"{name}: found {data[name]!r}, text is needed")
