"""The file that a search writes: the schedule that was found, and how. Pure.

It can be run again (`kintsugi replay FILE`), on another machine too, and kept as a regression test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kintsugi.harness.rules import broken
from kintsugi.harness.search import Found, Search
from kintsugi.scenarios.trial import Trial

__all__ = ["DEADLINE_SECONDS", "STORM_CALLS_MAX", "ToReplay", "file_of", "read"]

DEADLINE_SECONDS = 90.0
STORM_CALLS_MAX = 5.0
"""As in every suite, where a file does not say."""


@dataclass(frozen=True)
class ToReplay:
    """A trial to run again, and what it is run with."""

    trial: Trial
    deadline_seconds: float = DEADLINE_SECONDS
    storm_calls_max: float = STORM_CALLS_MAX
    adapters: Mapping[str, Any] = field(default_factory=dict)
    """The adapter files of a user's own SUTs, as a results folder keeps them."""
    source: Mapping[str, Any] | None = None
    """Where the workflows came from, as a results folder keeps it; None for the shipped ones."""


def file_of(
    search: Search,
    found: Found,
    adapters: Mapping[str, Any],
    versions: Mapping[str, str],
    source: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """What is kept of a find, as JSON. `confirmed` is 0 of 0 where it was not run again yet, nor shrunk."""
    shrunk, again = found.shrunk, found.confirmed
    return {
        "trial": shrunk.trial.to_json(),
        "shows": list(shrunk.shows),
        "reason": shrunk.result.reason,
        "broken": broken(shrunk.result),
        "confirmed": {"k": again.k, "n": again.n},
        "as_found": found.as_found.trial.to_json(),
        "trials_to_find": found.number,
        "tried": search.tried,
        "seed": search.frame.seed,
        "faults_max": search.frame.faults_max,
        "workflows": sorted(search.frame.workflows),
        "looking_for": list(search.looking_for),
        "budget": asdict(search.budget),
        "deadline_seconds": search.deadline_seconds,
        "storm_calls_max": search.storm_calls_max,
        "missing": sorted(search.frame.missing),
        "adapters": adapters,
        "source": source,
        "versions": dict(versions),
    }


def read(data: Any) -> ToReplay:
    """The trial of such a file, or of one with a trial alone. ValueError, KeyError, TypeError where it is none."""
    if not isinstance(data, dict) or not isinstance(data.get("trial"), dict):
        return ToReplay(Trial.from_json(data))
    deadline, storm_calls = data.get("deadline_seconds", DEADLINE_SECONDS), data.get("storm_calls_max", STORM_CALLS_MAX)
    for name, number in (("deadline_seconds", deadline), ("storm_calls_max", storm_calls)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise ValueError(f"{name}: found {number!r}, a number above 0 is needed")
    adapters = data.get("adapters", {})
    if not isinstance(adapters, dict) or not all(isinstance(one, dict) and "file" in one for one in adapters.values()):
        raise ValueError("adapters: found none of the form that `kintsugi explore` writes")
    source = data.get("source")
    if source is not None and not (isinstance(source, dict) and source.keys() >= {"where", "domain", "digest"}):
        raise ValueError("source: found none of the form that `kintsugi explore` writes")
    return ToReplay(Trial.from_json(data["trial"]), float(deadline), float(storm_calls), adapters, source)
