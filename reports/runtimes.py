"""How each SUT was run: settings and versions, who takes up a dead worker's runs, and what could not be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kintsugi.reports.numbers import number, pick, table

__all__ = ["Runtime", "about", "gaps", "runtimes"]

RESUMES = {
    "engine": "the engine takes its runs up again",
    "supervisor": "a plain supervisor has its runs taken up again; the engine has none, "
    "so it is the one that users write, the same for every such engine",
    "script": "it begins from the top; nothing is taken up again",
}
FAILS_OVER = {
    "engine": "the engine gives its runs to another",
    "supervisor": "the plain supervisor gives its runs to another",
    "": "its runs are lost; no other worker can take them over",
}
SHORT = {"engine": "the engine resumes", "supervisor": "a plain supervisor resumes", "script": "begins again"}
PROFILES = {
    "tuned": "tuned: as an engineer writes who has read its documentation",
    "default": "default: as its quick-start teaches, with default settings",
}


@dataclass(frozen=True)
class Runtime:
    """One SUT as it was run."""

    name: str
    about: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


def runtimes(environment: Mapping[str, Any]) -> list[Runtime]:
    """Every SUT of which it is known how it was run; ones that could not be run are among the `gaps`."""
    found = [_runtime(name, how) for name, how in table(environment, "suts").items() if isinstance(how, Mapping)]
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def _runtime(name: str, how: Mapping[str, Any]) -> Runtime | None:
    if how.get("gap"):
        return None
    facts = [("A worker is started again", RESUMES.get(str(how.get("resumes")), "not stated"))]
    facts.append(("A worker is gone for good", FAILS_OVER.get(str(how.get("failed_over_by")), "not stated")))
    if how.get("profile"):
        facts.insert(0, ("Profile", PROFILES.get(str(how["profile"]), str(how["profile"]))))
    if how.get("versions"):
        facts.append(("Versions", str(how["versions"])))
    runs, cpu = number(pick(how, "server", "runs")), number(pick(how, "server", "cpu_seconds"))
    if runs and cpu is not None:
        facts.append(("Shared server", f"{cpu / runs:.2f} s of CPU for each run, idle time included, charged pro rata"))
    settings = tuple((str(key), str(value)) for key, value in table(how, "settings").items())
    return Runtime(name, str(how.get("about") or ""), tuple(facts), settings)


def about(environment: Mapping[str, Any], name: str) -> str:
    """A SUT in one line: what it is, with which settings, and who resumes."""
    how = table(environment, "suts", name)
    parts = [str(how.get("about") or "").rstrip("."), f"{how['profile']} settings" if how.get("profile") else ""]
    parts.append(SHORT.get(str(how.get("resumes")), ""))
    if how.get("resumes") == "engine" and how.get("failed_over_by") == "supervisor":
        parts.append("a plain supervisor fails over")
    return " · ".join(filter(None, parts))


def gaps(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(sut+chain or fault class, why) of everything that was asked for and could not be run."""
    parts = ("gaps", "fault_gaps")
    return [(str(key), str(why)) for part in parts for key, why in table(summary, part).items()]
