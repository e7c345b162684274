"""What an adapter says of its SUT. The verbs themselves are functions of the SUT's side, called by a launcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol, get_args

from packaging.requirements import Requirement

from kintsugi.faults.fault import Trait

__all__ = ["DISTRIBUTION", "OWN", "Adapter", "Server", "Unavailable", "versions"]

DISTRIBUTION = "kintsugi-bench"

OWN = "own"
"""The chain of a SUT that brings an agent of its own."""


class Unavailable(RuntimeError):
    """A SUT can't be run here; the message is one line that says what to do about it."""


class Server(Protocol):
    """An engine's server, shared by all trials of its SUT in a suite."""

    async def start(self, folder: Path) -> Mapping[str, str]:
        """Start it with its data below `folder`; the environment by which the SUT's side finds it.

        Raises Unavailable, with nothing left running.
        """
        ...

    async def kill(self) -> int:
        """SIGKILL it, with all that belongs to it, and wait until it is reaped; its process id. It had to live."""
        ...

    async def listens(self) -> bool:
        """Whether it accepts connections where its clients look for it."""
        ...

    async def restart(self) -> None:
        """Start it again after `kill`: at the same addresses, on the same data. Raises Unavailable."""
        ...

    def cpu_seconds(self) -> float:
        """The CPU time that its processes have used so far, as far as it is known."""
        ...

    async def close(self) -> None:
        """Stop it, whatever state it is in, and wait until it is gone. Closing again does nothing."""
        ...


@dataclass(frozen=True)
class Adapter:
    """How to drive one SUT.

    `side` is the module, or the attribute of one (``module:NAME``), that a launcher loads:
    ``provision(state_dir)``, ``submit(state_dir, run_id, payload)``,
    ``decide(state_dir, run_id, request_id, decision)``, ``status(state_dir, run_id)`` and the coroutine
    ``work(environment, chains)``; with `retires` also ``retire(state_dir)``, for when a trial is over and its workers
    are gone.
    """

    name: str
    about: str
    side: str
    decisions: Literal["push", "poll"]
    """Whether decisions are delivered to it by ``decide``, or it asks the human's inbox for them."""
    fails_over: bool
    """Whether a worker on another node can take a run over; if not, a second node would have nothing to do."""
    resumes: Literal["engine", "supervisor", "script"] = "engine"
    """Who takes up a dead worker's runs when it is started again: the engine; the plain supervisor that users of an
    engine without one write (the same for all of these); or nobody, the script is begun again."""
    failed_over_by: Literal["engine", "supervisor"] = "engine"
    """Who finds out that a worker does not come back, and gives its runs to another; where it `fails_over`."""
    profile: Literal["", "tuned", "default"] = ""
    """``tuned``: as a careful engineer who has read the documentation; ``default``: as the quick-start teaches."""
    submit_first: bool = False
    """Whether a worker finds its runs when it starts (a script) rather than being handed them while it runs."""
    chains: str = "kintsugi.golden_workflows.chains:CHAINS"
    own_chain: bool = False
    """Whether it brings an agent of its own (chain ``own``) instead of running ours."""
    execs: bool = False
    """Whether its worker becomes a program of its own, and so is started cold in any case."""
    extra: str = ""
    """The extra of this distribution that installs what it needs; empty where it needs nothing."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What was set, and to what, for a reader of the scorecard."""
    operator: bool = False
    """Whether its side has the verbs ``pause(state_dir, run_id)`` and ``resume(state_dir, run_id)`` for an operator."""
    keeps_files: bool = True
    """Whether what it remembers is in files of its own, below the trial's state folder."""
    retires: bool = False
    """Whether a trial's traces in the shared server are to be removed when it is over."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment of its launchers and workers."""
    store_address: str = ""
    """The variable with its server's address, where its workers connect to that and would go elsewhere if told so."""
    server: Callable[[], Server] | None = None
    """Makes the server that its trials share; None where it needs none."""
    check: Callable[[], str] | None = None
    """Says which program beside the extra was found. Raises Unavailable."""

    def lacks(self) -> frozenset[Trait]:
        """What forms of faults may ask of a SUT and this one does not have."""
        has = {
            "pushed_decisions": self.decisions == "push",
            "fail_over": self.fails_over,
            "own_server": self.server is not None,
            "own_files": self.server is None and self.keeps_files,
            "store_link": bool(self.store_address),
            # A server listens on this machine's loopback, and another program would have to be there as well.
            "containers": self.server is None and not self.execs,
            "operator": self.operator,
            "redeployable": not (self.own_chain or self.execs),
        }
        return frozenset(trait for trait in get_args(Trait) if not has[trait])

    def must_be_there(self) -> str:
        """What was found, as one line; empty where nothing is needed. Raises Unavailable."""
        found = [f"{name} {version}" for name, version in versions(self).items()]
        if self.check is not None:
            found.append(self.check())
        return ", ".join(found)


def versions(adapter: Adapter) -> dict[str, str]:
    """The versions of what an adapter's extra installs. Raises Unavailable where one is missing or does not fit."""
    if not adapter.extra:
        return {}
    found: dict[str, str] = {}
    advice = f"pip install '{DISTRIBUTION}[{adapter.extra}]', or in a clone: make engines"
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
        marker = requirement.marker
        # A self-reference to another extra ("kintsugi-bench[a,b]") is resolved by the installer.
        if marker is None or not marker.evaluate({"extra": adapter.extra}) or marker.evaluate({"extra": ""}):
            continue
        if requirement.name == DISTRIBUTION:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            raise Unavailable(f"{adapter.name}: {requirement.name} is not installed; {advice}") from None
        if not requirement.specifier.contains(version, prereleases=True):
            raise Unavailable(
                f"{adapter.name}: {requirement.name} {version} is installed, "
                f"{requirement.specifier} is needed; {advice}"
            )
        found[requirement.name] = version
    return found
