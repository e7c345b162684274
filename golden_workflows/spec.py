"""Loads workflow and tool files: everything wrong in a file is one line that says what to do.

`load_workflow` and `load_workflows` check what can be seen in the text: names, forms, schemas. That plan and
truth agree is proven by walking the plan: `kintsugi.golden_workflows.reference.check_truth`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kintsugi.golden_workflows.checks.plan import plan_problem
from kintsugi.golden_workflows.checks.tool import tool_problem
from kintsugi.golden_workflows.checks.truth import truth_problem
from kintsugi.golden_workflows.checks.world import world_problem
from kintsugi.golden_workflows.forms import (
    FREE_TEXT,
    Drift,
    Effect,
    Policy,
    Tool,
    ToolFile,
    WorkflowFile,
)
from kintsugi.golden_workflows.problems import FileProblem, nearest, read_toml, validation_problem
from kintsugi.golden_workflows.workflow import Workflow

if TYPE_CHECKING:
    from kintsugi.golden_workflows.expressions import Json

__all__ = [
    "FREE_TEXT",
    "NAME",
    "Drift",
    "Effect",
    "FileProblem",
    "Policy",
    "Tool",
    "Workflow",
    "folder_of",
    "known_tools",
    "load_tools",
    "load_workflow",
    "load_workflows",
    "nearest",
    "validation_problem",
    "workflow_files",
]

HERE = Path(__file__).parent
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What the folder of a class and the file of a workflow may be called."""


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


def known_tools(own: Path) -> Mapping[str, Tool]:
    """The shipped tools and those of the tool files in `own`, a folder that need not be there, by name.

    Raises FileProblem where one of its own has the name of a shipped one and is another.
    """
    shipped = load_tools(HERE / "tools")
    known = {**shipped, **load_tools(own)}
    clash = next((name for name, tool in shipped.items() if known[name] != tool), None)
    if clash is not None:
        holding = (path for path in sorted(own.glob("*.toml")) if clash in path.read_text(encoding="utf-8"))
        place = next(holding, own)
        raise FileProblem(f"{place}: tools.{clash}: is a tool that Kintsugi brings; give yours another name")
    return known


def load_workflow(path: Path, tools_folder: Path | None = None) -> Workflow:
    """The workflow of one file, checked: every name in it resolves. Raises FileProblem.

    Its tools are the shipped ones, and those of `tools_folder`: by default the ``tools/`` beside the folder it is in.
    """
    path_class = path.absolute().parent.name
    misnamed = next((each for each in (path_class, path.stem) if not NAME.fullmatch(each)), None)
    if misnamed is not None:
        raise FileProblem(f"{path}: {misnamed!r} names no class or workflow; take lower-case letters, digits, _ and -")
    tools = known_tools(tools_folder or folder_of(path) / "tools")
    data = _read(path)
    try:
        file = WorkflowFile.model_validate(data)
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, WorkflowFile, data)}") from error
    problem = plan_problem(file, tools)
    if problem:
        raise FileProblem(f"{path}: {problem}")
    used = {step.tool: tools[step.tool] for step in file.plan if step.tool}
    workflow = Workflow(f"{path_class}/{path.stem}", file, used, path)
    problem = truth_problem(workflow, [drift.name for drift in file.drift]) or world_problem(workflow)
    if problem:
        raise FileProblem(f"{path}: {problem}")
    return workflow


def load_workflows(folder: Path | None = None) -> dict[str, Workflow]:
    """Every workflow of a folder (default: the ones shipped), by its name ``class/name``. Raises FileProblem.

    A folder of one's own may bring ``tools/``, which are known beside the shipped ones.
    """
    root = folder or HERE
    loaded = (load_workflow(path, root / "tools") for path in workflow_files(root))
    return {workflow.name: workflow for workflow in loaded}


def folder_of(path: Path) -> Path:
    """The folder of workflows that a workflow's file is in; a relative path where the file's is one."""
    folder = path.absolute().parent.parent
    return folder if path.is_absolute() else Path(os.path.relpath(folder))


def workflow_files(folder: Path) -> list[Path]:
    """The workflow files of a folder, ``<class>/<name>.toml``; a class is no hidden folder, and not ``tools/``."""
    found = folder.glob("*/*.toml")
    return sorted(path for path in found if path.parent.name != "tools" and not path.parent.name.startswith("."))


def _read(path: Path) -> dict[str, Any]:
    data = read_toml(path)
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
