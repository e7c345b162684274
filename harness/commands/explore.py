"""``kintsugi explore``: look for a schedule that breaks a SUT, shrink it, and keep it."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import click

from kintsugi import __version__
from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.sources import Source, source_of
from kintsugi.golden_workflows.spec import FileProblem, Workflow, nearest
from kintsugi.harness.adapters import ADAPTERS, Adapter, Unavailable
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.adapters.command import load_adapters, to_records
from kintsugi.harness.adapters.planted import PLANTED
from kintsugi.harness.commands.finish import code_digest
from kintsugi.harness.commands.interrupts import EXIT_INTERRUPTED, to_its_end
from kintsugi.harness.commands.run import (
    DESCRIPTORS_BASE,
    DESCRIPTORS_PER_TRIAL,
    EXIT_HARNESS,
    JOBS_PER_CORE,
    allow_descriptors,
)
from kintsugi.harness.explore import Frame, holds_a_race
from kintsugi.harness.found import STORM_CALLS_MAX, file_of
from kintsugi.harness.means import TAKES, missing_means
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results, write_atomically
from kintsugi.harness.rules import broken
from kintsugi.harness.search import DEFAULT, LOOKING_FOR, Budget, Found, Search, Shown
from kintsugi.harness.story import tell
from kintsugi.scenarios.suite import FaultShare, Suite

__all__ = ["RACE", "chains_of", "explore_command", "missing_here"]

TRIALS = 300
"""How many schedules are tried where neither a number nor a time is given."""
RACE = "the kill after an answer is a race with what the worker does then"
"""Why not every run of a schedule needs to end alike."""
TOLD_EVERY = 25
"""After how many schedules a line says how far it is."""


def explore_command(  # noqa: PLR0913 - the options of the command line, by keyword
    *,
    sut: str | None,
    chain: str | None,
    workflow: Sequence[str],
    adapter: Sequence[Path],
    trials: int | None,
    seconds: float | None,
    faults_max: int,
    seed: int,
    confirm: int,
    looking_for: Sequence[str],
    deadline: float,
    jobs: int | None,
    out: Path | None,
    workflows: str | None = None,
    domain: str | None = None,
) -> int:
    """Search, and print what was found: 1 if something was, 0 if nothing was."""
    own = load_adapters(adapter)
    the_sut, its_chain = _sut(sut, chain, own)
    source = source_of(workflows, domain)
    chosen = _workflows(workflow, source)
    file = out or Path(f"found-{the_sut.name}-{its_chain}-s{seed}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    _must_be_writable(file)
    at_once = jobs or JOBS_PER_CORE * (os.cpu_count() or 1)
    allow_descriptors(DESCRIPTORS_BASE + DESCRIPTORS_PER_TRIAL * at_once, at_once)
    missing = missing_here()
    for line in dict.fromkeys(missing.values()):
        click.echo(f"not tried, for want of something here: {line}", err=True)
    frame = Frame(the_sut.name, its_chain, chosen, seed, TAKES, faults_max, the_sut.lacks(), missing)
    budget = Budget(TRIALS if trials is None and seconds is None else trials, seconds)
    told = _Told(file, to_records(own), source)
    with tempfile.TemporaryDirectory(prefix="kintsugi-explore-") as folder:
        results = Results(Path(folder) / "results")
        results.begin({"explore": seed}, resume=False)
        search = Search(
            frame,
            the_sut,
            results,
            budget,
            at_once,
            deadline,
            STORM_CALLS_MAX,
            [LOOKING_FOR[name] for name in looking_for] or DEFAULT,
            confirm,
            said=told.said,
            told=told.line,
        )
        search.kept = partial(told.keep, search)
        try:
            whole = to_its_end(search.go())
        except Unavailable as problem:
            raise FileProblem(str(problem)) from problem
        finally:
            results.end()
    return _concluded(search, told, whole=whole)


def _sut(name: str | None, chain: str | None, own: Mapping[str, Adapter]) -> tuple[Adapter, str]:
    """The SUT that was asked for, and the chain to run on it. Raises FileProblem."""
    known = {**ADAPTERS, **PLANTED, **own}
    if name is None and len(own) != 1:
        raise FileProblem("say which SUT to search with --sut; see `kintsugi list suts`")
    name = name or next(iter(own))
    if name not in known:
        raise FileProblem(f"no SUT is called {name!r}{nearest(name, known)}")
    chains = chains_of(known[name])
    chain = chain or ("optimized" if "optimized" in chains else chains[0])
    if chain not in chains:
        raise FileProblem(f"{name} runs no chain {chain!r}{nearest(chain, chains)}")
    return known[name], chain


def chains_of(adapter: Adapter) -> list[str]:
    """The chains that a SUT runs."""
    if adapter.own_chain:
        return [OWN]
    if adapter.name not in PLANTED:
        return list(CHAINS)
    from kintsugi.harness.launcher import load

    return list(load(adapter.side, adapter.chains)[1])


def _workflows(patterns: Sequence[str], source: Source) -> dict[str, Workflow]:
    workflows = source.load()
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in workflows):
            raise FileProblem(f"no workflow is called {pattern!r}{nearest(pattern, workflows)}")
    return {n: found for n, found in workflows.items() if not patterns or any(fnmatch(n, p) for p in patterns)}


def _must_be_writable(file: Path) -> None:
    """Before a long search, rather than after it."""
    if file.is_dir():
        raise FileProblem(f"{file}: is a folder; give --out the path of a file")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise FileProblem(f"{file}: can't be written: {file.parent} is no folder that may be written to")


def missing_here() -> dict[str, str]:
    """What some fault needs and this machine does not have, each with the line that says what to do about it."""
    every = [FaultShare(fault=name) for name in FAULTS]
    return missing_means(Suite(name="explore", version=1, about="Everything.", suts=["any+any"], faults=every))


class _Told:
    """What is said on the way, on standard error, and the file in which a find is kept."""

    def __init__(self, file: Path, adapters: Mapping[str, object], source: Source) -> None:
        self.file, self._adapters, self._source = file, adapters, source.record()
        self.written = False
        self.counts: Counter[str] = Counter()
        self.broke = ""
        """The last trial that broke the harness, and how."""

    def line(self, line: str) -> None:
        """Say a line at once."""
        click.echo(line, err=True)

    def said(self, result: TrialResult) -> None:
        """Count the result of a schedule."""
        self.counts[result.verdict or result.injection] += 1
        if result.verdict == "harness_error":
            self.broke = f"{result.id}: {result.reason.strip().splitlines()[-1]}"
        if self.counts.total() % TOLD_EVERY == 0:
            self.line(f"{self.counts.total()} schedules tried: {self.of()}")

    def of(self) -> str:
        """How many of what."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))

    def keep(self, search: Search, found: Found) -> None:
        """Write the file of a find, over that of what was known before. Raises Unwritable."""
        versions = {"kintsugi": __version__, "code": code_digest(), "python": platform.python_version()}
        kept = file_of(search, found, self._adapters, {**versions, "sut": search.versions}, self._source)
        write_atomically(self.file, json.dumps(kept, indent=1) + "\n")
        self.written = True


def _concluded(search: Search, told: _Told, *, whole: bool) -> int:
    """Say what came of the search; the exit code."""
    for workflow, result in search.unclean.items():
        told.line(
            f"left out: {workflow}, whose clean run ends {result.verdict or 'without a verdict'}: {result.reason}"
        )
    for fluke in search.flukes:
        once, again = fluke.as_found, fluke.confirmed
        told.line(f"failed once, then {again.k} of {again.n} times: {_schedule(once)}: {once.result.reason}")
    tried = f"{search.tried} distinct schedules tried, seed {search.frame.seed}: {told.of() or 'none to its end'}"
    if not whole:
        told.line(f"interrupted: {tried}; " + (f"what failed is in {told.file}" if told.written else "nothing found"))
        return EXIT_INTERRUPTED
    if search.found is None:
        return _nothing(search, told, tried)
    _print(search.found, search, told.file)
    return 1


def _nothing(search: Search, told: _Told, tried: str) -> int:
    if len(search.unclean) == len(search.frame.workflows):
        raise FileProblem("no clean run ended correctly, so that nothing can be told of faults")
    if told.written:
        # What failed once and never again is no find.
        told.file.unlink(missing_ok=True)
    click.echo(f"nothing found: {tried}")
    if search.exhausted:
        click.echo(f"that is all there is to try with up to {search.frame.faults_max} faults")
    errors = told.counts["harness_error"]
    if errors:
        told.line(f"{errors} of them broke the harness and tell nothing: {told.broke}")
    return EXIT_HARNESS if errors else 0


def _print(found: Found, search: Search, file: Path) -> None:
    shrunk = found.shrunk
    race = f" ({RACE})" if holds_a_race(shrunk.trial) else ""
    for name, text in (
        ("found", f"{', '.join(shrunk.shows)}: {shrunk.result.reason}"),
        ("trials", f"{found.number} to find it, seed {search.frame.seed}"),
        ("as found", _schedule(found.as_found)),
        ("shrunk to", _schedule(shrunk)),
        ("again", f"{found.confirmed.k} of {found.confirmed.n} runs fail{race}"),
        *(("broken", rule) for rule in broken(shrunk.result)),
        ("file", f"{file}; run it with: kintsugi replay {file}"),
    ):
        click.echo(f"{name:<10}{text}")
    click.echo()
    click.echo(tell(search.frame.workflows[shrunk.trial.workflow], shrunk.trial, shrunk.events, shrunk.result))


def _schedule(shown: Shown) -> str:
    return f"{shown.trial.workflow}: {shown.trial.what or 'no fault'}"
