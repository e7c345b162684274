"""The forms of workflow and tool files: what may stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kintsugi.golden_workflows.expressions import Json, is_expression
from kintsugi.golden_workflows.plan import POLLS_MAX
from kintsugi.golden_workflows.problems import validation_problem

__all__ = [
    "FREE_TEXT",
    "Does",
    "Drift",
    "Effect",
    "Matures",
    "Policy",
    "Refuse",
    "Step",
    "Task",
    "Threshold",
    "Tool",
    "ToolFile",
    "Truth",
    "WorkflowFile",
    "has_expression",
    "is_free_text",
]

FREE_TEXT = "~="
"""A script value that starts with this is an expression whose text differs at each ask, as a model's does."""


WAIT_SECONDS_MAX = 30 * 24 * 3600
"""The longest wait of a step, in workflow time: 30 days, for which a trial at the harness's own pace takes 72 s."""


def is_free_text(value: object) -> bool:
    """Whether a script value is free text of the model (a string that starts with ``~=``)."""
    return isinstance(value, str) and value.startswith(FREE_TEXT)


def has_expression(value: Json) -> bool:
    """Whether a value is, or holds anywhere, what a script reads as an expression."""
    if isinstance(value, Mapping):
        return any(map(has_expression, value.values()))
    if isinstance(value, list):
        return any(map(has_expression, value))
    return is_expression(value) or is_free_text(value)


class _Strict(BaseModel):
    # Strict: TOML has its own types, so "2" for a number or "yes" for a boolean is a mistake, not a spelling.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# --- tools --------------------------------------------------------------------------------------------------


class Refuse(_Strict):
    """A write is refused (409, `message`) while a record of `collection` is in its way.

    One is where `where` holds, over ``record``, ``args`` and, for an update, ``id``: that of the record it changes.
    """

    collection: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    where: str
    message: str = Field(min_length=1)


class Matures(_Strict):
    """What takes its time: `field` of a record that the run wrote reads `value` once so much workflow time has passed.

    The record itself stays as it was written, and so does its version. Seed records never mature.
    """

    field: str
    value: Any
    after_seconds: float = Field(gt=0)


class Does(_Strict):
    """What a tool does to the world's records.

    ``get`` one record by `id`, ``list`` the records for which `where` (over ``record`` and ``args``) holds,
    ``create`` a record with `id` (over ``args`` and ``n``, the count of records made so), ``update`` the
    record `id`. `set` gives the fields that are written, `returns` the result of a write; both are over
    ``args``, ``n``, ``id`` and ``record``. A list with a `page_size` comes in pages of so many records.
    """

    op: Literal["get", "list", "create", "update"]
    collection: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    id: str = ""
    where: str = "= true"
    page_size: int | None = Field(default=None, ge=1)
    """The argument ``page``, from 1 on, says which; the result has ``page`` and ``pages`` beside ``items``."""
    set: dict[str, Any] = {}
    returns: dict[str, Any] = {}
    refuse: Refuse | None = None
    matures: Matures | None = None


class Threshold(_Strict):
    """An approval is needed where the argument `parameter` is above a limit."""

    parameter: str
    above: float


class Tool(_Strict):
    """One tool of an outside service."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
    description: str = Field(min_length=1)
    effect: Literal["read", "write"]
    idempotency: Literal["key", "lookup", "none"] = "none"
    """How the API treats a repeat: honours an Idempotency-Key, can be searched by reference, or neither."""
    approval: Literal["never", "always"] | Threshold = "never"
    if_match: bool = False
    """Whether the write is refused (412) where If-Match names an older version of the record it updates."""
    price_usd: float = Field(default=0.0, ge=0)
    latency_ms: float = Field(default=2.0, ge=0, le=1000)
    parameters: dict[str, Any]
    result: dict[str, Any]
    does: Does

    @field_validator("approval", mode="before")
    @classmethod
    def _one_rule(cls, value: object) -> object:
        # Decided here, because the errors of a union name its branches and not what the file should say.
        if isinstance(value, Mapping):
            try:
                return Threshold.model_validate(value)
            except ValidationError as error:
                raise ValueError(validation_problem(error, Threshold)) from error
        if value not in ("never", "always") and not isinstance(value, Threshold):
            raise ValueError("allowed are 'never', 'always' and {parameter, above}")
        return value

    def public(self) -> dict[str, Any]:
        """What a SUT may know of the tool."""
        shown = self.model_dump(include={"description", "parameters", "result", "effect", "idempotency", "if_match"})
        approval = self.approval if isinstance(self.approval, str) else self.approval.model_dump()
        return {**shown, "approval": approval}


class ToolFile(_Strict):
    """``tools/<service>.toml``: the tools of one service, each called ``<service>.<what>``."""

    service: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    tools: list[Tool] = Field(min_length=1)


# --- workflows ----------------------------------------------------------------------------------------------


class Task(_Strict):
    """What is to be done, in words, and what it costs a person."""

    title: str = Field(min_length=1)
    goal: str = Field(min_length=1)
    why: str = Field(min_length=1)
    """Two lines: why this workflow is in the set."""
    review_minutes: float = Field(gt=0)
    """Minutes a person spends on each planned approval."""
    repair_minutes: float = Field(gt=0)
    """Minutes a person spends to mend a run that halted, failed, was lost or did wrong."""


class Step(_Strict):
    """One step of the plan: a tool call, a question for the model, or a timer."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    tool: str | None = None
    args: dict[str, Any] = {}
    ask: str | None = None
    inputs: dict[str, Any] = {}
    output: dict[str, Any] = {}
    sleep_seconds: float | None = Field(default=None, gt=0, le=WAIT_SECONDS_MAX)
    until: str | None = None
    """A read is made again, each time `every_seconds` of workflow time later, until this holds of its ``result``."""
    every_seconds: float | None = Field(default=None, gt=0, le=WAIT_SECONDS_MAX)
    polls_max: int = Field(default=POLLS_MAX, ge=1, le=10_000)
    """After so many reads for which `until` did not hold the run fails."""
    parallel: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """The group of consecutive steps that are done at the same time, in any order."""
    when: str | None = None
    for_each: str | None = None
    fresh: list[str] = []
    """Read steps whose records must be unchanged when this write happens; read again after a wait.

    Where the tool takes If-Match, the first of them reads the record that is written; its version goes along.
    """
    on_stale: Literal["refresh", "flag"] = "refresh"
    """What follows where a fresh read has changed: decide again on the new values, or stop for a person."""

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        kinds = [self.tool is not None, self.ask is not None, self.sleep_seconds is not None]
        if sum(kinds) != 1:
            raise ValueError("a step has exactly one of 'tool', 'ask' and 'sleep_seconds'")
        kind = ("tool", "ask", "sleep_seconds")[kinds.index(True)]
        for key, owner in {
            "args": "tool",
            "for_each": "tool",
            "fresh": "tool",
            "until": "tool",
            "parallel": "tool",
            "inputs": "ask",
            "output": "ask",
        }.items():
            if getattr(self, key) and owner != kind:
                raise ValueError(f"{key!r} goes with {owner!r} only, and this step has {kind!r}")
        if self.ask is not None and not (self.inputs and self.output):
            raise ValueError("an 'ask' needs 'inputs', what the model is shown, and 'output', the schema of its answer")
        if self.on_stale == "flag" and not self.fresh:
            raise ValueError("'on_stale' needs 'fresh', the reads that may turn out stale")
        for key in ("when", "for_each", "until"):
            if getattr(self, key) is not None and not is_expression(getattr(self, key)):
                raise ValueError(f"{key!r} must be an expression, a string that starts with '='")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Step:
        if self.until is not None and self.every_seconds is None:
            raise ValueError("'until' needs 'every_seconds', the workflow time from one read to the next")
        for key in self.model_fields_set & {"every_seconds", "polls_max"}:
            if self.until is None:
                raise ValueError(f"{key!r} needs 'until', what the reads wait for")
        for key, others in {"until": ("for_each",), "parallel": ("for_each", "until", "fresh")}.items():
            other = next((other for other in others if getattr(self, key) and getattr(self, other)), None)
            if other is not None:
                raise ValueError(f"{key!r} does not go with {other!r}; give each of the calls a step of its own")
        return self


class Policy(_Strict):
    """Budgets, time-outs (real seconds, never scaled) and what a rejected approval means."""

    tool_timeout_seconds: float = Field(default=1.5, gt=0)
    model_timeout_seconds: float = Field(default=5.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    backoff_base_seconds: float = Field(default=0.1, gt=0)
    backoff_cap_seconds: float = Field(default=2.0, gt=0)
    malformed_attempts: int = Field(default=4, ge=1)
    model_calls_max: int = Field(default=40, ge=1)
    on_reject: Literal["stop"] = "stop"
    approval_expires_seconds: float = Field(default=14 * 24 * 3600, gt=0)
    """Workflow seconds for which an approval is good."""


class Effect(_Strict):
    """One literal effect that must have happened: a call of `tool` with `args`, free text left out."""

    step: str
    tool: str
    args: dict[str, Any]


class Drift(_Strict):
    """What may change in the world while the workflow waits at `step`, and the effects that are then correct.

    With the outcome ``flag`` the run stops for a person, who ends it: `effects` are what was done before. A run
    that was begun anew after the change never saw the old values, and may act on the new ones: `anew`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    step: str
    """The write step (or timer) whose wait the record changes in."""
    record: str = Field(pattern=r"^[a-z][a-z0-9_]*/.+$")
    """``collection/id``."""
    set: dict[str, Any] = Field(min_length=1)
    outcome: Literal["refresh", "flag"] = "refresh"
    instruction: bool = False
    """Whether the record is what somebody has asked for, so that its change is a corrected instruction."""
    effects: list[Effect]
    anew: list[Effect] | None = None
    """Only for ``flag``: the effects of a run whose every read came after the change."""


class Truth(_Strict):
    """The literal expected effects, in the plan's order; never shown to a SUT."""

    effects: list[Effect] = Field(min_length=1)
    rejected: dict[str, list[str]] = {}
    """For each step that needs approval: the steps whose effects remain when it is rejected or expires."""


class WorkflowFile(_Strict):
    """``<class>/<name>.toml``: one workflow."""

    task: Task
    world: dict[str, dict[str, dict[str, Any]]]
    plan: list[Step] = Field(min_length=2)
    policy: Policy = Policy()
    script: dict[str, dict[str, Any]] = {}
    drift: list[Drift] = []
    truth: Truth
