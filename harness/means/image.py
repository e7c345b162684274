"""The image of a node: the Python that runs this, made into one here, without any registry.

It holds the interpreter, its standard library and the shared libraries that they link to. The packages and the
sources of a worker are not in it: they are mounted from where they are, read-only (`mounts`).
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from kintsugi import golden_workflows, runtime
from kintsugi.harness.processes import LAUNCHER

__all__ = ["INSIDE", "INTERPRETER", "TAG", "libraries", "mounts", "search_path", "write_image"]

INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
"""Not that of a virtual environment, which may be a copy."""
INSIDE = Path(__file__).with_name("inside.py").resolve()
STDLIB = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"}
)
FOLDERS = ("tmp", "proc", "sys", "dev", "etc")
FORMAT = 1
"""Raised when what an image holds is changed here."""

_MADE_FROM = (FORMAT, sys.version, INTERPRETER, INTERPRETER.stat().st_size, STDLIB, platform.machine())
TAG = hashlib.sha256(repr(_MADE_FROM).encode()).hexdigest()[:12]
"""The same for the same Python."""


def write_image(path: Path) -> None:
    """Write the file system of the image as a tar file."""
    with tarfile.open(path, "w", dereference=True) as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for file in (INTERPRETER, *libraries()):
            tar.add(file)
        tar.add(STDLIB, filter=_wanted)


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(member.name).name
    left_out = name in LEFT_OUT or name.startswith("config-") or name.endswith(".a")
    return None if left_out else member


def libraries() -> list[Path]:
    """The shared libraries of the interpreter, of its extension modules, and of what is loaded beside them."""
    linked = subprocess.run(
        ["ldd", INTERPRETER, *sorted((STDLIB / "lib-dynload").glob("*.so"))],  # noqa: S607 - part of every libc
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    loaded = [line.split()[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    elsewhere = tuple(f"{entry}/" for entry in (STDLIB, *search_path()))
    found = {word for word in (*linked, *loaded) if word.startswith("/") and ".so" in Path(word).name}
    return [Path(word) for word in sorted(found) if not word.startswith(elsewhere) and Path(word).is_file()]


def search_path() -> list[str]:
    """Where a worker finds its packages beside the standard library, in order."""
    own = {str(STDLIB), sysconfig.get_path("platstdlib"), str(STDLIB / "lib-dynload")}
    return [entry for entry in sys.path[1:] if Path(entry).is_absolute() and Path(entry).is_dir() and entry not in own]


def mounts() -> list[str]:
    """What is mounted, each at its own path: packages, and of Kintsugi only what a worker runs."""
    return sorted({*search_path(), *map(str, _sources())})


def _sources() -> Iterator[Path]:
    # The folders may be links to where they really stand.
    yield from (Path(package.__path__[0]).resolve() for package in (runtime, golden_workflows))
    yield LAUNCHER.resolve()
    yield INSIDE
