"""Command adapters: a TOML file that says how to drive a SUT written in any language."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kintsugi.faults.fault import Trait
from kintsugi.golden_workflows.problems import FileProblem, nearest, read_toml, validation_problem
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.adapters.adapter import Adapter, Unavailable
from kintsugi.runtime.engines.command import FILE, PLACEHOLDER, PLACEHOLDERS

__all__ = [
    "NAME",
    "AdapterFile",
    "lacking",
    "load_adapter",
    "load_adapters",
    "recorded",
    "to_records",
    "verbs_of",
]

SIDE = "kintsugi.runtime.engines.command"
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a SUT may be called, in full."""
KEPT = ("HOME", "LANG", "TMPDIR", "TZ")
"""What programs of any language expect to find in their environment, beside PATH."""
VERBS = ("provision", "submit", "decide", "status", "retire")


class _Strict(BaseModel):
    # Strict, as workflow files are: TOML has its own types.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Http(_Strict):
    """A request; the verb's payload is its JSON body, and any status of 200 to 299 acknowledges it."""

    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    url: str = Field(pattern=r"^https?://[^/\s]+")


class Worker(_Strict):
    """The program that is run for each life of a worker, in its scratch folder."""

    argv: list[str] = Field(min_length=1)


class Verb(_Strict):
    """How one verb is carried out: by a program, with the payload on its standard input, or by a request."""

    argv: list[str] | None = Field(default=None, min_length=1)
    http: Http | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Verb:
        if (self.argv is None) == (self.http is None):
            raise ValueError("give either argv or http, and not both")
        return self

    def words(self) -> Iterator[tuple[str, str]]:
        """Everything in it that may hold placeholders, and where it stands."""
        for position, word in enumerate(self.argv or ()):
            yield f"argv[{position}]", word
        if self.http is not None:
            yield "http.url", self.http.url


class AdapterFile(_Strict):
    """The whole file."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    about: str = Field(min_length=1)
    decisions: Literal["poll", "push"] = "poll"
    fails_over: bool = False
    resumes: Literal["engine", "supervisor", "script"] = "engine"
    submit_first: bool = False
    state: Literal["files", "elsewhere"] = "files"
    """Where it keeps what it remembers: below its state folder, or where no fault of a disk reaches it."""
    settings: dict[str, str] = {}
    """What was set, and to what, for a reader of the scorecard."""
    environment: dict[str, str] = {}
    """Further environment of its programs."""
    worker: Worker
    provision: Verb | None = None
    submit: Verb | None = None
    decide: Verb | None = None
    status: Verb | None = None
    retire: Verb | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> AdapterFile:
        if self.decisions == "push" and self.decide is None:
            raise ValueError('decisions = "push" needs [decide], how a decision is delivered')
        if self.decisions == "poll" and self.decide is not None:
            raise ValueError('[decide] is never used with decisions = "poll"; remove it, or set decisions = "push"')
        ours = sorted(name for name in self.environment if name.startswith("KINTSUGI_"))
        if ours:
            raise ValueError(f"environment.{ours[0]}: what begins with KINTSUGI_ is set by the harness")
        return self

    def verbs(self) -> dict[str, Verb]:
        """The verbs that it has, by name."""
        given = {name: getattr(self, name) for name in VERBS}
        return {name: verb for name, verb in given.items() if verb is not None}


def load_adapters(paths: Iterable[Path]) -> dict[str, Adapter]:
    """The adapters of some files, by the names of their SUTs. Raises FileProblem."""
    found: dict[str, Adapter] = {}
    for path in paths:
        adapter = load_adapter(path)
        if adapter.name in found:
            raise FileProblem(f"{path}: name: another file given calls its SUT {adapter.name!r} too; rename one")
        found[adapter.name] = adapter
    return found


def load_adapter(path: Path) -> Adapter:
    """The adapter that a file describes. Raises FileProblem."""
    data = read_toml(path)
    try:
        file = AdapterFile.model_validate(data)
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, AdapterFile, data)}") from error
    problem = next(_problems(file), "")
    if problem:
        raise FileProblem(f"{path}: {problem}")
    whole = path.resolve()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return Adapter(
        name=file.name,
        about=file.about,
        side=SIDE,
        decisions=file.decisions,
        fails_over=file.fails_over,
        resumes=file.resumes,
        failed_over_by="supervisor" if file.resumes == "supervisor" else "engine",
        submit_first=file.submit_first,
        chains=f"{SIDE}:CHAINS",
        own_chain=True,
        keeps_files=file.state == "files",
        settings=file.settings,
        retires=file.retire is not None,
        environment={**kept, FILE: str(whole)},
        execs=True,
        check=partial(_programs, file, path),
    )


def _problems(file: AdapterFile) -> Iterator[str]:
    """What is wrong beyond the form of a file, each as one line."""
    if file.name in ADAPTERS:
        yield f"name: {file.name!r} is a SUT that Kintsugi brings; choose another"
    placed = [("worker", f"argv[{position}]", word) for position, word in enumerate(file.worker.argv)]
    placed += [(name, place, word) for name, verb in file.verbs().items() for place, word in verb.words()]
    for name, place, word in placed:
        for found in PLACEHOLDER.findall(word):
            if found not in PLACEHOLDERS[name]:
                known = [f"{{{other}}}" for other in PLACEHOLDERS[name]]
                yield f"{name}.{place}: nothing is called {{{found}}} here{nearest(f'{{{found}}}', known)}"


def _programs(file: AdapterFile, path: Path) -> str:
    """Where the worker's program was found. Raises Unavailable where one of the file's programs is missing."""
    verbs = {name: verb.argv for name, verb in file.verbs().items() if verb.argv}
    found = {name: _program(path, name, argv[0]) for name, argv in {**verbs, "worker": file.worker.argv}.items()}
    return found["worker"]


def _program(path: Path, name: str, word: str) -> str:
    here = path.resolve().parent
    word = word.replace("{here}", str(here))
    if "/" not in word:
        found = shutil.which(word)
        if found is None:
            raise Unavailable(f"{path}: {name}.argv[0]: no program {word!r} is on PATH; install it, or give its path")
        return found
    program = here / word
    if not program.is_file():
        raise Unavailable(f"{path}: {name}.argv[0]: there is no {program}; a relative path begins at the file's folder")
    if not os.access(program, os.X_OK):
        raise Unavailable(
            f"{path}: {name}.argv[0]: {program} may not be executed; chmod +x it, or name its interpreter"
        )
    return str(program)


def verbs_of(adapter: Adapter) -> frozenset[str]:
    """The verbs of a SUT that are more than the plainest default: those in its file, or every one of a built-in."""
    if FILE not in adapter.environment:
        return frozenset(VERBS)
    return frozenset(VERBS) & set(read_toml(Path(adapter.environment[FILE])))


def lacking(own: Mapping[str, Adapter]) -> dict[str, frozenset[Trait]]:
    """What each SUT, the user's `own` included, does not have that forms of faults may ask for."""
    return {name: adapter.lacks() for name, adapter in {**ADAPTERS, **own}.items()}


# --- in run.json --------------------------------------------------------------------------------------------


def to_records(own: Mapping[str, Adapter]) -> dict[str, dict[str, Any]]:
    """What a results folder keeps of the user's own adapters, so that the run can be gone on with and reported."""
    found: dict[str, dict[str, Any]] = {}
    for name, adapter in own.items():
        file = Path(adapter.environment[FILE])
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        found[name] = {"file": str(file), "sha256": digest, "about": adapter.about}
        found[name] |= {"decisions": adapter.decisions, "fails_over": adapter.fails_over}
    return found


def recorded(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Adapter]:
    """The adapters of a results folder, as far as planning and reporting need them; their files may be gone."""
    return {
        name: Adapter(
            name,
            record["about"],
            SIDE,
            record["decisions"],
            fails_over=record["fails_over"],
            own_chain=True,
            execs=True,
        )
        for name, record in records.items()
    }
