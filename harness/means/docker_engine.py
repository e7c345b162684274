"""The Docker engine of this machine: a client of it, the image and the networks of nodes, and what is left of them.

Whatever asks the engine waits for it, so that an event loop does so in a thread.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kintsugi.harness.adapters.adapter import DISTRIBUTION, Unavailable
from kintsugi.harness.means.image import TAG, libraries, write_image

__all__ = [
    "IMAGE",
    "LABEL",
    "SECONDS_MAX",
    "address_in",
    "connected",
    "make_network",
    "maker",
    "must_have_image",
    "remove",
    "tidy",
]

REPOSITORY = "kintsugi/python"
IMAGE = f"{REPOSITORY}:{TAG}"
LABEL = "kintsugi.harness"
"""Says of all that is ours which process of this machine made it."""
SECONDS_MAX = 60.0
"""How long the engine may take for anything but the end of a container."""
SUBNETS = [f"198.{18 + n // 4096}.{n // 16 % 256}.{n % 16 * 16}" for n in range(8192)]
"""Each of sixteen addresses, out of those that are set aside for benchmarks of networks (RFC 2544)."""
SUBNETS_TRIED = 20
REMOVAL_POLL_SECONDS = 0.02
TIDIED: set[str] = set()
"""The engines where what was left by others has been removed."""
_MAKING_THE_IMAGE = threading.Lock()


def connected() -> Any:
    """A client of the engine. Raises Unavailable where there is none that can be used."""
    try:
        import docker
    except ImportError:
        raise Unavailable(f"docker: the SDK is not installed; pip install '{DISTRIBUTION}[docker]'") from None
    settings = docker.utils.kwargs_from_env()
    where = settings.get("base_url") or docker.constants.DEFAULT_UNIX_SOCKET
    if not where.startswith(("unix://", "http+unix://")):
        raise Unavailable(f"docker: the engine at {where} does not see this machine's folders; name one by unix://")
    try:
        return docker.APIClient(**settings, version="auto", timeout=SECONDS_MAX)
    except docker.errors.DockerException as error:
        why = "this user may not use the engine" if "Permission denied" in str(error) else "no engine answers"
        where = where.removeprefix("http+")
        raise Unavailable(f"docker: {why} at {where}; start one, or name it by DOCKER_HOST") from None


def make_network(client: Any, name: str, labels: Mapping[str, str]) -> str:
    """Make a network of addresses that no other has, and that leads nowhere else; its subnet."""
    import docker

    for subnet in random.sample(SUBNETS, SUBNETS_TRIED):
        pool = docker.types.IPAMPool(subnet=f"{subnet}/28", gateway=address_in(subnet, 1))
        ipam = docker.types.IPAMConfig(pool_configs=[pool])
        try:
            client.create_network(name, "bridge", ipam=ipam, internal=True, labels=labels)
        except docker.errors.APIError as error:
            if "overlaps" not in str(error):
                raise
        else:
            return subnet
    raise RuntimeError("docker: no subnet is left for the network of a trial")


def address_in(subnet: str, number: int) -> str:
    """The address of a number in a subnet."""
    network, _, first = subnet.rpartition(".")
    return f"{network}.{int(first) + number}"


def maker(pid: int) -> str:
    """A name for a process of this machine that no other ever has: its pid, and the clock tick of its start."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        started = "gone"
    return f"{pid}-{started}"


def tidy(client: Any) -> None:
    """Remove what harnesses have left that are gone, once for each engine."""
    if client.base_url in TIDIED:
        return
    TIDIED.add(client.base_url)
    left = [*client.containers(all=True, filters={"label": LABEL}), *client.networks(filters={"label": LABEL})]
    for name in {thing["Labels"][LABEL] for thing in left}:
        if name != maker(int(name.partition("-")[0])):
            remove(client, {"label": f"{LABEL}={name}"})


def remove(client: Any, filters: Mapping[str, str]) -> None:
    """Remove containers, whether they run or not, and then networks."""
    import docker

    for container in client.containers(all=True, filters=filters):
        # Its removal may be under way, as it has just ended.
        with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
            client.remove_container(container["Id"], force=True)
    until = time.monotonic() + SECONDS_MAX
    while client.containers(all=True, filters=filters) and time.monotonic() < until:
        time.sleep(REMOVAL_POLL_SECONDS)
    for network in client.networks(filters=filters):
        with contextlib.suppress(docker.errors.NotFound):
            client.remove_network(network["Id"])


def must_have_image(client: Any) -> None:
    """Make the image, where the engine does not have it."""
    import docker

    with _MAKING_THE_IMAGE:
        try:
            client.inspect_image(IMAGE)
        except docker.errors.ImageNotFound:
            with tempfile.TemporaryDirectory(prefix="kintsugi-") as folder:
                path = Path(folder) / "image.tar"
                write_image(path)
                where = ":".join(sorted({str(library.parent) for library in libraries()}))
                client.import_image(str(path), repository=REPOSITORY, tag=TAG, changes=[f"ENV LD_LIBRARY_PATH={where}"])
