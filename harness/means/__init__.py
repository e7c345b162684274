"""What some faults need of the machine: a proxy, a container engine, a small disk, a clock that can be set.

Each is a `Means`: it says whether it is here, and wraps a trial that uses it. Where one is missing, the trials that
need it are a gap of the suite, said in one line and shown on the scorecard; the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from kintsugi.faults import FAULTS
from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.means.means import Means
from kintsugi.scenarios.planner import Gap
from kintsugi.scenarios.suite import Suite
from kintsugi.scenarios.trial import Trial

__all__ = ["MEANS", "gap_lines", "missing_means", "needed_by"]

MEANS: Mapping[str, Means] = {}
"""Every means by the name that the forms of faults know it by."""


def missing_means(suite: Suite) -> dict[str, str]:
    """What the faults of a suite need and is not here, each with the line that says what to do about it."""
    wanted = {
        form.needs
        for share in suite.faults
        for form in FAULTS[share.fault].forms
        if form.needs and (not share.forms or form.name in share.forms)
    }
    missing = {}
    for name in sorted(wanted):
        try:
            MEANS[name].check()
        except Unavailable as problem:
            missing[name] = str(problem)
    return missing


def needed_by(trial: Trial) -> list[str]:
    """The means that a trial uses, each once."""
    return sorted({FAULTS[s.fault].form(s.form).needs for s in trial.schedule} - {""})


def gap_lines(gaps: Iterable[Gap], missing: Mapping[str, str]) -> list[str]:
    """For each fault class that wants something: how many trials, and what to do about it."""
    counts = Counter((gap.fault, gap.needs) for gap in gaps)
    return [f"{count} trials of {fault}: {missing[needs]}" for (fault, needs), count in counts.items()]
