"""The plain supervisor that a user writes around an engine that does not take over a dead worker's runs by itself.

Every worker beats in a file, and claims the runs it carries. One whose heart has not been seen to beat for
`DETECTION_SECONDS` is held to be dead, and another worker takes its claims. There is no fencing: a worker that was
only paused goes on with what it had. The same for every engine that needs one.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

__all__ = ["BEAT_SECONDS", "DETECTION_SECONDS", "Supervisor", "leave", "submitted"]

DETECTION_SECONDS = 2.0
"""The failure-detection budget, the same for all SUTs."""
BEAT_SECONDS = 0.25


def leave(state_dir: str | os.PathLike[str], run_id: str, payload: Mapping[str, Any]) -> None:
    """Leave a run where workers find it; the same again changes nothing."""
    inbox = Path(state_dir, "inbox")
    inbox.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=inbox, suffix=".partial") as file:
        json.dump(dict(payload), file)
        file.flush()
        os.fsync(file.fileno())
        # A link comes into being whole, and only where there is none yet.
        with suppress(FileExistsError):
            os.link(file.name, inbox / f"{run_id}.json")
    folder = os.open(inbox, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def submitted(state_dir: str | os.PathLike[str]) -> dict[str, Path]:
    """The runs that were left, by id."""
    return {path.stem: path for path in sorted(Path(state_dir, "inbox").glob("*.json"))}


class Supervisor:
    """One worker's part in it. `node` names the worker, and is the same after it was started again."""

    def __init__(self, state_dir: str | os.PathLike[str], node: str) -> None:
        self._claims = Path(state_dir, "claims")
        self._hearts = Path(state_dir, "hearts")
        self._inbox = Path(state_dir)
        self._node = node
        self._beats = 0
        self._seen: dict[str, tuple[str, float]] = {}
        self._claims.mkdir(parents=True, exist_ok=True)
        self._hearts.mkdir(parents=True, exist_ok=True)
        self.beat()

    def beat(self) -> None:
        """Show that this worker lives."""
        self._beats += 1
        partial = self._hearts / f".{self._node}.partial"
        partial.write_text(f"{os.getpid()} {self._beats}", encoding="utf-8")
        partial.replace(self._hearts / self._node)

    async def keep_beating(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_SECONDS)

    def lost(self) -> list[str]:
        """The nodes whose heart has not been seen to beat for too long. Ask often: only what is seen counts."""
        now = time.monotonic()
        found = []
        for heart in self._hearts.glob("[!.]*"):
            with suppress(FileNotFoundError):
                beat = heart.read_text(encoding="utf-8")
                if self._seen.get(heart.name, ("", 0.0))[0] != beat:
                    self._seen[heart.name] = (beat, now)
                elif heart.name != self._node and now - self._seen[heart.name][1] > DETECTION_SECONDS:
                    found.append(heart.name)
        return found

    def claim(self, run_id: str) -> bool:
        """Whether this worker is to carry a run: it took it now, or had taken it before it was started again."""
        number, owner = self._owner(run_id)
        return self._take(run_id, 1) if not number else owner == self._node

    def adopt(self, node: str) -> list[str]:
        """Take over what a lost node had claimed; the ids of these runs. Of several that try, one gets each."""
        runs = {path.name.rpartition(".")[0] for path in self._claims.glob("[!.]*")}
        owners = {run_id: self._owner(run_id) for run_id in sorted(runs)}
        return [
            run_id for run_id, (number, owner) in owners.items() if owner == node and self._take(run_id, number + 1)
        ]

    def _owner(self, run_id: str) -> tuple[int, str]:
        """The number of the last claim on a run, and who made it; 0 where there is none."""
        number = max((int(path.name.rpartition(".")[2]) for path in self._claims.glob(f"{run_id}.*")), default=0)
        return number, (self._claims / f"{run_id}.{number}").read_text(encoding="utf-8") if number else ""

    def _take(self, run_id: str, number: int) -> bool:
        """Make the claim of a number. A link comes into being whole, and for one of all that try."""
        # A file of its own for each claim: one that was linked before would be written to by the next.
        with NamedTemporaryFile("w", encoding="utf-8", dir=self._claims, prefix=".") as mine:
            mine.write(self._node)
            mine.flush()
            # Else a power loss may leave a claim that nobody's name is on, and that nobody takes.
            os.fsync(mine.fileno())
            try:
                os.link(mine.name, self._claims / f"{run_id}.{number}")
            except FileExistsError:
                return False
        return True

    def due(self, carried: Collection[str] = ()) -> dict[str, Path]:
        """The runs that this worker should carry now beside those `carried`, those of lost nodes included."""
        for node in self.lost():
            self.adopt(node)
        left = submitted(self._inbox).items()
        return {run_id: path for run_id, path in left if run_id not in carried and self.claim(run_id)}
