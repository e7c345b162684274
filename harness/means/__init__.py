"""What some faults need of the machine: a proxy, a container engine, a small disk, a clock that can be set.

Each is a `Means`: it says whether it is here, and wraps a trial that uses it. Where one is missing, the trials that
need it are a gap of the suite, said in one line and shown on the scorecard; the others go on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

from kintsugi.faults import FAULTS
from kintsugi.harness.adapters import Unavailable
from kintsugi.harness.means.docker import Docker
from kintsugi.harness.means.fake_clock import FAKE_CLOCK
from kintsugi.harness.means.loop_disk import LOOP_DISK
from kintsugi.harness.means.means import Means, Part
from kintsugi.harness.means.mounts import Mounter, enter_namespace
from kintsugi.harness.means.small_disk import SMALL_DISK
from kintsugi.harness.means.toxiproxy import TOXIPROXY
from kintsugi.scenarios.planner import Gap
from kintsugi.scenarios.suite import Suite
from kintsugi.scenarios.trial import Trial

__all__ = [
    "MEANS",
    "TAKES",
    "clash_of",
    "fault_gaps",
    "gap_lines",
    "make_ready",
    "missing_among",
    "missing_means",
    "needed_by",
]

MEANS: Mapping[str, Means] = {
    "small_disk": SMALL_DISK,
    "loop_disk": LOOP_DISK,
    "fake_clock": FAKE_CLOCK,
    "toxiproxy": TOXIPROXY,
    "docker": Docker(),
}
"""Every means by the name that the forms of faults know it by."""

TAKES: Mapping[str, frozenset[Part]] = {name: means.takes for name, means in MEANS.items()}
"""What each has for itself of a trial."""


def missing_means(suite: Suite) -> dict[str, str]:
    """What the faults of a suite need and is not here, each with the line that says what to do about it."""
    wanted = {
        form.needs
        for share in suite.faults
        for form in FAULTS[share.fault].forms
        if form.needs and (not share.forms or form.name in share.forms)
    }
    return missing_among(wanted)


def missing_among(names: Iterable[str]) -> dict[str, str]:
    """Those of some means that are not here; this process is made ready for the others."""
    missing = {}
    for name in sorted(names):
        try:
            MEANS[name].check()
            make_ready([name])
        except Unavailable as problem:
            missing[name] = str(problem)
    return missing


def make_ready(names: Iterable[str]) -> None:
    """Give this process what trials with these means need of it, before it starts anything. Raises Unavailable."""
    if any(isinstance(MEANS[name], Mounter) for name in names):
        enter_namespace()


def needed_by(trial: Trial) -> list[str]:
    """The means that a trial uses, each once."""
    return sorted({form.needs for form in trial.forms} - {""})


def clash_of(trial: Trial) -> str:
    """Which two of a trial's means can't be in one trial, and why, as one line; empty where all can."""
    for one, other in combinations(needed_by(trial), 2):
        if both := sorted(TAKES[one] & TAKES[other]):
            return f"{one} and {other} can't be in one trial: each takes its {' and its '.join(both)}"
    return ""


def fault_gaps(gaps: Iterable[Gap], missing: Mapping[str, str]) -> dict[str, str]:
    """For each fault class that wants something: how many trials were not run, and what to do about it."""
    counts = Counter((gap.fault, gap.needs) for gap in gaps)
    found: dict[str, list[str]] = defaultdict(list)
    for (fault, needs), count in counts.items():
        found[fault].append(f"{count} trials: {missing[needs]}")
    return {fault: "; ".join(told) for fault, told in found.items()}


def gap_lines(gaps: Iterable[Gap], missing: Mapping[str, str]) -> list[str]:
    """The same as lines."""
    return [f"{fault}, {why}" for fault, why in fault_gaps(gaps, missing).items()]
