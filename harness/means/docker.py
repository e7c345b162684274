"""Nodes as containers of a Docker engine on this machine: a network for each trial, a container for each worker.

A node reaches the doors through a gateway: a container on the trial's network that passes connections on to sockets
of the harness, which it finds in a folder that is mounted. So no port is opened to anyone, and to take a node off the
network cuts it off while the others go on. What the nodes share is the state folder, mounted in each.

A container ends when the harness does, and is removed by the engine as it ends; a network that was left so is removed
by the next trial.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kintsugi.harness.means import docker_engine
from kintsugi.harness.means.image import INSIDE, INTERPRETER, mounts, search_path
from kintsugi.harness.means.inside import SIGNALLED
from kintsugi.harness.means.means import Part
from kintsugi.harness.means.passages import READY, Passages
from kintsugi.harness.processes import LAUNCHER, Exit, Process
from kintsugi.harness.session import Session

__all__ = ["Containers", "Docker"]

TRIAL_LABEL = "kintsugi.trial"
REMOVED_SECONDS_MAX = 60.0
"""How long a container may take to be gone after it was killed."""
THREADS_MAX = 4
"""How much a trial asks of the engine at once."""
FIRST_PORT = 8001
GATEWAY = 2
FIRST_NODE = 3
"""In a trial's subnet; the engine's own address comes before."""
FOLDER = "/doors"
LOG = "/log"


class Docker:
    """The means: an engine that sees the folders of this machine."""

    about = "nodes as containers"
    takes: frozenset[Part] = frozenset({"state folder", "addresses", "workers"})
    """The folder too: a container has it from the engine, which sees none of our mounts."""

    def check(self) -> str:
        """The engine's version. Raises Unavailable."""
        client = docker_engine.connected()
        try:
            return f"Docker engine {client.version()['Version']}"
        finally:
            client.close()

    @asynccontextmanager
    async def prepare(self, session: Session) -> AsyncIterator[None]:
        """Run the workers of a trial as containers."""
        containers = Containers(session, await asyncio.to_thread(docker_engine.connected))
        plain = session.workers, dict(session.urls)
        try:
            await containers.open()
            session.workers, session.equipment["docker"] = containers, containers
            yield
        finally:
            session.workers, session.urls = plain
            await containers.close()


class Containers:
    """The nodes of one trial, in place of its launcher."""

    def __init__(self, session: Session, client: Any) -> None:
        self._session = session
        self._client = client
        self._name = f"kintsugi-{secrets.token_hex(4)}"
        self._passages = Passages()
        self._threads = ThreadPoolExecutor(THREADS_MAX)
        self._labels = {docker_engine.LABEL: docker_engine.maker(os.getpid()), TRIAL_LABEL: self._name}
        self._numbers = itertools.count(1)
        self._addresses: dict[str, str] = {}
        """Of each node."""
        self._of_node: dict[str, Process] = {}
        """The last life of each node's worker."""
        self._inputs: dict[str, Any] = {}
        """Of each container, the connection to its standard input."""
        self._cpu_seconds: dict[str, float] = {}
        self._subnet = ""

    async def _do(self, what: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Ask something of the engine, in a thread that nothing else of the harness waits for."""
        call = functools.partial(what, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # --- the trial's network ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the image, where it is not there, the network and the gateway; say to the workers where that is."""
        await self._do(docker_engine.tidy, self._client)
        await self._do(docker_engine.must_have_image, self._client)
        await self._passages.open(self._session.urls)
        self._subnet = await self._do(docker_engine.make_network, self._client, self._name, self._labels)
        address = docker_engine.address_in(self._subnet, GATEWAY)
        ports = {name: str(port) for port, name in enumerate(self._session.urls, FIRST_PORT)}
        command = ["gateway", FOLDER, READY, *(f"{port}={name}" for name, port in ports.items())]
        await self._start("gateway", address, command, {}, [f"{self._passages.folder}:{FOLDER}"], {})
        await asyncio.wait_for(self._passages.ready.wait(), docker_engine.SECONDS_MAX)
        self._session.urls = {
            name: f"http://{address}:{ports[name]}{urlsplit(url).path}" for name, url in self._session.urls.items()
        }

    # --- containers ---------------------------------------------------------------------------------------------

    async def _start(
        self,
        name: str,
        address: str,
        command: list[str],
        environment: Mapping[str, str],
        binds: list[str],
        tmpfs: Mapping[str, str],
    ) -> Process:
        """Start a container on the trial's network; its process, as this machine knows it."""
        client, full_name = self._client, f"{self._name}-{name}"
        endpoint = client.create_endpoint_config(ipv4_address=address)
        await self._do(
            client.create_container,
            docker_engine.IMAGE,
            [str(INTERPRETER), str(INSIDE), *command],
            name=full_name,
            hostname=name,
            environment=dict(environment),
            labels=self._labels,
            user=f"{os.getuid()}:{os.getgid()}",
            stdin_open=True,
            networking_config=client.create_networking_config({self._name: endpoint}),
            host_config=client.create_host_config(
                binds=[*binds, *(f"{path}:{path}:ro" for path in mounts())],
                network_mode=self._name,
                auto_remove=True,
                read_only=True,
                tmpfs={"/tmp": "mode=1777", **tmpfs},  # noqa: S108 - the container's own
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                log_config={"Type": "none"},
            ),
        )
        loop = asyncio.get_running_loop()
        process = Process(full_name, 0, loop.create_future())
        # A container that is removed as it ends tells how it did only to who has asked before.
        asking = threading.Event()
        threading.Thread(target=self._await_end, args=(process, loop, asking), daemon=True).start()
        await self._do(asking.wait)
        # Its first process ends with this connection, which ends with the harness.
        self._inputs[full_name] = await self._do(client.attach_socket, full_name, params={"stdin": 1, "stream": 1})
        await self._do(client.start, full_name)
        process.pid = (await self._do(client.inspect_container, full_name))["State"]["Pid"]
        return process

    def _await_end(self, process: Process, loop: asyncio.AbstractEventLoop, asking: threading.Event) -> None:
        """Wait until a container has ended and is removed, and say how it ended."""
        client = self._client
        try:
            url = f"{client.base_url}/v{client.api_version}/containers/{process.id}/wait"
            # The engine answers in two parts: at once, that it will tell, and then what.
            with client.post(url, params={"condition": "removed"}, timeout=None, stream=True) as answer:
                answer.raise_for_status()
                asking.set()
                code = answer.json()["StatusCode"]
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody would tell of the end any more
            asking.set()
            say = functools.partial(process.ended.set_exception, RuntimeError(f"docker: {process.id}: {error}"))
        else:
            signal = max(code - SIGNALLED, 0)
            seen = f"the engine says that it exited with {code} and is removed"
            ended = Exit(-signal if signal else code, signal, self._cpu_seconds.get(process.id, 0.0), seen)
            say = functools.partial(process.ended.set_result, ended)
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
            loop.call_soon_threadsafe(say)

    # --- what a launcher does for workers as processes --------------------------------------------------------------

    async def spawn(self, environment: Mapping[str, str], folder: Path, log: Path, *, cold: bool) -> Process:
        """Start a container for a worker, which waits for `go`; its scratch folder is in it, and ends with it."""
        session, node = self._session, environment["KINTSUGI_WORKER_ID"]
        next_free = docker_engine.address_in(self._subnet, FIRST_NODE + len(self._addresses))
        address = self._addresses.setdefault(node, next_free)
        await self._do(log.touch)
        told = {**environment, "PYTHONPATH": os.pathsep.join(search_path()), "HOME": str(folder)}
        command = ["node", str(LAUNCHER.resolve()), LOG, session.adapter.side, session.adapter.chains]
        binds = [f"{session.state_folder}:{session.state_folder}", f"{log}:{LOG}"]
        name = f"{node}-{next(self._numbers)}"
        scratch = {str(folder): "mode=1777"}
        process = self._of_node[node] = await self._start(name, address, command, told, binds, scratch)
        if node in session.cut_off:
            await self._do(self._client.disconnect_container_from_network, process.id, self._name)
        return process

    def go(self, process: Process) -> None:
        """Let a started worker run."""
        self._inputs[process.id]._sock.sendall(b"g")  # noqa: SLF001 - the SDK wraps it for reading only

    async def kill(self, process: Process) -> Exit:
        """`docker kill`, and wait until the container is removed; how its worker ended, which may be by itself.

        Raises RuntimeError where the engine does not say within `REMOVED_SECONDS_MAX` that it is.
        """
        import docker

        refusal = ""
        if process.alive:
            # Errors and time-outs of the engine: what it has used is not known, then.
            with contextlib.suppress(OSError, KeyError):
                used = await self._do(self._client.stats, process.id, stream=False, one_shot=True)
                self._cpu_seconds[process.id] = used["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            try:
                await self._do(self._client.kill, process.id)
            except docker.errors.APIError as error:  # It may have ended meanwhile.
                refusal = f": {error}"
        try:
            return await asyncio.wait_for(asyncio.shield(process.ended), REMOVED_SECONDS_MAX)
        except TimeoutError:
            raise RuntimeError(f"docker: {process.id} is still there after it was killed{refusal}") from None

    async def stop(self, process: Process) -> bool:
        """`docker pause`; whether the engine says that it stands still."""
        return await self._turn(process, self._client.pause, running=False)

    async def resume(self, process: Process) -> bool:
        """`docker unpause`; whether the engine says that it goes on."""
        return await self._turn(process, self._client.unpause, running=True)

    async def _turn(self, process: Process, turn: Callable[[str], None], *, running: bool) -> bool:
        import docker

        with contextlib.suppress(docker.errors.APIError):
            await self._do(turn, process.id)
            state = (await self._do(self._client.inspect_container, process.id))["State"]
            process.running = state["Running"] and not state["Paused"]
        return process.alive and process.running is running

    # --- a partition ------------------------------------------------------------------------------------------------

    async def disconnect(self, node: str) -> bool:
        """`docker network disconnect` of a node, and the end of what had come from it; whether it is on no network."""
        import docker

        name = self._of_node[node].id
        try:
            await self._do(self._client.disconnect_container_from_network, name, self._name)
            self._passages.abort(self._addresses[node])
            return not await self._networks(name)
        except docker.errors.NotFound:  # Its worker has ended.
            return False

    async def connect(self, node: str) -> bool:
        """`docker network connect` of a node, with the address it had; whether it is on the trial's network."""
        import docker

        name, address = self._of_node[node].id, self._addresses[node]
        try:
            await self._do(self._client.connect_container_to_network, name, self._name, ipv4_address=address)
            return list(await self._networks(name)) == [self._name]
        except docker.errors.NotFound:  # Its worker has ended.
            return False

    async def _networks(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (await self._do(self._client.inspect_container, name))["NetworkSettings"]["Networks"]
        return found

    # --- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Remove the trial's containers and its network, whatever state they are in."""
        self._passages.close()
        try:
            await self._do(docker_engine.remove, self._client, {"label": f"{TRIAL_LABEL}={self._name}"})
        finally:
            for connection in self._inputs.values():
                connection.close()
            self._passages.remove()
            self._client.close()
            self._threads.shutdown(wait=False)
