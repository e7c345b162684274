"""The scorecard: one self-contained HTML page from a run's results. Shows what was judged and measured; judges nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kintsugi.harness.records import TrialResult
from kintsugi.reports import breakages, cost, figures, matrix, overview, recovery
from kintsugi.reports.five import five
from kintsugi.reports.numbers import table
from kintsugi.reports.tables import classes_of, suts_of
from kintsugi.reports.targets import MARKS, TRIALS_MIN

__all__ = ["read_trials", "render", "write"]

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
    """The page, from ``summary.json``, the trials and the environment of a run. The same input gives the same bytes.

    `fault_texts` says for each fault class ``what`` is done, its ``witness`` and its ``layer``; `folder` is what the
    replay commands name. What the summary lacks is shown as not measured.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    results = sorted(results, key=lambda r: r.id)
    suts, texts = suts_of(summary), _texts(fault_texts, results)
    classes, faults = classes_of(suts), matrix.fault_names(suts, texts)
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["breakable"] = lambda text: escape(text).replace("+", Markup("+<wbr>")).replace("_", Markup("_<wbr>"))
    pages.filters["drawn"] = Markup  # The figures are made by us, and matplotlib escapes the text in them.
    return pages.get_template("scorecard.html.j2").render(
        suite=str(summary.get("suite") or "unnamed"),
        facts=overview.facts(summary),
        answers=overview.answers(suts, results),
        trust=overview.TRUST,
        glance=overview.glance(summary, suts, classes),
        marks=MARKS,
        trials_min=TRIALS_MIN,
        metrics=five(summary, suts, classes),
        rate_drawings=figures.rate_drawings(suts, classes),
        matrices=matrix.matrices(suts, classes, faults, results, {f: texts[f]["layer"] for f in faults if f in texts}),
        shades=matrix.SHADES,
        fault_texts={fault: texts[fault] for fault in faults if fault in texts},
        splits=matrix.split_grids(suts, classes),
        storms=matrix.storm_grid(suts, classes),
        time_drawings=figures.time_drawings(suts, classes),
        times=recovery.recovery_grid(suts, classes),
        after_drawings=figures.after_drawings(suts, results),
        cost_drawings=figures.cost_drawings(suts, classes),
        cost_legend=figures.charts.cost_legend(),
        costs=[cost.cost_grid(suts, classes, under_faults=under) for under in (False, True)],
        squares=cost.squares(summary),
        comparisons=[cost.comparison_grid(summary, under_faults=under) for under in (False, True)],
        sensitivity=cost.sensitivity_grid(suts, classes),
        repeats=cost.repeats_grid(suts, classes),
        broken=breakages.breakages(results, folder),
        causes_shown=CAUSES_SHOWN,
        trials_given=bool(results),
        apart=breakages.apart_grid(suts, results),
        apart_reasons=breakages.apart_reasons(results, folder),
        failed_baselines=breakages.failed_baselines(suts),
        assumptions=_flat(table(summary, "assumptions")),
        environment=_flat(environment),
        keys=[sut.key for sut in suts],
    )


def _texts(given: Mapping[str, Mapping[str, str]], results: Sequence[TrialResult]) -> dict[str, dict[str, str]]:
    """What is known of each fault class; the layer of one that no text is given for comes from its trials."""
    empty = {"what": "", "witness": "", "layer": ""}
    texts = {str(name): {**empty, **{key: str(value) for key, value in text.items()}} for name, text in given.items()}
    for result in results:
        if result.fault:
            texts.setdefault(result.fault, {**empty, "layer": result.layer})
    return texts


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

    Reads ``summary.json`` and ``trials.jsonl``, and ``environment.json`` where there is one; what is said of faults
    comes from `fault_texts`, or else from ``faults`` in the environment. FileNotFoundError or ValueError says which
    file is missing or can't be read.
    """
    summary = _read_object(folder / "summary.json")
    results = read_trials(folder / "trials.jsonl")
    environment = _read_object(folder / "environment.json") if (folder / "environment.json").exists() else {}
    known = table(environment, "faults") if fault_texts is None else fault_texts
    shown = {name: value for name, value in environment.items() if name != "faults"}
    place = folder.resolve()
    name = f"{place.parent.name}/{place.name}" if place.parent.name == "results" else place.name
    return _replace(folder / "scorecard.html", render(summary, results, shown, known, name))


def read_trials(path: Path) -> list[TrialResult]:
    """The trials of a run. A last line without its end was being written when the run stopped, and is no trial yet."""
    *lines, last = path.read_text(encoding="utf-8").split("\n")
    results = []
    for number, line in enumerate([*lines, last], start=1):
        try:
            if line.strip():
                results.append(TrialResult.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number > len(lines):
                break
            raise ValueError(f"{path}, line {number}: no trial's result ({type(error).__name__}: {error})") from error
    return results


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")  # noqa: TRY004 - a file's fault
    return data


def _replace(path: Path, text: str) -> Path:
    """Writes beside `path` and renames, so that a reader or a crash never sees half a page."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
