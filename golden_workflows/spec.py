"""The form of workflow and tool files, and their loader: everything wrong in a file is one line that says what to do."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kintsugi.golden_workflows.expressions import ExpressionError, is_expression, names_in
from kintsugi.golden_workflows.plan import step_names_used

__all__ = [
    "FREE_TEXT",
    "Drift",
    "Effect",
    "FileProblem",
    "Policy",
    "Tool",
    "Workflow",
    "load_workflow",
    "load_workflows",
    "nearest",
]

HERE = Path(__file__).parent
FREE_TEXT = "~="
"""A script value that starts with this is an expression whose text differs at each ask, as a model's prose does."""


class FileProblem(ValueError):
    """A file can't be used; the message is one line that names file, key and remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, or the known names where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Does(_Strict):
    """What a tool does to the world's records.

    ``get`` one record by `id`, ``list`` the records for which `where` (over ``record`` and ``args``) holds,
    ``create`` a record with `id` (over ``args`` and ``n``, the count of records made so), ``update`` the record `id`.
    `set` gives the fields that are written, `returns` the result of a write (over ``args``, ``id``, ``record``).
    """

    op: Literal["get", "list", "create", "update"]
    collection: str
    id: str = ""
    where: str = "= true"
    set: dict[str, Any] = {}
    returns: dict[str, Any] = {}


class Threshold(_Strict):
    """An approval is needed where the argument `parameter` is above a limit."""

    parameter: str
    above: float


class Tool(_Strict):
    """One tool of an outside service."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")
    description: str
    effect: Literal["read", "write"]
    idempotency: Literal["key", "lookup", "none"] = "none"
    """How the API treats a repeat: honours an Idempotency-Key, lets the effect be found by a client reference, or neither."""
    approval: Literal["never", "always"] | Threshold = "never"
    if_match: bool = False
    """Whether the write is refused (412) where If-Match names an older version of the record it updates."""
    price_usd: float = Field(default=0.0, ge=0)
    latency_ms: float = Field(default=2.0, ge=0, le=1000)
    parameters: dict[str, Any]
    result: dict[str, Any]
    does: Does

    def public(self) -> dict[str, Any]:
        """What a SUT may know of the tool."""
        shown = self.model_dump(include={"description", "parameters", "result", "effect", "idempotency", "if_match"})
        approval = self.approval if isinstance(self.approval, str) else self.approval.model_dump()
        return {**shown, "approval": approval}


class Task(_Strict):
    """What is to be done, in words, and what it costs a person."""

    title: str
    goal: str
    why: str
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
    sleep_seconds: float | None = Field(default=None, gt=0)
    when: str | None = None
    for_each: str | None = None
    fresh: list[str] = []
    """Read steps whose records must be unchanged when this write happens; read again after a wait."""

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        kinds = [self.tool is not None, self.ask is not None, self.sleep_seconds is not None]
        if sum(kinds) != 1:
            raise ValueError("a step has exactly one of 'tool', 'ask' and 'sleep_seconds'")
        if self.for_each is not None and self.tool is None:
            raise ValueError("'for_each' goes with 'tool' only")
        if self.ask is not None and not self.output:
            raise ValueError("an 'ask' needs 'output', the JSON schema of its answer")
        for key in ("when", "for_each"):
            if getattr(self, key) is not None and not is_expression(getattr(self, key)):
                raise ValueError(f"'{key}' must be an expression, a string that starts with '='")
        return self


class Policy(_Strict):
    """Budgets, time-outs (real seconds, never scaled) and what a rejected approval means."""

    tool_timeout_seconds: float = Field(default=2.0, gt=0)
    model_timeout_seconds: float = Field(default=5.0, gt=0)
    attempts: int = Field(default=4, ge=1)
    backoff_base_seconds: float = Field(default=0.05, gt=0)
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
    """What may change in the world while the workflow waits at `step`, and the effects that are then correct."""

    name: str
    step: str
    """The write step (or timer) whose wait the record changes in."""
    record: str = Field(pattern=r"^[a-z_]+/.+$")
    """``collection/id``."""
    set: dict[str, Any]
    outcome: Literal["refresh", "flag"] = "refresh"
    effects: list[Effect]


class Truth(_Strict):
    """The literal expected effects, in the plan's order; never shown to a SUT."""

    effects: list[Effect]
    rejected: dict[str, list[str]] = {}
    """For each step that needs approval: the steps whose effects are all there is when it is rejected or expires."""


class _File(_Strict):
    task: Task
    world: dict[str, dict[str, dict[str, Any]]]
    plan: list[Step] = Field(min_length=2)
    policy: Policy = Policy()
    script: dict[str, dict[str, Any]] = {}
    drift: list[Drift] = []
    truth: Truth


class Workflow:
    """A golden workflow: its file's parts, and the tools it uses. `name` is ``class/name``."""

    def __init__(self, name: str, file: _File, tools: Mapping[str, Tool]) -> None:
        self.name = name
        self.workflow_class = name.split("/", maxsplit=1)[0]
        self.task = file.task
        self.world = file.world
        self.steps = {step.id: step for step in file.plan}
        self.policy = file.policy
        self.script = file.script
        self.drifts = {drift.name: drift for drift in file.drift}
        self.truth = file.truth
        self.tools = dict(tools)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What a SUT may see, as JSON: steps, tools, policy; no script, no seed records, no truth."""
        return {
            "schema": 1,
            "workflow": self.name,
            "task": self.task.goal.strip(),
            "model": "scripted",
            "steps": [
                step.model_dump(exclude_defaults=True) | ({"args": step.args} if step.tool else {})
                for step in self.steps.values()
            ],
            "tools": {name: tool.public() for name, tool in self.tools.items()},
            "policy": self.policy.model_dump(),
        }

    @cached_property
    def free_arguments(self) -> dict[str, frozenset[str]]:
        """For each tool step, the arguments that carry the model's prose and so have no literal truth."""
        prose = {
            f"{step}.{field}"
            for step, fields in self.script.items()
            for field, value in fields.items()
            if isinstance(value, str) and value.startswith(FREE_TEXT)
        }
        return {
            step.id: frozenset(
                name
                for name, value in step.args.items()
                if is_expression(value) and prose & set(re.findall(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*", value))
            )
            for step in self.steps.values()
            if step.tool
        }

    def writes(self) -> list[Step]:
        """The plan's steps that change the world."""
        return [step for step in self.steps.values() if step.tool and self.tools[step.tool].effect == "write"]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(f"{path}: not valid TOML: {error}") from error



def validation_problem(error: ValidationError, form: type[BaseModel]) -> str:
    """The first problem of a pydantic error as ``key: what was found, what is allowed``."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        known = _fields_at(form, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), known) if known else ""
        return f"{place}: unknown key{hint}"
    if first["type"] == "missing":
        return f"{place}: this key is missing"
    message = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], (dict, list)) else f", found {first['input']!r}"
    return f"{place}: {message}{found}"


def _fields_at(form: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The field names of the model that stands at a location of a parsed file; empty where that is no model."""
    current: Any = form
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                return []
            current = current.model_fields[part].annotation
        else:
            arguments = [argument for argument in getattr(current, "__args__", ()) if argument is not str]
            current = arguments[-1] if arguments else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


class _ToolFile(_Strict):
    service: str
    tools: list[Tool]


@lru_cache(maxsize=8)
def load_tools(folder: Path) -> dict[str, Tool]:
    """Every tool of a folder of tool files, by name. Raises FileProblem."""
    tools: dict[str, Tool] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            parsed = _ToolFile.model_validate(_read(path))
        except ValidationError as error:
            raise FileProblem(f"{path}: {validation_problem(error, _ToolFile)}") from error
        for tool in parsed.tools:
            if not tool.name.startswith(f"{parsed.service}."):
                raise FileProblem(f"{path}: tool {tool.name!r} must be called '{parsed.service}.…'")
            for key in ("parameters", "result"):
                try:
                    Draft202012Validator.check_schema(getattr(tool, key))
                except SchemaError as error:
                    raise FileProblem(f"{path}: {tool.name}.{key}: not a JSON schema: {error.message}") from error
            tools[tool.name] = tool
    return tools


def load_workflow(path: Path, tools_folder: Path | None = None) -> Workflow:
    """The workflow of one file, checked: every name in it resolves. Raises FileProblem."""
    tools = load_tools(tools_folder or HERE / "tools")
    try:
        file = _File.model_validate(_read(path))
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, _File)}") from error
    _check_names(path, file, tools)
    used = {step.tool: tools[step.tool] for step in file.plan if step.tool}
    workflow = Workflow(f"{path.parent.name}/{path.stem}", file, used)
    _check_truth(path, workflow)
    return workflow


def load_workflows(folder: Path | None = None) -> dict[str, Workflow]:
    """Every workflow below a folder (default: the ones shipped), by name. Raises FileProblem."""
    root = folder or HERE
    tools = root / "tools" if (root / "tools").is_dir() else None
    paths = sorted(path for path in root.glob("*/*.toml") if path.parent.name != "tools")
    return {workflow.name: workflow for workflow in (load_workflow(path, tools) for path in paths)}


def _check_names(path: Path, file: _File, tools: Mapping[str, Tool]) -> None:
    ids = [step.id for step in file.plan]
    for step_id in ids:
        if ids.count(step_id) > 1:
            raise FileProblem(f"{path}: plan.{step_id}: two steps have this id; give each its own")
    earlier: set[str] = set()
    for step in file.plan:
        where = f"{path}: plan.{step.id}"
        if step.tool is not None and step.tool not in tools:
            raise FileProblem(f"{where}.tool: no tool is called {step.tool!r}{nearest(step.tool, tools)}")
        allowed = earlier | ({"item", "index"} if step.for_each else set())
        try:
            used = step_names_used(step.model_dump(exclude_none=True))
        except ExpressionError as error:
            raise FileProblem(f"{where}: {error}") from error
        for name in sorted(used - allowed):
            raise FileProblem(f"{where}: an expression names {name!r}, which is no earlier step{nearest(name, allowed)}")
        for name in step.fresh:
            if name not in earlier:
                raise FileProblem(f"{where}.fresh: {name!r} is no earlier step{nearest(name, earlier)}")
        if step.ask is not None:
            _check_script(where, step, file.script.get(step.id))
        earlier.add(step.id)
    for name in file.script:
        if name not in ids:
            raise FileProblem(f"{path}: script.{name}: no step has this id{nearest(name, ids)}")


def _check_script(where: str, step: Step, script: Mapping[str, Any] | None) -> None:
    if script is None:
        raise FileProblem(f"{where}: [script.{step.id}] is missing; it gives the scripted model's answer")
    for field, value in script.items():
        expression = value.removeprefix("~") if isinstance(value, str) else value
        try:
            unknown = sorted(names_in(expression) - set(step.inputs))
        except ExpressionError as error:
            raise FileProblem(f"{where}: script.{field}: {error}") from error
        if unknown:
            raise FileProblem(
                f"{where}: script.{field} names {unknown[0]!r}, which is not among the step's inputs"
                f"{nearest(unknown[0], step.inputs)}"
            )


def _check_truth(path: Path, workflow: Workflow) -> None:
    writes = {step.id: step for step in workflow.writes()}
    if not writes:
        raise FileProblem(f"{path}: plan: at least one step must write")
    lists = [("truth.effects", workflow.truth.effects)]
    lists += [(f"drift.{drift.name}.effects", drift.effects) for drift in workflow.drifts.values()]
    for key, effects in lists:
        for effect in effects:
            if effect.step not in writes:
                raise FileProblem(f"{path}: {key}: {effect.step!r} is no step that writes{nearest(effect.step, writes)}")
            step = writes[effect.step]
            if effect.tool != step.tool:
                raise FileProblem(f"{path}: {key}: step {step.id!r} calls {step.tool!r}, not {effect.tool!r}")
            expected = set(step.args) - workflow.free_arguments[step.id]
            if set(effect.args) != expected:
                raise FileProblem(f"{path}: {key}: {step.id!r} needs exactly the arguments {', '.join(sorted(expected))}")
    for step_id, kept in workflow.truth.rejected.items():
        for name in [step_id, *kept]:
            if name not in writes:
                raise FileProblem(f"{path}: truth.rejected: {name!r} is no step that writes{nearest(name, writes)}")
    for drift in workflow.drifts.values():
        collection, record = drift.record.split("/", maxsplit=1)
        if record not in workflow.world.get(collection, {}):
            raise FileProblem(f"{path}: drift.{drift.name}.record: no seed record {drift.record!r}")
        if drift.step not in workflow.steps:
            raise FileProblem(f"{path}: drift.{drift.name}.step: no step {drift.step!r}{nearest(drift.step, workflow.steps)}")
