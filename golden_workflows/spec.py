"""Loads workflow and tool files: everything wrong in a file is one line that says what to do.

`load_workflow` and `load_workflows` check what can be seen in the text: names, forms, schemas. That plan and
truth agree is proven by walking the plan: `kintsugi.golden_workflows.reference.check_truth`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kintsugi.golden_workflows.checks.plan import plan_problem
from kintsugi.golden_workflows.checks.tool import tool_problem
from kintsugi.golden_workflows.checks.truth import truth_problem
from kintsugi.golden_workflows.forms import (
    FREE_TEXT,
    Drift,
    Effect,
    Policy,
    Tool,
    ToolFile,
    Workflow,
    WorkflowFile,
)
from kintsugi.golden_workflows.problems import FileProblem, nearest, validation_problem

if TYPE_CHECKING:
    from kintsugi.golden_workflows.expressions import Json

__all__ = [
    "FREE_TEXT",
    "Drift",
    "Effect",
    "FileProblem",
    "Policy",
    "Tool",
    "Workflow",
    "load_tools",
    "load_workflow",
    "load_workflows",
    "nearest",
    "validation_problem",
]

HERE = Path(__file__).parent


@lru_cache(maxsize=8)
def load_tools(folder: Path) -> Mapping[str, Tool]:
    """Every tool of a folder of tool files, by name. Raises FileProblem."""
    tools: dict[str, Tool] = {}
    for path in sorted(folder.glob("*.toml")):
        data = _read(path)
        try:
            parsed = ToolFile.model_validate(data)
        except ValidationError as error:
            raise FileProblem(f"{path}: {validation_problem(error, ToolFile, data)}") from error
        for tool in parsed.tools:
            problem = tool_problem(tool, parsed.service)
            if tool.name in tools:
                problem = f"tools.{tool.name}: another tool has this name; give each its own"
            if problem:
                raise FileProblem(f"{path}: {problem}")
            tools[tool.name] = tool
    return tools


def load_workflow(path: Path, tools_folder: Path | None = None) -> Workflow:
    """The workflow of one file, checked: every name in it resolves. Raises FileProblem."""
    tools = load_tools(tools_folder or HERE / "tools")
    data = _read(path)
    try:
        file = WorkflowFile.model_validate(data)
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, WorkflowFile, data)}") from error
    problem = plan_problem(file, tools)
    if problem:
        raise FileProblem(f"{path}: {problem}")
    used = {step.tool: tools[step.tool] for step in file.plan if step.tool}
    workflow = Workflow(f"{path.parent.name}/{path.stem}", file, used, path)
    problem = truth_problem(workflow, [drift.name for drift in file.drift])
    if problem:
        raise FileProblem(f"{path}: {problem}")
    return workflow


def load_workflows(folder: Path | None = None) -> dict[str, Workflow]:
    """Every workflow below a folder (default: the ones shipped), by name. Raises FileProblem.

    A folder of one's own may bring its own ``tools/``; else the shipped tools are used.
    """
    root = folder or HERE
    tools = root / "tools" if (root / "tools").is_dir() else None
    paths = sorted(path for path in root.glob("*/*.toml") if path.parent.name != "tools")
    return {workflow.name: workflow for workflow in (load_workflow(path, tools) for path in paths)}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileProblem(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileProblem(f"{path}: can't be read: byte {error.start} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(f"{path}: not valid TOML: {error}") from error
    problem = _json_problem(data, "")
    if problem:
        raise FileProblem(f"{path}: {problem}")
    return data


def _json_problem(value: Json, place: str) -> str:
    """The first value that TOML knows and JSON does not (a date, an infinity); empty where there is none."""
    if isinstance(value, Mapping):
        return next(filter(None, (_json_problem(each, f"{place}.{key}") for key, each in value.items())), "")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next(filter(None, (_json_problem(each, f"{place}[{at}]") for at, each in enumerate(value))), "")
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and value - value == 0):
        return ""
    return f"{place.removeprefix('.')}: {value} has no form in JSON; put it in quotes"
