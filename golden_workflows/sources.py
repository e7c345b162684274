"""Where workflows come from: the shipped set, a folder of one's own, or a checkout of τ²-bench."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.golden_workflows.spec import FileProblem, Workflow, load_workflows, workflow_files

if TYPE_CHECKING:
    from kintsugi.golden_workflows.tau2 import Converted

__all__ = ["SHIPPED", "TAU2", "Source", "recorded_source", "source_of"]

TAU2 = "tau2:"


@dataclass(frozen=True)
class Source:
    """Where workflows come from, as it was asked for."""

    where: str = ""
    """A folder, or ``tau2:CHECKOUT``; empty for the shipped set."""
    domain: str = ""
    """Which domain of a checkout."""

    @property
    def shipped(self) -> bool:
        """Whether it is the set that Kintsugi brings."""
        return not self.where

    @property
    def name(self) -> str:
        """A word or two for titles; empty for the shipped set."""
        if self.shipped:
            return ""
        return f"tau2 {self.domain}" if self.domain else Path(self.where).absolute().name

    def load(self) -> dict[str, Workflow]:
        """Its workflows, by name. Raises FileProblem where there is none, or one can't be used."""
        if self.shipped:
            return load_workflows()
        if self.domain:
            return self.converted().workflows
        loaded = load_workflows(self._folder)
        if not loaded:
            raise FileProblem(f"{self.where}: holds no workflow; each is looked for as {self.where}/CLASS/NAME.toml")
        return loaded

    def digest(self) -> str:
        """A digest of every file that its workflows rest on; empty for the shipped set, which goes with the code."""
        if self.shipped:
            return ""
        if self.domain:
            return self.converted().digest
        digest = hashlib.sha256()
        for path in [*workflow_files(self._folder), *sorted(self._folder.glob("tools/*.toml"))]:
            digest.update(f"{path.relative_to(self._folder)}\n".encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def record(self) -> dict[str, str] | None:
        """What a results folder keeps of it, with the folder's absolute path; None for the shipped set."""
        if self.shipped:
            return None
        place = f"{TAU2}{self._checkout.absolute()}" if self.domain else str(self._folder.absolute())
        return {"where": place, "domain": self.domain, "digest": self.digest()}

    def converted(self) -> Converted:
        """What became of the tasks of a checkout. Raises FileProblem."""
        from kintsugi.golden_workflows.tau2 import load_domain

        return load_domain(self._checkout, self.domain)

    @property
    def _checkout(self) -> Path:
        return Path(self.where.removeprefix(TAU2))

    @property
    def _folder(self) -> Path:
        folder = Path(self.where)
        if not folder.is_dir():
            raise FileProblem(f"{self.where}: there is no such folder; give one that holds CLASS/NAME.toml")
        return folder


SHIPPED = Source()


def source_of(where: str | None, domain: str | None = None) -> Source:
    """The source that ``--workflows`` and ``--domain`` ask for. Raises FileProblem where they don't go together."""
    if where is None or not where.startswith(TAU2):
        if domain is not None:
            raise FileProblem("--domain goes with --workflows tau2:CHECKOUT; a folder of workflows has none")
        if not where and where is not None:
            raise FileProblem("--workflows: found an empty name; give a folder that holds CLASS/NAME.toml")
        return SHIPPED if where is None else Source(where)
    if domain is None:
        raise FileProblem(f"--workflows {where}: say which domain of it with --domain, for example --domain retail")
    return Source(where, domain)


def recorded_source(record: Mapping[str, Any] | None) -> Source:
    """The source that a record tells of. Raises FileProblem where its files are gone, or have changed since."""
    if record is None:
        return SHIPPED
    source = Source(record["where"], record["domain"])
    if source.digest() != record["digest"]:
        raise FileProblem(
            f"{source.where}: its workflows have changed since they were run; put the files back, or run them again"
        )
    return source
