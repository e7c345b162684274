"""``kintsugi adapter check`` and ``kintsugi adapter new``: a SUT of one's own, in any language."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import click

from kintsugi.golden_workflows.spec import FileProblem, Workflow, load_workflows, nearest
from kintsugi.harness import conformance
from kintsugi.harness.adapters import ADAPTERS, Adapter, Unavailable
from kintsugi.harness.adapters.command import NAME, load_adapter, verbs_of
from kintsugi.harness.commands.new_files import must_be_new, write_new
from kintsugi.harness.conformance import Called, Finding
from kintsugi.harness.crew import Crew
from kintsugi.harness.history import Event
from kintsugi.harness.measures import delivered
from kintsugi.harness.processes import Launcher
from kintsugi.harness.records import TrialResult
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Trial

__all__ = ["LANGUAGES", "adapter_check_command", "adapter_new_command"]

LANGUAGES: Mapping[str, tuple[str, str]] = {"python": ("python3", "agent.py"), "node": ("node", "agent.mjs")}
"""For each language of a skeleton: the program that runs it, and the skeleton."""
SKELETONS = Path(__file__).parent.parent / "adapters" / "skeletons"
STORM_CALLS_MAX = 5.0
"""Storms are none of the trials here."""


# --- check --------------------------------------------------------------------------------------------------


def adapter_check_command(adapter: str, seconds: float) -> int:
    """Check a SUT, by its adapter file or its name, and print a line for each check; 0 if it conforms, else 1."""
    checked = _adapter(adapter)
    workflow = load_workflows()[conformance.WORKFLOW]
    click.echo(f"{checked.name}: {checked.about}")
    findings = asyncio.run(_check(checked, workflow, seconds))
    failed = sum(finding.outcome == "FAIL" for finding in findings)
    counted = sum(finding.outcome in {"ok", "FAIL"} for finding in findings)
    if failed:
        click.echo(f"{checked.name} does not conform: {failed} of {counted} checks failed")
    else:
        click.echo(f"{checked.name} conforms: {counted} checks")
    return 1 if failed else 0


def _adapter(text: str) -> Adapter:
    if text in ADAPTERS:
        return ADAPTERS[text]
    if not text.endswith(".toml") and not Path(text).exists():
        raise FileProblem(f"{text}: there is no such file, and no SUT of that name{nearest(text, ADAPTERS)}")
    return load_adapter(Path(text))


async def _check(adapter: Adapter, workflow: Workflow, seconds: float) -> list[Finding]:
    findings = []
    with tempfile.TemporaryDirectory(prefix="kintsugi-adapter-") as folder:
        async for finding in _findings(adapter, workflow, Path(folder), seconds):
            findings.append(finding)
            click.echo(f"{finding.outcome:<5} {finding.name:<22} {finding.seen}")
            if finding.outcome == "FAIL" and finding.advice:
                click.echo(f"      {finding.advice}")
            for line in finding.output:
                click.echo(f"      | {line}")
    return findings


async def _findings(adapter: Adapter, workflow: Workflow, folder: Path, seconds: float) -> AsyncIterator[Finding]:
    """Every finding as it is made. Raises FileProblem where the SUT can't be started here at all."""
    crew = Crew(adapter, folder / "server")
    clients = crew.clients = _NotedLauncher(adapter.side, adapter.chains, crew.environment)
    stage = _Stage(crew, workflow, folder, seconds)
    trials = conformance.trials(adapter, workflow)
    try:
        try:
            await crew.start()
        except Unavailable as problem:
            raise FileProblem(str(problem)) from problem
        events, result = await stage.run("clean", trials.pop("clean"), None)
        calls = [call for call in clients.calls if call.verb in verbs_of(adapter)]
        clean = list(conformance.clean_findings(adapter, workflow, events, result, calls))
        for finding in clean:
            yield finding
        if any(finding.outcome == "FAIL" for finding in clean):
            for name in trials:
                yield Finding(name, "skip", "not tried before a run without a fault passes")
        else:
            baseline = delivered(events)
            others = [stage.run(name, trial, baseline) for name, trial in trials.items()]
            for name, (events, result) in zip(trials, await asyncio.gather(*others), strict=True):
                found = (
                    conformance.two_findings(events, result)
                    if name == "two"
                    else conformance.kill_findings(name, events, result)
                )
                for finding in found:
                    yield finding
        yield conformance.left_finding(stage.left)
    finally:
        await crew.close()


class _Stage:
    """Runs the trials of a check, and knows what was left of them."""

    def __init__(self, crew: Crew, workflow: Workflow, folder: Path, seconds: float) -> None:
        self._crew, self._workflow, self._folder, self._seconds = crew, workflow, folder, seconds
        self.left: list[int] = []

    async def run(
        self, name: str, trial: Trial, clean: Mapping[Any, Any] | None
    ) -> tuple[Sequence[Event], TrialResult]:
        """A trial's history, and what is said of it."""
        folder = self._folder / name.replace(" ", "-")
        history = folder.with_suffix(".jsonl")
        events = await run_trial(trial, self._workflow, self._crew, folder, history, self._seconds)
        self.left += _end_processes_of(folder)
        return events, judge_trial(self._workflow, trial, events, clean, STORM_CALLS_MAX)


class _NotedLauncher(Launcher):
    """A launcher for client verbs that keeps note of how each call went."""

    def __init__(self, side: str, chains: str, environment: Mapping[str, str]) -> None:
        super().__init__(side, chains, environment)
        self.calls: list[Called] = []

    async def call(self, verb: str, *arguments: Any) -> Any:
        """Call a verb, as any launcher does."""
        started = monotonic()
        problem = ""
        try:
            answer = await super().call(verb, *arguments)
            problem = answer.get("problem", "") if verb == "status" else ""
        except RuntimeError as error:
            problem = str(error).removeprefix("RuntimeError: ")
            raise
        finally:
            self.calls.append(Called(verb, monotonic() - started, problem))
        return answer


def _end_processes_of(folder: Path) -> list[int]:
    """The processes that a trial's worker has left, known by their state directory; they are killed."""
    mark = f"KINTSUGI_STATE_DIR={folder}{os.sep}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in process.joinpath("environ").read_bytes():
                found.append(int(process.name))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(found)


# --- new ----------------------------------------------------------------------------------------------------


def adapter_new_command(name: str, language: str) -> None:
    """Write an adapter file and an agent into this folder. Raises FileProblem where one of them is there."""
    if not NAME.fullmatch(name):
        raise FileProblem(f"{name}: a SUT's name is lower-case letters, digits and _, and begins with a letter")
    if name in ADAPTERS:
        raise FileProblem(f"{name}: is a SUT that Kintsugi brings; choose another name")
    program, skeleton = LANGUAGES[language]
    agent = Path(name).with_suffix(Path(skeleton).suffix)
    adapter = Path(f"{name}.toml")
    must_be_new((adapter, agent), "choose another name, or another folder")
    text = (SKELETONS / "adapter.toml").read_text(encoding="utf-8")
    about = f"An agent in {language}, a skeleton yet."
    for word, value in (("NAME", name), ("ABOUT", about), ("PROGRAM", program), ("AGENT", agent.name)):
        text = text.replace(word, value)
    write_new({agent: (SKELETONS / skeleton).read_text(encoding="utf-8"), adapter: text})
    click.echo(f"wrote {adapter} and {agent}")
    click.echo(f"next: kintsugi adapter check {adapter}, then kintsugi run --adapter {adapter}")
