"""What is known of a finished trial: one JSON line in ``trials.jsonl``. Types only, importing nothing of ours.

Metrics, gate and reports are computed from these lines alone, so that they can be computed again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

__all__ = [
    "INJECTIONS",
    "VERDICTS",
    "Count",
    "Halt",
    "Human",
    "Injection",
    "Measures",
    "Repeats",
    "Storm",
    "Times",
    "TrialResult",
    "Usage",
    "VerdictName",
]

Part = TypeVar("Part", "Count", "Halt", "Human", "Measures", "Repeats", "Storm", "Times", "Usage")

VerdictName = Literal["correct", "correct_halt", "needless_halt", "corrupted", "failed", "lost", "harness_error"]
VERDICTS: tuple[VerdictName, ...] = (
    "correct",
    "correct_halt",
    "needless_halt",
    "corrupted",
    "failed",
    "lost",
    "harness_error",
)

Injection = Literal["none", "witnessed", "not_exposed", "invalid_injection", "baseline_failed"]
INJECTIONS: tuple[Injection, ...] = ("none", "witnessed", "not_exposed", "invalid_injection", "baseline_failed")
"""``none``: a clean trial. Only ``witnessed`` trials are in the denominator of a rate under faults."""


@dataclass(frozen=True)
class Count:
    """k of n."""

    k: int = 0
    n: int = 0


@dataclass(frozen=True)
class Halt:
    """A stop for a person that was no planned approval."""

    kind: str
    """``in_doubt``, ``budget``, ``stale`` or ``verify``."""
    step: str
    justified: bool
    why: str
    """Why the checker holds it to be justified or needless."""


@dataclass(frozen=True)
class Measures:
    """How the agent used its tools, as the model proposed it and as it reached the world.

    Choices that code made are in no `proposed` count.
    """

    selection_proposed: Count = field(default_factory=Count)
    selection_reached: Count = field(default_factory=Count)
    arguments_proposed: Count = field(default_factory=Count)
    """Correct arguments of all arguments in proposed calls of the right tool."""
    calls_proposed: Count = field(default_factory=Count)
    """Proposed calls of the right tool with every argument correct."""
    judgements_proposed: Count = field(default_factory=Count)
    """Answers to a question for judgement with every value right; any text is where prose is wanted."""
    arguments_reached: Count = field(default_factory=Count)
    calls_reached: Count = field(default_factory=Count)
    unsafe_proposed: Count = field(default_factory=Count)
    """Writes that need an approval and were proposed without it or with other arguments, of all proposed writes."""
    unsafe_reached: Count = field(default_factory=Count)
    trajectory_in_order: Count = field(default_factory=Count)
    """1 of 1 where every expected call reached the world in order, extras allowed; then exactly; then in any order."""
    trajectory_exact: Count = field(default_factory=Count)
    trajectory_any_order: Count = field(default_factory=Count)


@dataclass(frozen=True)
class Usage:
    """What the trial used. Money in US dollars, CPU in seconds of the SUT's processes."""

    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tool_calls: int = 0
    tool_usd: float = 0.0
    cpu_seconds: float = 0.0
    cached_prompt_tokens: int = 0
    """Those of the prompt tokens that the provider charged as cached."""
    estimated_calls: int = 0
    """Replies whose tokens are an estimate, since no provider counted them."""


@dataclass(frozen=True)
class Repeats:
    """What was done again although its answer had been delivered: never a verdict by itself, always a price."""

    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    completion_tokens: int = 0
    """Those of the tokens that were generated; the others are the prompts'."""


@dataclass(frozen=True)
class Human:
    """What people had to do. Times in hours of workflow time."""

    checkpoints: int = 0
    """Planned approvals that were asked for."""
    re_asked: int = 0
    """Approvals asked again although the first was still good."""
    decisions: int = 0
    overrides: int = 0
    """Decisions that rejected or amended."""
    approval_hours: tuple[float, ...] = ()
    halts: tuple[Halt, ...] = ()


@dataclass(frozen=True)
class Times:
    """Wall seconds. The last three run from the fault; None where there was none or it was not reached."""

    wall: float = 0.0
    """From submission to the end report."""
    detect: float | None = None
    """To the first request of a worker after the fault."""
    progress: float | None = None
    """To the first new step that is not a repeat."""
    end: float | None = None


@dataclass(frozen=True)
class Storm:
    """How many workflows treated one failing tool."""

    workflows: int
    outage_calls_per_workflow: float
    peak_requests_per_second: float
    drain_seconds: float
    """From the end of the outage to the last end report."""
    within_bounds: bool
    met: int = 0
    """How many of the workflows called the tool during its outage."""
    wasted_calls: int = 0
    """Calls of the tool during its outage, and their price as if each were charged."""
    wasted_tool_usd: float = 0.0
    repeated_model_calls: int = 0
    repeated_prompt_tokens: int = 0
    repeated_completion_tokens: int = 0


@dataclass(frozen=True)
class TrialResult:
    """One line of ``trials.jsonl``."""

    id: str
    kind: str
    """``baseline``, ``clean``, ``fault`` or ``timing``."""
    sut: str
    chain: str
    workflow: str
    workflow_class: str
    seed: int
    variance: str
    fault: str
    form: str
    points: tuple[str, ...]
    phase: str
    """Phase of the (first) point; empty for a clean trial."""
    layer: str
    dealt_with_by: str
    weight: float
    injection: Injection
    verdict: VerdictName | None
    """None where the injection is not witnessed and nothing wrong was done."""
    reason: str
    resumed_exactly: bool | None
    """Whether nothing whose answer had been delivered was done again; None for a clean trial."""
    measures: Measures
    usage: Usage
    repeats: Repeats
    human: Human
    times: Times
    storm: Storm | None = None
    generations: int = 1
    review_minutes: float = 0.0
    """Minutes that the planned approvals of this trial took a person, as the workflow declares them."""
    repair_minutes: float = 0.0
    """Minutes that mending one halt, failure, loss or corruption takes, as the workflow declares them."""
    trial: Mapping[str, Any] = field(default_factory=dict)
    """The trial itself, from which it can be run again."""
    struck: Mapping[str, Any] = field(default_factory=dict)
    """The trial of what was struck, where the run ended badly before the rest of its schedule was reached; else empty.

    The verdict is over that, and so are `fault`, `form`, `points`, `phase`, `layer` and `dealt_with_by`.
    """

    @property
    def target(self) -> tuple[Any, ...]:
        """What was struck, and in which forms: the same for each trial of it, whatever its seed."""
        trial = self.struck or self.trial
        forms = tuple(strike["form"] for strike in trial.get("schedule", ())) or (self.form,)
        return self.workflow, self.fault, forms, self.points, trial.get("drift", "")

    @property
    def key(self) -> str:
        """``sut+chain``."""
        return f"{self.sut}+{self.chain}"

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, readable by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """The result that `to_json` wrote. Unknown keys are ignored, so that later versions may add some."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        measures = {name: _read(Count, count) for name, count in data["measures"].items()}
        halts = tuple(_read(Halt, halt) for halt in data["human"]["halts"])
        human = {**data["human"], "halts": halts, "approval_hours": tuple(data["human"]["approval_hours"])}
        known |= {
            "points": tuple(data["points"]),
            "measures": _read(Measures, measures),
            "usage": _read(Usage, data["usage"]),
            "repeats": _read(Repeats, data["repeats"]),
            "human": _read(Human, human),
            "times": _read(Times, data["times"]),
            "storm": _read(Storm, data["storm"]) if data.get("storm") else None,
        }
        return cls(**known)


def _read(form: type[Part], data: Mapping[str, Any]) -> Part:
    """A part of a result from its JSON; keys that this version does not know are passed over."""
    return form(**{field.name: data[field.name] for field in fields(form) if field.name in data})
