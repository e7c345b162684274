"""Each folder imports only what the design allows it to, and a worker carries nothing of the harness."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kintsugi

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(kintsugi.__file__).parent

MAY = {
    "runtime": {"kintsugi.runtime"},
    "golden_workflows": {
        "kintsugi.golden_workflows",
        "kintsugi.runtime.protocol",
        "kintsugi.runtime.rules",
    },
    "faults": {"kintsugi.faults"},
    "scenarios": {"kintsugi.scenarios", "kintsugi.golden_workflows", "kintsugi.faults"},
    "harness": {
        "kintsugi.harness",
        "kintsugi.scenarios",
        "kintsugi.golden_workflows",
        "kintsugi.faults",
        "kintsugi.runtime",
        "kintsugi.__version__",
    },
    "harness/commands": {"kintsugi"},
    "harness/records.py": set(),
    "harness/launcher.py": set(),
    "reports": {"kintsugi.reports", "kintsugi.harness.records"},
}
"""For each folder, or for a part of one, what of ours it may import; the longest that fits speaks."""

FILES = sorted(str(path.relative_to(PACKAGE)) for folder in PACKAGE.iterdir() for path in folder.rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """The full names of all that is imported anywhere in a source; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(file: str, source: str) -> list[str]:
    """What a file imports against the design."""
    parts = [part for part in MAY if f"{file}/".startswith(f"{part}/")]
    may = MAY[max(parts, key=len)]
    return [
        name
        for name in imports(source)
        if f"{name}.".startswith((".", "kintsugi."))
        and not any(f"{name}.".startswith(f"{allowed}.") for allowed in may)
    ]


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_what_its_folder_may(file: str) -> None:
    assert forbidden(file, (PACKAGE / file).read_text(encoding="utf-8")) == []


def test_every_folder_is_looked_at() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {part for part in MAY if "/" not in part}
    assert {file.split("/")[0] for file in FILES} == folders
    assert all((PACKAGE / part).exists() for part in MAY)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("runtime/x.py", "from kintsugi.golden_workflows import plan"),
        ("runtime/engines/x.py", "def f():\n    import kintsugi.harness.trial"),
        ("golden_workflows/x.py", "from kintsugi.runtime.journal import Journal"),
        ("golden_workflows/x.py", "from kintsugi.runtime import journal"),
        ("golden_workflows/chains/x.py", "from kintsugi import faults"),
        ("faults/x.py", "if TYPE_CHECKING:\n    from kintsugi.golden_workflows.spec import Workflow"),
        ("scenarios/x.py", "from kintsugi.harness.history import Event"),
        ("scenarios/x.py", "from kintsugi.runtime.protocol import Decision"),
        ("harness/x.py", "from kintsugi.reports import scorecard"),
        ("harness/x.py", "import kintsugi"),
        ("harness/records.py", "from kintsugi.harness.history import Event"),
        ("harness/launcher.py", "import kintsugi.runtime.minimal"),
        ("reports/x.py", "from kintsugi.harness.metrics import measure"),
        ("reports/x.py", "from kintsugi.harness import records, metrics"),
        ("reports/x.py", "from ..harness import metrics"),
        ("runtime/x.py", "from . import journal"),
    ],
)
def test_what_goes_against_an_arrow_is_found(file: str, source: str) -> None:
    assert forbidden(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("harness/commands/x.py", "from kintsugi.reports.scorecard import write"),
        ("golden_workflows/x.py", "from kintsugi.runtime.rules import canonical"),
        ("reports/x.py", "from kintsugi.harness.records import TrialResult\nimport kintsugified"),
        ("harness/x.py", "from kintsugi import __version__\nfrom kintsugi.runtime.rules import canonical"),
        ("runtime/x.py", "import json\nfrom kintsugi.runtime import journal"),
    ],
)
def test_what_goes_along_an_arrow_is_not(file: str, source: str) -> None:
    assert forbidden(file, source) == []


# --- what is really loaded ----------------------------------------------------------------------------------

HEAVY = {"pandas", "matplotlib", "numpy", "scipy", "litellm", "docker", "click", "rich"}


def loaded_by(*modules: str) -> set[str]:
    """The modules in a fresh process that has imported some."""
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return set(json.loads(ended.stdout))


def test_a_worker_carries_nothing_of_the_harness() -> None:
    chains = "kintsugi.golden_workflows.chains"
    loaded = loaded_by("kintsugi.runtime.minimal", "kintsugi.runtime.engines.naive", chains)
    ours = {name for name in loaded if name.startswith("kintsugi.")}
    assert {"kintsugi.runtime.minimal", "kintsugi.golden_workflows.chains.naive"} <= ours
    assert {name.split(".")[1] for name in ours} == {"runtime", "golden_workflows"}
    # The truth is in none of what a worker has loaded.
    assert not ours & {"kintsugi.golden_workflows.spec", "kintsugi.golden_workflows.reference"}
    assert not loaded & HEAVY


def test_the_command_is_quick_to_begin() -> None:
    slow = (HEAVY - {"click"}) | {"aiohttp", "jinja2", "pydantic", "jsonschema"}
    assert not loaded_by("kintsugi.harness.cli") & slow
