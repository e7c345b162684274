"""Suite files: which faults meet which workflows, how often."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import FileProblem, nearest, validation_problem

__all__ = ["FaultShare", "Suite", "Timing", "load_suite", "suite_names"]

HERE = Path(__file__).parent


class _Strict(BaseModel):
    # Strict, as workflow files are: TOML has its own types.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FaultShare(_Strict):
    """How many points of a fault class are drawn from each workflow: shared ones, and the chain's own model points."""

    fault: str
    shared: int = Field(default=0, ge=0)
    model: int = Field(default=0, ge=0)
    one_per_class: bool = False
    """Draw for one workflow of each class only."""
    forms: list[str] = []
    """Only these forms; all where empty."""


class Timing(_Strict):
    """The pass that measures recovery times: few at once, workers started cold."""

    fault: str = "worker_kill"
    forms: list[str] = ["at_boundary"]
    per_class: int = Field(ge=1)
    jobs: int = Field(default=2, ge=1)


class Suite(_Strict):
    """A named, versioned set of trials."""

    name: str
    version: int = Field(ge=1)
    about: str
    workflows: list[str] = ["*"]
    suts: list[Annotated[str, Field(pattern=r"^[a-z0-9_]+\+[a-z0-9_]+$")]] = Field(min_length=1)
    """``sut+chain``, each."""
    clean_seeds: int = Field(default=0, ge=0)
    variance: str = "typical"
    faults: list[FaultShare] = []
    timing: Timing | None = None
    deadline_seconds: float = Field(default=90.0, gt=0)
    storm_calls_max: float = Field(default=5.0, gt=0)
    """How many calls a workflow may make to a failing tool during its outage."""

    def wants(self, workflow: str) -> bool:
        """Whether a workflow belongs to the suite."""
        return any(fnmatch(workflow, pattern) for pattern in self.workflows)


def suite_names() -> list[str]:
    """The suites that are shipped."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


@cache
def load_suite(name_or_path: str) -> Suite:
    """A shipped suite by its name, or one from a TOML file by its path. Raises FileProblem."""
    path = Path(name_or_path) if name_or_path.endswith(".toml") else HERE / f"{name_or_path}.toml"
    if not path.is_file():
        if path.suffix == ".toml" and path.parent != HERE:
            raise FileProblem(f"{path}: there is no such suite file")
        raise FileProblem(f"no suite is called {name_or_path!r}{nearest(name_or_path, suite_names())}")
    try:
        suite = Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise FileProblem(f"{path}: can't be read: byte {error.start} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, Suite)}") from error
    problem = next(_problems(suite), "")
    if problem:
        raise FileProblem(f"{path}: {problem}")
    return suite


def _problems(suite: Suite) -> Iterator[str]:
    """What is wrong with the names in a suite, each as one line."""
    drawn: set[tuple[str, str]] = set()
    for position, share in enumerate(suite.faults):
        if share.fault not in FAULTS:
            yield f"faults[{position}].fault: no fault class is called {share.fault!r}{nearest(share.fault, FAULTS)}"
            continue
        known = [form.name for form in FAULTS[share.fault].forms]
        for form in share.forms or known:
            if form not in known:
                yield f"faults[{position}].forms: {share.fault} has no form {form!r}{nearest(form, known)}"
            elif (share.fault, form) in drawn:
                yield f"faults[{position}].forms: {share.fault}.{form} is drawn by an earlier share already"
            drawn.add((share.fault, form))
    if suite.timing is None:
        return
    if suite.timing.fault not in FAULTS:
        yield f"timing.fault: no fault class is called {suite.timing.fault!r}{nearest(suite.timing.fault, FAULTS)}"
        return
    known = [form.name for form in FAULTS[suite.timing.fault].forms]
    for form in suite.timing.forms:
        if form not in known:
            yield f"timing.forms: {suite.timing.fault} has no form {form!r}{nearest(form, known)}"
