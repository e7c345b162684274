"""Imports a domain of a τ²-bench checkout into this process: its tools, its database, its tasks.

Only the domain's tools and what they import themselves are loaded. The package's own ``__init__`` imports agents, voice
and model clients, none of which is needed, so that it is passed over.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from kintsugi.golden_workflows.forms import Tool
from kintsugi.golden_workflows.problems import FileProblem, nearest, validation_problem

__all__ = ["Checkout", "ToolkitTool", "open_checkout"]

DATABASES = ("db.json", "db.toml", "db.yaml")
PACKAGES = {"dotenv": "python-dotenv", "yaml": "pyyaml"}
"""What a module is installed by, where that has another name."""


class ToolkitTool(Tool):
    """A tool of a toolkit that is not ours: what it does is its own code, not a form of ours."""

    does: None = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Checkout:
    """A domain, ready to be used."""

    folder: Path
    domain: str
    toolkit: Any
    """The class of its tools; it is made with a database."""
    database: Any
    """As the domain has it before any task."""
    tools: Mapping[str, Tool]
    """Its tools in our form, by their names in ours: ``<domain>.<tool>``."""
    tasks: list[dict[str, Any]]
    digest: str
    """Of every file that was read: code, database and tasks."""


def open_checkout(folder: Path, domain: str) -> Checkout:
    """Import a domain. Raises FileProblem with one line that says what is missing."""
    source = folder / "src"
    domains = [path.parent.name for path in source.glob("tau2/domains/*/tools.py")]
    if not domains:
        raise FileProblem(f"{folder}: has no src/tau2/domains; give the path of a checkout of tau2-bench")
    if domain not in domains:
        raise FileProblem(f"{folder}: has no domain {domain!r}{nearest(domain, domains)}")
    with _its_package(source):
        tools = _module(folder, f"tau2.domains.{domain}.tools")
        models = _module(folder, f"tau2.domains.{domain}.data_model")
        toolkit = _only(folder, tools, sys.modules["tau2.environment.toolkit"].ToolKitBase)
        form = _only(folder, models, sys.modules["tau2.environment.db"].DB)
    data = folder / "data" / "tau2" / "domains" / domain
    place = next((data / name for name in DATABASES if (data / name).is_file()), None)
    if place is None:
        raise FileProblem(f"{data}: has no database; one of {', '.join(DATABASES)} is expected")
    try:
        database = form.load(str(place))
    except Exception as error:
        raise FileProblem(f"{place}: can't be read as the domain's database: {_one_line(error)}") from error
    tasks = _tasks(data / "tasks.json")
    read = [place, data / "tasks.json", *_files_of(source)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in read)).hexdigest()[:16]
    return Checkout(folder, domain, toolkit, database, _tools(folder, domain, toolkit(database)), tasks, digest)


# --- its code -----------------------------------------------------------------------------------------------


@contextmanager
def _its_package(source: Path) -> Iterator[None]:
    """Make ``tau2`` a package of this checkout alone; what a ``.env`` of its would set is not taken over.

    Its modules stay known afterwards, since they may import more when they are used; another checkout replaces them.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "tau2"]:
        del sys.modules[name]
    package = ModuleType("tau2")
    package.__path__ = [str(source / "tau2")]
    sys.modules["tau2"] = package
    importlib.invalidate_caches()
    if importlib.util.find_spec("loguru"):
        importlib.import_module("loguru").logger.disable("tau2")
    environment = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _module(folder: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        lacking = sorted({PACKAGES.get(each, each) for each in _lacking(folder / "src", name, set())})
        if lacking:
            raise FileProblem(
                f"{folder}: its tools need packages that are not installed here: pip install {' '.join(lacking)}"
            ) from error
        raise FileProblem(f"{folder}: {name} can't be imported: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _lacking(source: Path, name: str, seen: set[str]) -> Iterator[str]:
    """The modules that importing `name` asks for and that are not installed, its own packages' imports included."""
    place = source.joinpath(*name.split("."))
    place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if name in seen or not place.is_file() or name == "tau2":
        return
    seen.add(name)
    for wanted in _imports(place, name):
        if wanted.partition(".")[0] != "tau2":
            if importlib.util.find_spec(wanted.partition(".")[0]) is None:
                yield wanted.partition(".")[0]
            continue
        parts = wanted.split(".")
        for length in range(2, len(parts) + 1):
            yield from _lacking(source, ".".join(parts[:length]), seen)


def _imports(place: Path, name: str) -> Iterator[str]:
    """The full names of what a module imports as it is loaded."""
    package = name if place.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(place.read_text(encoding="utf-8"))
    except SyntaxError:
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _only(folder: Path, module: ModuleType, base: type) -> Any:
    """The one class of a module that is made from a base."""
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, base) and each.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise FileProblem(f"{folder}: {module.__name__} has {len(own)} classes of {base.__name__}, and one is expected")
    return own[0]


def _files_of(source: Path) -> list[Path]:
    """The files of the package that are loaded."""
    names = sorted(name for name in sys.modules if name.startswith("tau2."))
    found = (getattr(sys.modules[name], "__file__", None) for name in names)
    return [Path(file) for file in found if file and Path(file).is_relative_to(source.absolute())]


# --- its tools and tasks ------------------------------------------------------------------------------------


def _tools(folder: Path, domain: str, toolkit: Any) -> dict[str, Tool]:
    """A toolkit's tools in our form.

    A write is one that its makers declare to change the state. They are plain functions, which know nothing of keys or
    references: a repeat acts again, or fails. So `idempotency` is ``none``.
    """
    tools: dict[str, Tool] = {}
    for name, theirs in toolkit.get_tools().items():
        described = theirs.openai_schema["function"]
        try:
            tool = ToolkitTool(
                name=f"{domain}.{name}",
                description=described["description"],
                effect="write" if toolkit.tool_mutates_state(name) else "read",
                parameters={"properties": {}, **described["parameters"], "additionalProperties": False},
                result=_result(theirs.returns.model_json_schema()),
            )
        except ValidationError as error:
            raise FileProblem(f"{folder}: tool {name}: {validation_problem(error, ToolkitTool)}") from error
        tools[tool.name] = tool
    return tools


def _result(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a result, from that of a form whose only field it is."""
    result = schema["properties"]["returns"]
    definitions = schema.get("$defs", {})
    named = definitions.get(str(result.get("$ref", "")).removeprefix("#/$defs/"))
    return {**(named or result), **({"$defs": definitions} if definitions else {})}


def _tasks(place: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileProblem(f"{place}: can't be read: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "id" in task for task in tasks):
        raise FileProblem(f"{place}: is no list of tasks, each with its id")
    return tasks
