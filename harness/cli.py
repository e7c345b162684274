"""The command ``kintsugi``. Each command imports what it needs when it is called, so that help is at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from kintsugi import __version__

__all__ = ["main"]

EXIT_USAGE = 2
EXIT_HARNESS = 4
EXIT_INTERRUPTED = 130


class Problem(click.ClickException):
    """Something is wrong with what was asked; one line, exit 2."""

    exit_code = EXIT_USAGE

    def show(self, file: Any = None) -> None:
        """Print the line as it is."""
        click.echo(f"kintsugi: {self.format_message()}", file=file or sys.stderr)


def _fail(error: BaseException) -> NoReturn:
    """Turn a known error into its one line."""
    raise Problem(" ".join(str(error).split())) from error


class _Commands(click.Group):
    """Ends with the shell's exit code for Ctrl-C wherever it comes, even while a command is being loaded."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("kintsugi: interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kintsugi")
def main() -> None:
    """Measure whether AI workflow runtimes recover: break golden workflows for real, and score how they mend."""


_MANY = {"multiple": True, "metavar": "NAME"}
_adapter = click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A SUT of your own, by its adapter file (repeatable).",
)


_WORKFLOWS = (
    click.option(
        "--workflows",
        metavar="DIR",
        help="Workflows of your own, DIR/CLASS/NAME.toml, or tau2:CHECKOUT. [default: the shipped ones]",
    ),
    click.option("--domain", metavar="NAME", help="Which domain of tau2:CHECKOUT, for example retail."),
)


def _workflows(command: Any) -> Any:
    """The options that say where workflows come from."""
    for option in reversed(_WORKFLOWS):
        command = option(command)
    return command


_MODEL = (
    click.option("--model", metavar="PROVIDER/NAME", help="A real model, as litellm names it. [default: the script]"),
    click.option("--model-base", metavar="URL", help="An OpenAI-compatible server of your own."),
    click.option("--model-timeout", type=click.FloatRange(1), metavar="SECONDS", help="How long SUTs wait for it."),
    click.option("--record", type=click.Path(path_type=Path), metavar="DIR", help="Keep its answers in a cassette."),
    click.option("--replay", type=click.Path(path_type=Path), metavar="DIR", help="Have a cassette answer, offline."),
    click.option("--spend-limit", metavar="USD", help="Make no call that might cost more in all; none for no limit."),
    click.option("--yes", is_flag=True, help="Agree to what it may cost."),
    click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="A price table of your own."),
)


def _model(command: Any) -> Any:
    """The options of a real model, and of prices."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


@main.command()
@click.option("--suite", default="standard", show_default=True, help="A suite's name, or the path of a suite file.")
@click.option("--sut", help="Only this SUT (repeatable).", **_MANY)  # type: ignore[arg-type]
@click.option("--chain", help="Only this chain (repeatable).", **_MANY)  # type: ignore[arg-type]
@click.option("--workflow", help="Only these workflows (repeatable, may hold *).", **_MANY)  # type: ignore[arg-type]
@click.option("--fault", help="Only this fault class (repeatable).", **_MANY)  # type: ignore[arg-type]
@_adapter
@_workflows
@click.option("--seed", default=7, show_default=True, help="Draws the plan, the wording and the model's mistakes.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Trials at once. [default: 10 for each core]")
@click.option("--out", type=click.Path(path_type=Path), help="Results folder. [default: results/SUITE-sSEED-TIME]")
@click.option("--resume", is_flag=True, help="Go on with the run that --out holds.")
@_model
def run(**asked: Any) -> None:
    """Run a suite and write its scorecard.

    With --adapter FILE your own SUT is run beside naive+naive, or beside those that --sut and --chain name.
    """
    from kintsugi.harness.commands.run import run_command

    sys.exit(_known_errors(run_command, **asked))


@main.command(name="list")
@click.argument("what", required=False, type=click.Choice(["suites", "suts", "chains", "workflows", "faults"]))
@_workflows
def list_(what: str | None, workflows: str | None, domain: str | None) -> None:
    """List suites, SUTs, chains, workflows and fault classes."""
    from kintsugi.harness.commands.show import list_command

    _known_errors(list_command, what, workflows, domain)


@main.command()
@click.option("--suite", default="standard", show_default=True, help="A suite's name, or the path of a suite file.")
@click.option("--seed", default=7, show_default=True)
@click.option("--claim", type=float, help="Say how many trials it takes to claim this rate, for example 0.99.")
@click.option("--trials", is_flag=True, help="Print the id of every trial.")
@_adapter
@_workflows
def plan(**asked: Any) -> None:
    """Show what a suite would run, or how many trials a claim needs."""
    from kintsugi.harness.commands.show import plan_command

    _known_errors(plan_command, **asked)


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Keep the new verdicts, and make the summary and the scorecard again.")
def check(results: Path, write: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Judge the stored histories of RESULTS again; exit 1 where a verdict differs from the one stored."""
    from kintsugi.harness.commands.judge import check_command

    sys.exit(_known_errors(check_command, results, write))


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
def report(results: Path) -> None:
    """Make the summary and the scorecard of RESULTS again from its stored verdicts."""
    from kintsugi.harness.commands.judge import report_command

    _known_errors(report_command, results)


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--thresholds", type=click.Path(path_type=Path), help="A thresholds file. [default: the targets]")
@click.option("--baseline", type=click.Path(path_type=Path), help="Results to compare with.")
def gate(results: Path, thresholds: Path | None, baseline: Path | None) -> None:
    """Hold RESULTS against thresholds: exit 0 pass, 1 fail, 3 inconclusive."""
    from kintsugi.harness.commands.judge import gate_command

    sys.exit(_known_errors(gate_command, results, thresholds, baseline))


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--trial", "trial_id", help="Which trial of a results folder: its id, or a part that only it has.")
@click.option("--times", type=click.IntRange(1, 1000), default=1, show_default=True, help="How often to run it.")
@click.option("--stored", is_flag=True, help="Tell the story of the stored history; run nothing.")
@_adapter
@_workflows
@_model
def replay(**asked: Any) -> None:
    """Run one trial again, tell its story, and say which rule is broken: exit 1 if one is.

    SOURCE is a results folder, a trial in a JSON file, or what `kintsugi explore` found.
    """
    from kintsugi.harness.commands.replay import replay_command

    sys.exit(_known_errors(replay_command, **asked))


@main.command()
@click.option("--sut", help="The SUT to break; with one --adapter FILE, that one.", metavar="NAME")
@click.option("--chain", help="Its chain. [default: optimized, or its own]", metavar="NAME")
@click.option("--workflow", help="Only these workflows (repeatable, may hold *).", **_MANY)  # type: ignore[arg-type]
@_adapter
@_workflows
@click.option("--trials", type=click.IntRange(1), help="Give up after so many. [default: 300, where no time is given]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Begin no more trials after this time.")
@click.option("--faults-max", type=click.IntRange(1, 10), default=3, show_default=True, help="Faults in a schedule.")
@click.option("--seed", default=7, show_default=True, help="Draws the schedules, and the wording of the model.")
@click.option("--confirm", type=click.IntRange(1, 1000), default=5, show_default=True, help="Runs of what was found.")
@click.option(
    "--looking-for",
    type=click.Choice(["corrupted", "lost", "failed", "needless_halt", "asked_again", "storm"]),
    multiple=True,
    help="What counts as found (repeatable). [default: all but needless_halt]",
)
@click.option(
    "--deadline", type=click.FloatRange(1), default=90, show_default=True, help="Seconds until a run is lost."
)
@click.option("--jobs", type=click.IntRange(1, 256), help="Trials at once. [default: 10 for each core]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file of what is found. [default: found-SUT-CHAIN-sSEED-TIME.json]",
)
def explore(**asked: Any) -> None:
    """Search for a schedule of faults that breaks a SUT, shrink it, and keep it: exit 1 if one is found, else 0.

    `kintsugi replay FILE` runs what was found again. Nothing of a search counts in any rate.
    """
    from kintsugi.harness.commands.explore import explore_command

    sys.exit(_known_errors(explore_command, **asked))


@main.command()
def doctor() -> None:
    """Check that this machine can run Kintsugi, and say which optional parts are there."""
    from kintsugi.harness.commands.doctor import doctor_command

    sys.exit(_known_errors(doctor_command))


@main.command()
@click.option("--seed", default=7, show_default=True, help="Draws the wording of the model.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Trials at once. [default: 10 for each core]")
@click.option("--search", is_flag=True, help="Look for each bug from scratch, as `kintsugi explore` does.")
def selftest(seed: int, jobs: int | None, search: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Prove that planted bugs are caught, each by its fault, and that a runtime without them passes: exit 0, else 1.

    With --search nothing is said of which fault shows a bug: each has to be found, and shrunk to at most two faults.
    """
    if search:
        from kintsugi.harness.commands.selftest_search import selftest_search_command

        sys.exit(_known_errors(selftest_search_command, seed, jobs))
    from kintsugi.harness.commands.selftest import selftest_command

    sys.exit(_known_errors(selftest_command, seed, jobs))


@main.group()
def workflow() -> None:
    """Work on workflow files."""


@workflow.command(name="check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--domain", metavar="NAME", help="Which domain of tau2:CHECKOUT, for example retail.")
def workflow_check(files: tuple[str, ...], domain: str | None) -> None:
    """Prove that the plan and the truth of workflow files agree, and note what is never reached.

    FILE may be a folder of workflows, or tau2:CHECKOUT, whose tasks are then counted.
    """
    from kintsugi.harness.commands.workflow import workflow_check_command

    _known_errors(workflow_check_command, files, domain)


@workflow.command(name="new")
@click.argument("name", metavar="CLASS/NAME")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default="workflows",
    show_default=True,
    help="Your folder of workflows.",
)
def workflow_new(name: str, into: Path) -> None:
    """Write a workflow and its tools; they pass `workflow check` and run as they are."""
    from kintsugi.harness.commands.workflow import workflow_new_command

    _known_errors(workflow_new_command, name, into)


@main.group()
def adapter() -> None:
    """Bring a SUT of your own, in any language."""


@adapter.command(name="check")
@click.argument("adapter", metavar="FILE")
@click.option("--seconds", type=click.FloatRange(1), default=60, show_default=True, help="How long a trial may take.")
def adapter_check(**asked: Any) -> None:
    """Check that the SUT of an adapter FILE (or of a name) keeps to the protocol: exit 0 if it does, else 1."""
    from kintsugi.harness.commands.adapter import adapter_check_command

    sys.exit(_known_errors(adapter_check_command, **asked))


@adapter.command(name="new")
@click.argument("name")
@click.option("--language", type=click.Choice(["python", "node"]), default="python", show_default=True)
def adapter_new(**asked: Any) -> None:
    """Write NAME.toml and a skeleton agent into this folder; they pass `adapter check` as they are."""
    from kintsugi.harness.commands.adapter import adapter_new_command

    _known_errors(adapter_new_command, **asked)


@main.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="Whose disk is measured.",
)
def bench(folder: Path) -> None:
    """Measure what trials and durable steps cost on this machine."""
    from kintsugi.harness.commands.bench import bench_command

    sys.exit(_known_errors(bench_command, folder))


def _known_errors(command: Any, *arguments: Any, **named: Any) -> Any:
    """Call a command; an error that a user can act on becomes one line, exit 2, and a broken harness exit 4."""
    from kintsugi.golden_workflows.spec import FileProblem
    from kintsugi.harness.history import Unwritable
    from kintsugi.harness.processes import LauncherGone
    from kintsugi.harness.results import FolderProblem

    try:
        return command(*arguments, **named)
    except LauncherGone as error:
        click.echo(f"kintsugi: {error}", err=True)
        return EXIT_HARNESS
    except (FileProblem, FolderProblem, Unwritable) as error:
        _fail(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
