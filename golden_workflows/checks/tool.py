"""What is wrong with a tool, as far as its own entry shows: pure, the first problem as one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from kintsugi.golden_workflows.expressions import ExpressionError, Json, fields_in, is_expression
from kintsugi.golden_workflows.forms import Threshold, Tool
from kintsugi.golden_workflows.problems import nearest
from kintsugi.runtime.rules import canonical, schema_problem

__all__ = ["schema_form_problem", "tool_problem"]

_EFFECT_OF = {"get": "read", "list": "read", "create": "write", "update": "write"}

_KEYS_OF = {
    "get": ("id", "matures"),
    "list": ("where", "page_size"),
    "create": ("id", "set", "returns", "refuse"),
    "update": ("id", "set", "returns", "refuse"),
}
"""What each kind of deed may say beside `op` and `collection`."""

_NAMES_IN = {
    "id": ("args", "n"),
    "where": ("args", "record"),
    "set": ("args", "n", "id", "record"),
    "returns": ("args", "n", "id", "record"),
}
"""The names that the expressions of each key may use."""


_NAMING = frozenset({"properties", "patternProperties", "dependentSchemas"})
"""The keywords of a schema under which each key is a name of the author's."""

_HOLDING = frozenset({"const", "enum", "default", "examples"})
"""The keywords of a schema whose value is data."""


def tool_problem(tool: Tool, service: str) -> str:
    """The first problem of a tool as ``key: what was found, what is allowed``; empty where there is none."""
    return next(_problems(tool, service), "")


def schema_form_problem(schema: Mapping[str, Any], key: str) -> str:
    """Why a value is no JSON schema that can be used here; empty where it is one."""
    place, message = _schema_error(canonical(schema))
    if message:
        return f"{'.'.join([key, *place])}: not a JSON schema: {message}"
    linked = next(_links(schema, key), "")
    return f"{linked}: a schema can't name another one here; write out what is meant in its place" if linked else ""


def _links(schema: Json, place: str) -> Iterator[str]:
    """Where a schema names another one, or itself: each keyword that begins with ``$``, but for a comment."""
    if isinstance(schema, list):
        for at, inner in enumerate(schema):
            yield from _links(inner, f"{place}.{at}")
    for name, value in schema.items() if isinstance(schema, Mapping) else ():
        where = f"{place}.{name}"
        if name.startswith("$") and name != "$comment":
            yield where
        elif name in _NAMING:
            for own, inner in value.items():
                yield from _links(inner, f"{where}.{own}")
        elif name not in _HOLDING:
            yield from _links(value, where)


@lru_cache(maxsize=1024)
def _schema_error(schema_text: str) -> tuple[tuple[str, ...], str]:
    """Where and how a schema's text breaks the form of schemas; cached, because that is slow to find out."""
    try:
        Draft202012Validator.check_schema(json.loads(schema_text))
    except SchemaError as error:
        return tuple(map(str, error.absolute_path)), error.message
    return (), ""


def _problems(tool: Tool, service: str) -> Iterator[str]:
    where = f"tools.{tool.name}"
    if not tool.name.startswith(f"{service}."):
        yield f"{where}.name: every tool of service {service!r} must be called '{service}.…'"
    for key in ("parameters", "result"):
        problem = schema_form_problem(getattr(tool, key), key)
        if problem:
            yield f"{where}.{problem}"
    yield from (f"{where}.{problem}" for problem in _parameters(tool))
    if tool.effect == "read":
        for rule, default in {"idempotency": "none", "approval": "never", "if_match": False}.items():
            if getattr(tool, rule) != default:
                yield f"{where}.{rule}: {getattr(tool, rule)!r} goes with a write, and this is a read"
    yield from (f"{where}.{problem}" for problem in _deed(tool))


def _parameters(tool: Tool) -> Iterator[str]:
    schema = tool.parameters
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, Mapping):
        yield "parameters: must be an object with 'properties': type = \"object\", properties = {…}"
        return
    if schema.get("additionalProperties") is not False:
        yield "parameters: must say additionalProperties = false, so that an invented argument is refused"
    for name in schema.get("required", []):
        if name not in properties:
            yield f"parameters.required: {name!r} is no property{nearest(name, properties)}"
    if isinstance(tool.approval, Threshold):
        name = tool.approval.parameter
        if name not in properties:
            yield f"approval.parameter: the tool has no argument {name!r}{nearest(name, properties)}"
        elif properties[name].get("type") not in ("integer", "number"):
            yield f"approval.parameter: {name!r} is no number, so it can't be above {tool.approval.above:g}"


def _deed(tool: Tool) -> Iterator[str]:
    does = tool.does
    if _EFFECT_OF[does.op] != tool.effect:
        fitting = " or ".join(repr(op) for op, effect in _EFFECT_OF.items() if effect == tool.effect)
        yield f"does.op: {does.op!r} is no {tool.effect}; allowed for one: {fitting}"
    if tool.if_match and does.op != "update":
        yield f"if_match: only an 'update' has a version to match, and this tool does {does.op!r}"
    allowed = _KEYS_OF[does.op]
    for key in sorted(does.model_fields_set - {"op", "collection"}):
        if key not in allowed:
            yield f"does.{key}: does not go with {does.op!r}; allowed: {', '.join(allowed)}"
    if "id" in allowed and not does.id:
        yield f"does.id: this key is missing; {does.op!r} needs the id of its record"
    for key in allowed:
        if key in _NAMES_IN:
            yield from (f"does.{key}: {problem}" for problem in _expressions(tool, key, getattr(does, key)))
    yield from (f"does.{problem}" for problem in (*_pages(tool), *_refusal(tool), *_maturing(tool)))
    if tool.effect == "write":
        yield from _written(tool)


def _pages(tool: Tool) -> Iterator[str]:
    page = tool.parameters["properties"].get("page", {})
    if tool.does.page_size is not None and (page.get("type") != "integer" or page.get("minimum", 0) < 1):
        yield 'page_size: needs the parameter page = { type = "integer", minimum = 1 }, which says which page'


def _refusal(tool: Tool) -> Iterator[str]:
    if tool.does.refuse is not None:
        own = ("id",) if tool.does.op == "update" else ()
        for problem in _condition(tool, tool.does.refuse.where, ("args", "record", *own)):
            yield f"refuse.where: {problem}"


def _maturing(tool: Tool) -> Iterator[str]:
    matures, properties = tool.does.matures, tool.result.get("properties", {})
    if matures is None:
        return
    if matures.field not in properties:
        yield f"matures.field: 'result' has no field {matures.field!r}{nearest(matures.field, properties)}"
    elif problem := schema_problem(matures.value, properties[matures.field]):
        yield f"matures.value: {problem.removeprefix('the value: ')}"


def _written(tool: Tool) -> Iterator[str]:
    does = tool.does
    if does.op == "create" and ("n", None) not in fields_in(does.id):
        # Else a repeat would meet the first record, whatever the tool says of repeats.
        yield "does.id: the id of a new record must use 'n', so that a repeat makes a second one"
    for name in tool.result.get("required", []):
        if name not in does.returns:
            hint = nearest(name, does.returns)
            yield f"does.returns: {name!r} is required by 'result' and missing{hint}"


def _expressions(tool: Tool, key: str, value: Json) -> Iterator[str]:
    return _condition(tool, value, _NAMES_IN[key]) if key == "where" else _over(tool, value, _NAMES_IN[key])


def _condition(tool: Tool, value: Json, known: Sequence[str]) -> Iterator[str]:
    if not is_expression(value):
        yield "must be an expression, a string that starts with '='"
        return
    yield from _over(tool, value, known)


def _over(tool: Tool, value: Json, known: Sequence[str]) -> Iterator[str]:
    """The problems of a value's expressions over the names that are `known` there."""
    try:
        used = fields_in(value)
    except ExpressionError as error:
        yield str(error)
        return
    parameters = tool.parameters["properties"]
    for name, field in sorted(used, key=str):
        if name not in known:
            yield f"an expression names {name!r}{nearest(name, known)}"
        elif name == "args" and field is not None and field not in parameters:
            yield f"the tool has no argument {field!r}{nearest(field, parameters)}"
