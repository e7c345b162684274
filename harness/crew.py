"""What the trials of one SUT share while a suite runs: its server, and the launchers of its workers and clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kintsugi.harness.adapters import Adapter
from kintsugi.harness.adapters.adapter import Server
from kintsugi.harness.processes import Launcher

__all__ = ["Crew"]


class Crew:
    """What the trials of one SUT share: its server, if it has one, and two launchers.

    One launcher forks its workers, the other calls its clients. `environment` is what all of them are given.
    """

    def __init__(self, adapter: Adapter, folder: Path) -> None:
        self.adapter = adapter
        self.environment: dict[str, str] = dict(adapter.environment)
        self.runs = 0
        """How many runs of workflows it has served."""
        self.found = ""
        """The versions of what it needs."""
        self._folder = folder
        self.server: Server | None = adapter.server() if adapter.server is not None else None
        self.workers = Launcher(adapter.side, adapter.chains, self.environment)
        self.clients = Launcher(adapter.side, adapter.chains, self.environment)

    async def start(self) -> None:
        """Start everything. Raises Unavailable where this SUT can't be run here, LauncherGone."""
        self.found = self.adapter.must_be_there()
        if self.server is not None:
            self.environment.update(await self.server.start(self._folder))
        await asyncio.gather(self.workers.start(), self.clients.start())

    def server_cpu_seconds(self) -> float:
        """The CPU time that the shared server has used so far."""
        return self.server.cpu_seconds() if self.server is not None else 0.0

    async def close(self) -> None:
        """End the launchers, every worker with them, and then the server."""
        await asyncio.gather(self.workers.close(), self.clients.close(), return_exceptions=True)
        if self.server is not None:
            await self.server.close()
