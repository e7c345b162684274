"""What is wrong with the seed records for the tools that read them: pure, the first problem as one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kintsugi.golden_workflows.expressions import ExpressionError, evaluate, fields_in
from kintsugi.golden_workflows.forms import Tool
from kintsugi.golden_workflows.results import record_schema
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.runtime.rules import schema_problem

__all__ = ["world_problem"]


class _Anything:
    """An argument that is not known: every comparison with it holds."""

    def _holds(self, other: object) -> bool:
        return True

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _holds
    __hash__ = None  # type: ignore[assignment]


def world_problem(workflow: Workflow) -> str:
    """The first record that a tool of the plan can't give, as ``key: what was found, what is allowed``; else empty.

    Each must keep to the `result` of every tool that may read it, as it is and as a drift leaves it.
    """
    return next(_problems(workflow), "")


def _problems(workflow: Workflow) -> Iterator[str]:
    readers = [tool for tool in workflow.tools.values() if tool.effect == "read"]
    for tool in readers:
        for key, record in workflow.world.get(tool.does.collection, {}).items():
            yield from _record(tool, key, record, f"world.{tool.does.collection}.{key}")
    for drift in workflow.drifts.values():
        collection, _, key = drift.record.partition("/")
        drifted = {**workflow.world[collection][key], **drift.set}
        for tool in readers:
            if tool.does.collection == collection:
                yield from _record(tool, key, drifted, f"drift.{drift.name}.set")


def _record(tool: Tool, key: str, record: Mapping[str, Any], where: str) -> Iterator[str]:
    whole = {"id": key, **record}
    try:
        listed = tool.does.op == "get" or _may_be_listed(tool, whole)
    except ExpressionError as error:
        yield f"{where}: {error}; {tool.name} looks through it, so give it that field"
        return
    problem = schema_problem(whole, record_schema(tool.result)) if listed else ""
    if problem:
        place = problem.removeprefix("the value")
        dot = "" if place.startswith(":") else "."
        yield f"{where}{dot}{place}; so says 'result' of {tool.name}: mend one of them"


def _may_be_listed(tool: Tool, record: Mapping[str, Any]) -> bool:
    """Whether some arguments may bring the record into a list. Raises ExpressionError where it lacks a field."""
    arguments = dict.fromkeys(tool.parameters["properties"], _Anything())
    try:
        return bool(evaluate(tool.does.where, {"args": arguments, "record": record}))
    except ExpressionError:
        if any(name == "record" and field not in record for name, field in fields_in(tool.does.where)):
            raise
        return True  # It does more with an argument than to compare it.
