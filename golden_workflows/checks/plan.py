"""What is wrong with a plan and its script, as far as the text shows: pure, the first problem as one line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from kintsugi.golden_workflows.checks.tool import schema_form_problem
from kintsugi.golden_workflows.expressions import (
    FUNCTIONS,
    ExpressionError,
    Json,
    fields_in,
    is_expression,
    names_in,
)
from kintsugi.golden_workflows.forms import FREE_TEXT, Step, Tool, WorkflowFile, is_free_text
from kintsugi.golden_workflows.plan import step_names_used
from kintsugi.golden_workflows.problems import nearest
from kintsugi.runtime.rules import schema_problem

__all__ = ["plan_problem"]

WORDS = ("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "self")

RESERVED = {
    "item": "a loop's own name for its element",
    "index": "a loop's own name for its position",
    "start": "the name of a run's beginning",
    "end": "the name of a run's end",
    "result": "the name of what a step with 'until' has read",
    **dict.fromkeys(FUNCTIONS, "a function of the expression language"),
    **dict.fromkeys(WORDS, "a word of the expression language"),
}
"""Names that a step can't have, with the reason."""


def plan_problem(file: WorkflowFile, tools: Mapping[str, Tool]) -> str:
    """The first problem of plan, script and world: ``key: what was found, what is allowed``; or empty."""
    return next(_problems(file, tools), "")


def _problems(file: WorkflowFile, tools: Mapping[str, Tool]) -> Iterator[str]:
    ids = [step.id for step in file.plan]
    earlier: dict[str, Step] = {}
    for step in file.plan:
        for problem in _step(step, earlier, ids, tools):
            yield f"plan.{step.id}{problem}"
        if step.ask is not None:
            yield from _script(step, file.script.get(step.id))
        earlier[step.id] = step
    yield from _groups(file.plan, tools)
    asks = [step.id for step in file.plan if step.ask is not None]
    for name in file.script:
        if name not in asks:
            yield f"script.{name}: no 'ask' step has this id{nearest(name, asks)}"
    used = [tools[step.tool].does for step in file.plan if step.tool]
    collections = {does.collection for does in used} | {does.refuse.collection for does in used if does.refuse}
    for name in file.world:
        if name not in collections:
            yield f"world.{name}: no tool of this plan uses these records{nearest(name, collections)}"


def _step(step: Step, earlier: Mapping[str, Step], ids: list[str], tools: Mapping[str, Tool]) -> Iterator[str]:
    if step.id in earlier:
        yield ": two steps have this id; give each its own"
    if step.id in RESERVED:
        yield f": a step can't be called {step.id!r}, {RESERVED[step.id]}"
    if step.tool is not None and step.tool not in tools:
        yield f".tool: no tool is called {step.tool!r}{nearest(step.tool, tools)}"
        return
    for problem in _expressions(step, earlier, ids, tools):
        yield f".{problem}"
    if step.tool is not None:
        if step.until is not None and tools[step.tool].effect == "write":
            yield f".until: goes with a read, and {step.tool} is a write"
        for problem in (*_arguments(step, tools[step.tool]), *_freshness(step, earlier, tools)):
            yield f".{problem}"
    if step.ask is not None:
        for problem in _output(step):
            yield f".{problem}"


# --- expressions --------------------------------------------------------------------------------------------


def _expressions(step: Step, earlier: Mapping[str, Step], ids: list[str], tools: Mapping[str, Tool]) -> Iterator[str]:
    """Every expression of a step can be parsed, and names what is known when it is evaluated."""
    for key in ("when", "for_each", "until", "args", "inputs", "output"):
        value = getattr(step, key)
        try:
            used = fields_in(value)
        except ExpressionError as error:
            yield f"{key}: {error}"
            continue
        own = _own_names(step, key)
        for name, field in sorted(used, key=str):
            if name in own:
                continue
            if name in ("item", "index"):
                yield f"{key}: {name!r} is known only in the args of a step with 'for_each'"
            elif name not in earlier:
                later = "a later step" if name in ids else "no earlier step"
                hint = nearest(name, [*earlier, *own])
                yield f"{key}: an expression names {name!r}, which is {later}{hint}"
            elif field is not None:
                problem = _field_problem(earlier[name], field, tools)
                if problem:
                    yield f"{key}: {problem}"
    for name in step.inputs.keys() & FUNCTIONS.keys():
        yield f"inputs.{name}: an input can't be called {name!r}, {RESERVED[name]}"


def _own_names(step: Step, key: str) -> tuple[str, ...]:
    """The names beside those of earlier steps that an expression of a step may use."""
    if key == "until":
        return ("result",)
    return ("item", "index") if step.for_each and key == "args" else ()


def _field_problem(step: Step, field: str, tools: Mapping[str, Tool]) -> str:
    """Why a step's value can't have a field, where that is certain; a read may give more than declared."""
    if step.for_each is not None:
        return f"{step.id!r} is a loop, so its value is a list and has no field {field!r}"
    if step.sleep_seconds is not None:
        return f"{step.id!r} is a timer and has no value"
    if step.ask is not None:
        known = step.output.get("properties", {})
    elif tools[str(step.tool)].effect == "write":
        known = tools[str(step.tool)].does.returns
    else:
        return ""
    return "" if field in known else f"{step.id!r} gives no {field!r}{nearest(field, known)}"


# --- tool steps ---------------------------------------------------------------------------------------------


def _arguments(step: Step, tool: Tool) -> Iterator[str]:
    properties = tool.parameters["properties"]
    for name, value in step.args.items():
        if name not in properties:
            yield f"args.{name}: {tool.name} has no such argument{nearest(name, properties)}"
        elif is_free_text(value):
            yield f"args.{name}: {FREE_TEXT!r} is for scripts; here an expression starts with '='"
        elif not names_in(value) and not is_expression(value):
            problem = schema_problem(value, properties[name])
            if problem:
                yield f"args.{name}: {problem.removeprefix('the value: ')}"
    for name in tool.parameters.get("required", []):
        if name not in step.args:
            yield f"args.{name}: this key is missing; {tool.name} requires it"


def _freshness(step: Step, earlier: Mapping[str, Step], tools: Mapping[str, Tool]) -> Iterator[str]:
    tool = tools[str(step.tool)]
    reads = [name for name, other in earlier.items() if other.tool and tools[other.tool].effect == "read"]
    if step.fresh and tool.effect == "read":
        yield f"fresh: goes with a write, and {tool.name} is a read"
    for name in step.fresh:
        if name not in earlier:
            yield f"fresh: {name!r} is no earlier step{nearest(name, reads)}"
        elif name not in reads:
            yield f"fresh: {name!r} is no read, so it has no version to compare{nearest(name, reads)}"
    if tool.if_match and step.fresh:
        first = tools[str(earlier[step.fresh[0]].tool)].does
        if (first.op, first.collection) != ("get", tool.does.collection):
            yield (
                f"fresh: {tool.name} takes If-Match, so the first must read the record it updates, a 'get' "
                f"of {tool.does.collection}; {step.fresh[0]!r} is a {first.op!r} of {first.collection}"
            )


def _groups(plan: Sequence[Step], tools: Mapping[str, Tool]) -> Iterator[str]:
    """Each parallel group is some steps in a row, of which none rests on another or waits for a person."""
    before: str | None = None
    begun: set[str] = set()
    for step in plan:
        group = step.parallel
        if group is not None:
            others = {other.id for other in plan if other.parallel == group} - {step.id}
            for problem in _member(step, others, tools[str(step.tool)], begun=group in begun and before != group):
                yield f"plan.{step.id}.parallel: {problem}"
            begun.add(group)
        before = group


def _member(step: Step, others: Collection[str], tool: Tool, *, begun: bool) -> Iterator[str]:
    if begun:
        yield f"other steps stand between it and the rest of group {step.parallel!r}; put them before or after it"
    if not others:
        yield f"no other step is in group {step.parallel!r}; name another the same, or leave it out"
    named = step_names_used(step.model_dump(exclude_defaults=True)).intersection(others)
    if named:
        yield f"an expression names {min(named)!r}, which is done at the same time; leave one of them out of the group"
    if tool.approval != "never":
        yield f"{tool.name} needs an approval, which is waited for; put it before or after the group"


# --- questions for the model --------------------------------------------------------------------------------


def _output(step: Step) -> Iterator[str]:
    schema = step.output
    problem = schema_form_problem(_without_expressions(schema), "output")
    if problem:
        yield problem
        return
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, Mapping) or not properties:
        yield "output: must be an object with 'properties': type = \"object\", properties = {…}"
        return
    if schema.get("additionalProperties") is not False:
        yield "output: must say additionalProperties = false, so that an invented field is refused"
    required = schema.get("required", [])
    for name in required:
        if name not in properties:
            yield f"output.required: {name!r} is no property{nearest(name, properties)}"
    for name in properties:
        if name not in required:
            yield f"output.required: {name!r} is missing; later steps rely on every field"


def _without_expressions(schema: Json, key: str = "") -> Json:
    """A schema with a value of the right kind in place of each expression, to check its form."""
    if is_expression(schema):
        return [0] if key == "enum" else 0
    if isinstance(schema, Mapping):
        return {name: _without_expressions(value, name) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_without_expressions(value) for value in schema]
    return schema


def _script(step: Step, script: Mapping[str, Any] | None) -> Iterator[str]:
    where = f"script.{step.id}"
    if script is None:
        yield f"{where}: this table is missing; it gives the scripted model's answer"
        return
    properties = step.output["properties"]
    for name in properties:
        if name not in script:
            yield f"{where}.{name}: this key is missing; the step's output has it"
    for field, value in script.items():
        if field not in properties:
            yield f"{where}.{field}: the step's output has no such field{nearest(field, properties)}"
            continue
        yield from (f"{where}.{field}: {problem}" for problem in _answer(step, properties[field], value))


def _answer(step: Step, schema: Json, value: Json) -> Iterator[str]:
    """The problems of one field of a scripted answer."""
    free = is_free_text(value)
    expression = value.removeprefix("~") if free else value
    if free and schema.get("type") != "string":
        yield f'free text ({FREE_TEXT!r}) goes with type = "string"'
    try:
        unknown = sorted(names_in(expression) - set(step.inputs))
    except ExpressionError as error:
        yield str(error)
        return
    if not isinstance(expression, str) and names_in(expression):
        yield "an expression within a list or table is not evaluated; make the whole field one expression"
    if unknown:
        yield f"names {unknown[0]!r}, which is not among the step's inputs{nearest(unknown[0], step.inputs)}"
