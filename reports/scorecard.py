"""The scorecard: one self-contained HTML page from a run's results. Shows what was judged; judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.reports import breakages, charts, comparisons, cost, figures, matrix, overview, recovery, runtimes
from kintsugi.reports.files import read_object, read_trials, replace_file
from kintsugi.reports.five import five
from kintsugi.reports.numbers import table
from kintsugi.reports.tables import classes_of, suts_of
from kintsugi.reports.targets import MARKS, TRIALS_MIN

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from kintsugi.harness.records import TrialResult

__all__ = ["render", "write"]

TEMPLATES = Path(__file__).with_name("templates")
CAUSES_SHOWN = 6
"""Causes of breakage listed at once for each SUT; the others are folded away on screen, and printed."""


def render(
    summary: Mapping[str, Any],
    results: Sequence[TrialResult],
    environment: Mapping[str, Any],
    fault_texts: Mapping[str, Mapping[str, str]],
    folder: str = "RESULTS",
) -> str:
    """The page, from ``summary.json``, the trials and the environment of a run. Same input, same bytes.

    `fault_texts` says for each fault class ``what`` is done, its ``witness`` and its ``layer``; `folder` is
    what the replay commands name. What the summary lacks is shown as not measured.
    """
    results = sorted(results, key=lambda r: r.id)
    suts, texts = suts_of(summary), _texts(fault_texts, results)
    classes, faults = classes_of(suts), matrix.fault_names(suts, texts)
    return (
        _pages()
        .get_template("scorecard.html.j2")
        .render(
            suite=str(summary.get("suite") or "unnamed"),
            facts=overview.facts(summary),
            subject=overview.subject(suts, classes, faults),
            answers=overview.answers(suts, {sut.name: runtimes.about(environment, sut.name) for sut in suts}),
            gaps=runtimes.gaps(summary),
            runtimes=runtimes.runtimes(environment),
            trust=overview.TRUST,
            glance=overview.glance(summary, suts, classes),
            marks=MARKS,
            trials_min=TRIALS_MIN,
            metrics=five(summary, suts, classes),
            rate_drawings=figures.rate_drawings(suts, classes),
            matrices=matrix.matrices(
                suts, classes, faults, results, {f: texts[f]["layer"] for f in faults if f in texts}
            ),
            shades=matrix.SHADES,
            fault_texts={fault: texts[fault] for fault in faults if fault in texts},
            splits=matrix.split_grids(suts, classes),
            points=matrix.points_grid(suts),
            left_out=matrix.left_out(suts),
            storms=matrix.storm_grid(suts, classes),
            time_drawings=figures.time_drawings(suts, classes),
            times=recovery.recovery_grid(suts, classes),
            after_drawings=figures.after_drawings(suts, results),
            cost_drawings=figures.cost_drawings(suts, classes),
            cost_legend=charts.cost_legend(),
            costs=[cost.cost_grid(suts, classes, under_faults=under) for under in (False, True)],
            squares=comparisons.squares(summary),
            comparisons=[comparisons.comparison_grid(summary, under_faults=under) for under in (False, True)],
            differences=[comparisons.split_grid(summary, under_faults=under) for under in (False, True)],
            sensitivity=cost.sensitivity_grid(suts, classes),
            repeats=cost.repeats_grid(suts, classes),
            broken=breakages.breakages(results, folder),
            causes_shown=CAUSES_SHOWN,
            trials_given=bool(results),
            apart=breakages.apart_grid(suts),
            apart_reasons=breakages.apart_reasons(results, folder),
            failed_baselines=breakages.failed_baselines(suts),
            assumptions=_flat(table(summary, "assumptions")),
            workflows=_workflows(environment, results),
            environment=_flat({k: v for k, v in environment.items() if k not in {"suts", "workflows"}}),
            keys=[sut.key for sut in suts],
        )
    )


@cache
def _pages() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    def breakable(text: object) -> Markup:
        """Names may be broken after their signs."""
        return escape(text).replace("+", Markup("+<wbr>")).replace("_", Markup("_<wbr>"))

    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["breakable"] = breakable
    # The figures are drawn by us, and matplotlib escapes the text in them.
    pages.filters["drawn"] = Markup
    return pages


def _texts(given: Mapping[str, Mapping[str, str]], results: Sequence[TrialResult]) -> dict[str, dict[str, str]]:
    """What is known of each fault class; the layer of one that no text is given for comes from its trials."""
    empty = {"what": "", "witness": "", "layer": ""}
    texts = {str(name): {**empty, **{key: str(value) for key, value in text.items()}} for name, text in given.items()}
    for result in results:
        if result.fault:
            texts.setdefault(result.fault, {**empty, "layer": result.layer})
    return texts


def _workflows(environment: Mapping[str, Any], results: Sequence[TrialResult]) -> list[tuple[str, str]]:
    """(name, title) of every workflow that was run."""
    titles = table(environment, "workflows")
    return [(name, str(titles.get(name, ""))) for name in sorted({r.workflow for r in results})]


def _flat(data: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted name, text) pairs."""
    found: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{above}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found.append((f"{above}{name}", text))
    return found


def write(folder: Path, fault_texts: Mapping[str, Mapping[str, str]] | None = None) -> Path:
    """Writes ``scorecard.html`` into a results folder, whole or not at all, and returns its path.

    Reads ``summary.json`` and ``trials.jsonl``, and ``environment.json`` where there is one; what is said of
    faults comes from `fault_texts`, or else from ``faults`` in the environment. FileNotFoundError or
    ValueError says which file is missing or can't be read.
    """
    summary = read_object(folder / "summary.json")
    results = read_trials(folder / "trials.jsonl")
    environment = read_object(folder / "environment.json") if (folder / "environment.json").exists() else {}
    known = table(environment, "faults") if fault_texts is None else fault_texts
    shown = {name: value for name, value in environment.items() if name != "faults"}
    place = folder.resolve()
    name = f"{place.parent.name}/{place.name}" if place.parent.name == "results" else place.name
    return replace_file(folder / "scorecard.html", render(summary, results, shown, known, name))
