"""Suite files: which faults meet which workflows, how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.problems import FileProblem, nearest, read_toml, validation_problem

__all__ = ["FaultShare", "Pairs", "Suite", "Timing", "load_suite", "suite_names"]

HERE = Path(__file__).parent


class _Strict(BaseModel):
    # Strict, as workflow files are: TOML has its own types.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FaultShare(_Strict):
    """How many points of a fault class are drawn from each workflow: shared ones, and the chain's own model points."""

    fault: str
    shared: int = Field(default=0, ge=0)
    model: int = Field(default=0, ge=0)
    all: bool = False
    """Every point and form instead of a draw."""
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


class Pairs(_Strict):
    """Schedules of two: the second kill meets the recovery from the first, at every point that any recovery crosses."""

    all: list[str] = []
    """The workflows of which every pair is run (patterns)."""
    sampled: int = Field(default=0, ge=0)
    """How many pairs are drawn from each other workflow."""

    def wants_all(self, workflow: str) -> bool:
        """Whether every pair of a workflow is run."""
        return any(fnmatch(workflow, pattern) for pattern in self.all)


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
    pairs: Pairs | None = None
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
    data = read_toml(path)
    try:
        suite = Suite.model_validate(data)
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
        where = f"faults[{position}]"
        if share.all and (share.shared or share.model or share.one_per_class):
            yield f"{where}.all: every point is struck already; leave out shared, model and one_per_class"
        yield from _unknown(share.fault, share.forms, where)
        for form in share.forms or _forms(share.fault):
            if (share.fault, form) in drawn:
                yield f"{where}.forms: {share.fault}.{form} is drawn by an earlier share already"
            drawn.add((share.fault, form))
    if suite.timing is not None:
        yield from _unknown(suite.timing.fault, suite.timing.forms, "timing")


def _forms(fault: str) -> list[str]:
    return [form.name for form in FAULTS[fault].forms] if fault in FAULTS else []


def _unknown(fault: str, forms: Sequence[str], where: str) -> Iterator[str]:
    """A fault class, or forms of one, that there are not."""
    if fault not in FAULTS:
        yield f"{where}.fault: no fault class is called {fault!r}{nearest(fault, FAULTS)}"
        return
    known = _forms(fault)
    for form in forms:
        if form not in known:
            yield f"{where}.forms: {fault} has no form {form!r}{nearest(form, known)}"
