"""The harness's end of a trial's gateway: sockets in a folder, from which every connection is passed on to a door.

The other end is `inside.gateway`. A connection begins with a line that says from which address of the trial it comes.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from kintsugi.harness.means.inside import splice

__all__ = ["READY", "Passages"]

READY = "ready"
"""The socket at which the gateway says that it listens."""


class Passages:
    """The ways from a trial's network to its doors."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kintsugi-"))
        """Where the sockets are, each by the name of its door."""
        self.ready = asyncio.Event()
        """Set once the gateway listens."""
        self._from: dict[asyncio.StreamWriter, str] = {}
        """Each connection that came through the gateway, with the address it came from."""
        self._servers: list[asyncio.Server] = []

    async def open(self, urls: Mapping[str, str]) -> None:
        """Listen for the gateway, and for what it passes on to each door, which is at one of the `urls`."""
        self._servers.append(await asyncio.start_unix_server(lambda *_: self.ready.set(), self.folder / READY))
        for name, url in urls.items():
            took = functools.partial(self._took, urlsplit(url).port)
            self._servers.append(await asyncio.start_unix_server(took, self.folder / name))

    async def _took(self, port: int | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection of the gateway on to a door."""
        try:
            self._from[writer] = (await reader.readline()).decode().strip()
            await splice((reader, writer), await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            # The door is closed, or one end was reset.
            writer.close()
        finally:
            self._from.pop(writer, None)

    def abort(self, address: str = "") -> None:
        """End every connection from an address, or from anywhere, so that what arrives late on one reaches nobody."""
        for writer in [writer for writer, where in self._from.items() if address in {"", where}]:
            writer.transport.abort()

    def close(self) -> None:
        """Take no more connections, and end those that are there."""
        for server in self._servers:
            server.close()
        self.abort()

    def remove(self) -> None:
        """Remove the sockets."""
        shutil.rmtree(self.folder, ignore_errors=True)
