"""The top: what was measured, one sentence for each SUT, and which targets were met at a glance."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from kintsugi.reports.comparisons import saving_mark
from kintsugi.reports.numbers import DASH, Rate, count, number, of, pick, rate, seconds, share, table
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut
from kintsugi.reports.targets import MARKS, OF_CLASS, TARGETS, Mark, mark, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TRUST", "answers", "facts", "glance", "subject", "when"]

TRUST = (
    "SUTs are honest but buggy. The harness does not defend its numbers against one that sets out to cheat; "
    "it does make cheating by accident impossible."
)

GLANCE = (
    ("Workflow completion", "workflow_completion_rate", "of runs without a fault"),
    ("Fault recovery", "fault_recovery_rate", "of witnessed faults"),
    ("No corruption", "corruption_rate", "wrong effect where the model does not err"),
    ("Tool selection", "tool_selection_accuracy_reached", "of calls the right tool"),
    ("Tool parameters", "tool_parameter_accuracy_reached", "of arguments correct"),
    ("Tool trajectory", "trajectory_match_rate", "of runs in the expected order"),
    ("No unsafe action", "unsafe_action_rate", "write without its approval"),
    ("Human repair", "unplanned_repair_rate", "of runs without a fault"),
)


def subject(suts: Sequence[Sut], classes: Sequence[str], faults: Sequence[str]) -> str:
    """What was measured, in a sentence."""
    what = f"{len(suts)} runtime{'' if len(suts) == 1 else 's'} × chain{'' if len(suts) == 1 else 's'}"
    where = f"workflows of {len(classes)} class{'' if len(classes) == 1 else 'es'} ({', '.join(classes)})"
    how = f"broken on purpose by {len(faults)} class{'' if len(faults) == 1 else 'es'} of fault"
    return f"{what}, at work on {where}, {how if faults else 'nothing broken'}." if suts else "Nothing was measured."


def answers(suts: Sequence[Sut], about: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(sut+chain, what it is, how it did) from the counts of the summary alone; neutral in wording."""
    return [(sut.key, str(about.get(sut.name) or ""), _answer(sut)) for sut in suts]


def _answer(sut: Sut) -> str:
    if not sut.data:
        return "Not measured: it could not be run here."
    cells = list(table(sut.data, "classes").values())
    struck, attended = _total(cells, "fault_recovery_rate"), _sum(cells, "fault_recovery_rate", "attended")
    clean = _total(cells, "workflow_completion_rate")
    parts = []
    if struck is None:
        parts.append("No fault was witnessed, so recovery was not measured.")
    else:
        halted = f", {attended:g} of them by stopping for a person where that is right" if attended else ""
        parts.append(f"Recovered from {of(struck.k, struck.n)} faults ({share(struck.k, struck.n)}){halted}.")
    parts.append(_wrong(table(sut.data, "verdicts"), _sum(cells, "corruption_rate_model_errs", "k")))
    if clean is not None:
        parts.append(f"Without faults, {of(clean.k, clean.n)} runs ended correctly.")
    return " ".join(filter(None, parts))


def _wrong(verdicts: Mapping[str, Any], erring: float) -> str:
    """What all its trials left in the ledger, how often the model erred there, and how many did not end."""
    counts = {name: number(value) or 0.0 for name, value in verdicts.items()}
    if "corrupted" not in counts:
        return ""
    others = [f"{counts[name]:g} {name}" for name in ("lost", "failed") if counts.get(name)]
    ended = f"; {' and '.join(others)}" if others else ""
    if not counts["corrupted"]:
        return f"No wrong effect in the ledger{ended}."
    wrong = of(counts["corrupted"], sum(counts.values()))
    blame = f", {erring:g} of them in runs where the model errs" if erring else ""
    return f"A wrong effect in the ledger in {wrong} trials{blame}{ended}."


def _total(cells: Sequence[object], metric: str) -> Rate | None:
    """The counts of all classes together: for a sentence, never for a target."""
    found = [r for r in (rate(pick(cell, metric)) for cell in cells) if r is not None]
    k, n = sum(r.k for r in found), sum(r.n for r in found)
    return Rate(k, n, k / n) if n else None


def _sum(cells: Sequence[object], *path: str) -> float:
    return sum(number(pick(cell, *path)) or 0.0 for cell in cells)


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what identifies the run."""
    trials = table(summary, "trials")
    return [
        ("Suite", str(summary.get("suite") or DASH)),
        ("Seed", str(summary.get("seed", DASH))),
        ("Started", when(summary.get("started_at"))),
        ("Took", seconds(summary.get("wall_seconds"))),
        ("Trials run", _run(trials)),
        ("Faults witnessed", count(trials.get("witnessed"))),
    ]


def _run(trials: Mapping[str, Any]) -> str:
    planned = number(trials.get("planned"))
    run = count(trials.get("run"))
    return run if planned is None else f"{run} of {count(planned)}"


def when(value: object) -> str:
    """A date and time for people; what is no ISO date is shown as it is."""
    if not value:
        return DASH
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()


def glance(summary: Mapping[str, Any], suts: Sequence[Sut], classes: Sequence[str]) -> Grid:
    """For each metric and SUT × chain: in how many classes the target was met. Never a global score."""
    rows = []
    for title, metric, what in GLANCE:
        target = TARGETS[metric]
        marks = [[mark(target_of(metric, name), sut.cell(name), metric) for name in classes] for sut in suts]
        own = [f"; {name} {target_of(metric, name).text}" for name in classes if (name, metric) in OF_CLASS]
        rows.append(
            Row(
                title,
                tuple(map(_classes_met, marks)),
                f"{'no' if target.how == 'zero' else target.text} {what}{''.join(own)}",
            )
        )
    costs = [[saving_mark(summary, sut, name) for name in classes] for sut in suts]
    cells = tuple(_classes_met([m for m in found if m]) if any(found) else Cell("reference") for found in costs)
    rows.append(Row("Cost per success", cells, "at least 30% lower than the naive chain"))
    return Grid(
        "Classes of workflow in which each target was met",
        "Metric and target",
        tuple(sut.key for sut in suts),
        (Group("", tuple(rows)),),
    )


def _classes_met(marks: Sequence[Mark]) -> Cell:
    counts = {kind: sum(m.kind == kind for m in marks) for kind in ("met", "missed", "open")}
    if not marks or counts["open"] == len(marks):
        measured = any(m.sign == MARKS["open"].sign for m in marks)
        return Cell("inconclusive" if measured else "not measured", (), MARKS["open" if measured else "none"])
    worst = MARKS["missed"] if counts["missed"] else MARKS["open"] if counts["open"] else MARKS["met"]
    told = []
    if counts["missed"]:
        told.append(f"{counts['missed']} missed")
    if counts["open"]:
        told.append(f"{counts['open']} inconclusive")
    return Cell(f"{counts['met']} of {len(marks)}", tuple(told), worst)
