"""``kintsugi workflow check`` and ``kintsugi workflow new``: workflows of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kintsugi.golden_workflows.problems import FileProblem, read_toml
from kintsugi.golden_workflows.reach import unreached, unsaid_repeats, unused_tools
from kintsugi.golden_workflows.reference import check_truth, trajectory
from kintsugi.golden_workflows.sources import TAU2, source_of
from kintsugi.golden_workflows.spec import HERE, folder_of, known_tools, load_tools, load_workflow, workflow_files
from kintsugi.harness.commands.new_files import must_be_new, write_new

if TYPE_CHECKING:
    from kintsugi.golden_workflows.tau2 import Converted

__all__ = ["workflow_check_command", "workflow_new_command"]

SKELETONS = Path(__file__).parent / "skeletons"
PART = re.compile(r"[a-z][a-z0-9_]*")
"""What a class and a workflow may be called where the skeleton names a service after them."""
SHOWN_IDS = 12


# --- check --------------------------------------------------------------------------------------------------


def workflow_check_command(files: Sequence[str], domain: str | None) -> None:
    """Prove each file, or each of a folder, and note what of it is never reached.

    Raises FileProblem with the first thing that is wrong; what is never reached is none.
    """
    folders: dict[Path, None] = {}
    for name in files:
        if name.startswith(TAU2):
            _tell(source_of(name, domain).converted())
            continue
        source_of(None, domain)
        given = Path(name)
        paths = workflow_files(given) if given.is_dir() else [given]
        if not paths:
            raise FileProblem(f"{given}: holds no workflow; each is looked for as {given}/CLASS/NAME.toml")
        for path in paths:
            _prove(path)
            folders[folder_of(path)] = None
    for folder in folders:
        for note in _notes_on_tools(folder):
            click.echo(f"  note: {folder / 'tools'}: {note}")


def _prove(path: Path) -> None:
    workflow = load_workflow(path)
    check_truth(workflow)
    calls = trajectory(workflow)
    click.echo(
        f"{workflow.name}: plan and truth agree; {len(calls)} calls, {len(workflow.truth.effects)} effects, "
        f"{len(workflow.drifts)} drifts"
    )
    for note in unreached(workflow):
        click.echo(f"  note: {note}")


def _notes_on_tools(folder: Path) -> list[str]:
    """What is to be noted of a folder's own tools; nothing of the shipped ones."""
    tools = folder / "tools"
    if not tools.is_dir() or tools.resolve() == (HERE / "tools").resolve():
        return []
    own = load_tools(tools)
    called = {name for path in workflow_files(folder) for name in _called(path)}
    return [*unsaid_repeats(own), *unused_tools(own, called)]


def _called(path: Path) -> Iterator[str]:
    """The tools that a file's plan names; none where the file can't be read, which its own check tells."""
    try:
        plan = read_toml(path).get("plan", [])
    except FileProblem:
        return
    steps = plan if isinstance(plan, list) else []
    yield from (str(step.get("tool")) for step in steps if isinstance(step, dict))


def _tell(converted: Converted) -> None:
    """What became of a domain's tasks."""
    click.echo(f"{converted.domain}: {converted.tasks} tasks, {len(converted.workflows)} of them workflows")
    calls = {name: trajectory(workflow) for name, workflow in converted.workflows.items()}
    effects = sum(len(workflow.truth.effects) for workflow in converted.workflows.values())
    click.echo(f"  plan and truth agree in each; {sum(map(len, calls.values()))} calls, {effects} effects in all")
    for reason, ids in sorted(converted.left_out.items(), key=lambda item: -len(item[1])):
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        click.echo(f"  {len(ids)} left out: {reason} ({', '.join(ids[:SHOWN_IDS])}{more})")


# --- new ----------------------------------------------------------------------------------------------------


def workflow_new_command(name: str, into: Path) -> None:
    """Write a workflow file and a tool file. Raises FileProblem where one of them is there, or the name can't be."""
    parts = name.split("/")
    if len(parts) != 2 or not all(map(PART.fullmatch, parts)):
        raise FileProblem(f"{name}: give CLASS/NAME, each of lower-case letters, digits and _, beginning with a letter")
    workflow, tools = into / f"{name}.toml", into / "tools" / f"{parts[1]}.toml"
    if parts[0] == "tools":
        raise FileProblem(f"{name}: tools/ is where the tool files are; choose another class")
    must_be_new((workflow, tools), "choose another name, or another folder with --into")
    taken = next((tool for tool in known_tools(into / "tools") if tool.partition(".")[0] == parts[1]), None)
    if taken is not None:
        raise FileProblem(f"{name}: {taken.partition('.')[0]} is the name of a service already; choose another name")
    skeletons = {tools: "tools.toml", workflow: "workflow.toml"}
    texts = {path: (SKELETONS / skeleton).read_text(encoding="utf-8") for path, skeleton in skeletons.items()}
    write_new({path: text.replace("SERVICE", parts[1]) for path, text in texts.items()})
    click.echo(f"wrote {workflow} and {tools}")
    click.echo(f"next: kintsugi workflow check {workflow}, then kintsugi run --workflows {into}")
