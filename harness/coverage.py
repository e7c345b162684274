"""How much of what can be struck was struck, by fault class and phase, and what was left out, by name. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kintsugi.harness.rates import witnessed
from kintsugi.scenarios.trial import Trial

if TYPE_CHECKING:
    from kintsugi.harness.records import TrialResult
    from kintsugi.scenarios.planner import Target

__all__ = ["coverage_rows", "lines"]


def coverage_rows(results: Iterable[TrialResult], targets: Iterable[Target]) -> list[dict[str, Any]]:
    """Rows of ``{"fault", "phase", "whole", "covered", "total", "left_out"}`` for one SUT and chain.

    `covered` counts the targets of which a trial was witnessed and judged, each once, whatever its seed; where the
    rest of a schedule was never reached, the target that is only the part before it. ``whole`` says whether the suite
    set out to strike them all; only then what is missing is a shortcoming, and ``left_out`` names it.
    The phase is that of the first strike; where one of a schedule is a race, after a response, it is ``after``.
    """
    struck = {(result.workflow, Trial.from_json(result.struck or result.trial).what) for result in witnessed(results)}
    counts: dict[tuple[str, str, bool], list[tuple[str, bool]]] = defaultdict(list)
    for target in targets:
        trial = target.trial
        name = (trial.workflow, trial.what)
        counts[trial.fault, _phase(trial), target.whole].append((" ".join(name), name in struck))
    return [
        {
            "fault": fault,
            "phase": phase,
            "whole": whole,
            "covered": sum(hit for _, hit in found),
            "total": len(found),
            "left_out": [name for name, hit in found if whole and not hit],
        }
        for (fault, phase, whole), found in sorted(counts.items())
    ]


def _phase(trial: Trial) -> str:
    phases = [strike.point.phase for strike in trial.schedule]
    return "after" if "after" in phases else phases[0]


def lines(suts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each SUT and chain, what was struck of what its suite set out to strike whole; nothing where it did not."""
    told = []
    for name, sut in suts.items():
        rows: Sequence[Mapping[str, Any]] = [row for row in sut.get("points", ()) if row["whole"]]
        for fault in dict.fromkeys(row["fault"] for row in rows):
            mine = [row for row in rows if row["fault"] == fault]
            parts = ", ".join(f"{row['phase']} {row['covered']}/{row['total']}" for row in mine)
            covered, total = (sum(row[key] for row in mine) for key in ("covered", "total"))
            told.append(f"{name}: {fault} struck at {covered} of {total} points ({parts})")
            told += [f"  left out: {left}" for row in mine for left in row["left_out"]]
    return told
