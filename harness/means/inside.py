"""What runs as the first process of a container: a node, which holds one worker, or the gateway to the doors.

Run as a program, by its path, and written on the standard library alone, like the launcher. Either ends as soon as
its standard input does, as it does when the harness ends in whatever way; all else in its container ends with it.

    inside.py node LAUNCHER LOG SIDE CHAINS    wait for a byte, then run a worker that prints to LOG; end as it does
    inside.py gateway FOLDER READY PORT=NAME ...     pass each connection to a port on to the socket FOLDER/NAME;
                                                     connect to FOLDER/READY once it listens
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

ORPHANED = 1
"""How it ends when the harness has."""
SIGNALLED = 128
"""Added to a signal's number, as shells do."""


def node(launcher: str, log: str, side: str, chains: str) -> int:
    """Be a node; the exit code of its worker."""
    if os.read(0, 1) != b"g":
        return 0
    worker = os.fork()
    if worker == 0:
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execv(sys.executable, [sys.executable, launcher, "--worker", side, chains])  # noqa: S606 - no shell is wanted
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    while True:
        # Whatever a worker leaves behind becomes a child of a container's first process.
        pid, status = os.wait()
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else SIGNALLED - code


def _end_with_the_harness() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ORPHANED)


async def gateway(folder: str, ready: str, ports: dict[int, str]) -> None:
    """Be the gateway. A connection to a socket begins with a line that says from which address it comes."""
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    servers = [await asyncio.start_server(_Passage(f"{folder}/{name}").take, port=port) for port, name in ports.items()]
    _, writer = await asyncio.open_unix_connection(f"{folder}/{ready}")
    writer.close()
    await asyncio.gather(*(server.serve_forever() for server in servers))


class _Passage:
    """The way from a port to a socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection on, both ways, until one end is closed."""
        address = writer.get_extra_info("peername")[0]
        try:
            there, back = await asyncio.open_unix_connection(self._path)
        except OSError:
            writer.transport.abort()
            return
        back.write(f"{address}\n".encode())
        await splice((reader, writer), (there, back))


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def splice(one: Ends, other: Ends) -> None:
    """Pass on what comes at either end to the other, until one is closed; then close both."""
    ways = [asyncio.ensure_future(_pass_on(one[0], other[1])), asyncio.ensure_future(_pass_on(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        one[1].close()
        other[1].close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        # Reset: as good as closed.
        return


def main() -> None:
    """Run as the program that its arguments name."""
    if sys.argv[1] == "node":
        os._exit(node(*sys.argv[2:]))
    pairs = (word.partition("=") for word in sys.argv[4:])
    asyncio.run(gateway(sys.argv[2], sys.argv[3], {int(port): name for port, _, name in pairs}))


if __name__ == "__main__":
    main()
