"""A PostgreSQL server for the engines that keep their state in one: on loopback, with its own port and data."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kintsugi.harness.adapters.adapter import Unavailable
from kintsugi.harness.adapters.servers import LocalServer, on_free_ports

__all__ = ["URL", "PostgresServer", "found"]

BINARIES = "KINTSUGI_POSTGRES_BIN"
URL = "KINTSUGI_POSTGRES_URL"
INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian and its kin keep the programs, by major version, and off the PATH."""
ADVICE = f"apt-get install postgresql, or name the folder of its programs in {BINARIES}"
MAJOR_MIN = 13
USER = "postgres"
PORT_TAKEN = "could not create any TCP/IP sockets"
"""What it says last where it can't have its port; what it said before may be cut off."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # A socket's path must be shorter than a results folder may be; nobody needs one.
    "unix_socket_directories": "",
    # Fifty runs at once, each with the pool of a worker and a client.
    "max_connections": "400",
    "fsync": "on",
    "synchronous_commit": "on",
    "log_min_messages": "warning",
}


def _folder() -> Path:
    """The folder that holds ``initdb`` and ``postgres``. Raises Unavailable."""
    named = os.environ.get(BINARIES)
    on_path = shutil.which("initdb")
    versions = [path for path in INSTALLED.glob("*/bin") if path.parent.name.isdigit()]
    installed = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    candidates = [Path(named)] if named else [*([Path(on_path).parent] if on_path else []), *installed]
    for folder in candidates:
        if all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres")):
            return folder
    if named:
        raise Unavailable(f"postgres: {BINARIES} is {named}, which does not hold initdb and postgres; {ADVICE}")
    raise Unavailable(f"postgres: initdb and postgres were not found; {ADVICE}")


def found() -> str:
    """The server's name and version, as it says it. Raises Unavailable where there is none that fits."""
    program = _folder() / "postgres"
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
        version = said.split()[2]
        major = int(version.partition(".")[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        raise Unavailable(f"postgres: {program} --version gave no version ({error}); {ADVICE}") from error
    if major < MAJOR_MIN:
        raise Unavailable(f"postgres: {program} is version {version}, {MAJOR_MIN} is needed; {ADVICE}")
    return f"PostgreSQL {version}"


def _write_secret(path: Path, text: str, user: pwd.struct_passwd | None) -> None:
    """Write a file that only the server's user may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


class PostgresServer(LocalServer):
    """One server with one empty database and the superuser `postgres`, whose password is made for this server.

    As root it runs as the system's user `postgres`, because PostgreSQL refuses to be root.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are used in place of those of the same names in `SETTINGS`."""
        super().__init__("postgres")
        self._settings = {**SETTINGS, **(settings or {})}
        self._elsewhere: Path | None = None

    async def start(self, folder: Path) -> Mapping[str, str]:
        """Make a database cluster below `folder` and serve it; its URL is the variable that `URL` names."""
        found()
        programs = _folder()
        user = self._user()
        home = self._home(folder, user)
        data = home / "data"
        password = secrets.token_hex(16)
        # What an earlier harness has left that was killed.
        shutil.rmtree(data, ignore_errors=True)
        try:
            await self._make(programs / "initdb", data, home, user, password)
            self._port = await self._serve(programs / "postgres", data, user)
        except BaseException:
            await self.close()
            raise
        return {URL: f"postgresql://{USER}:{password}@127.0.0.1:{self._port}/postgres"}

    async def close(self) -> None:
        """Stop it at once, with no regard for its data."""
        await self._process.close(signal.SIGQUIT)
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
            self._elsewhere = None

    @staticmethod
    def _user() -> pwd.struct_passwd | None:
        """Whom it has to run as; None where that is who we are."""
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam(USER)
        except KeyError:
            raise Unavailable(f"postgres: it can't run as root, and there is no user {USER}; {ADVICE}") from None

    def _home(self, folder: Path, user: pwd.struct_passwd | None) -> Path:
        """A folder of the server's own, where the user it runs as can reach it."""
        folder.mkdir(parents=True, exist_ok=True)
        if user is None:
            return folder
        if all(parent.stat().st_mode & 0o001 for parent in folder.resolve().parents):
            home = folder / "postgres"
            home.mkdir(exist_ok=True)
        else:
            home = self._elsewhere = Path(tempfile.mkdtemp(prefix="kintsugi-postgres-"))
        os.chown(home, user.pw_uid, user.pw_gid)
        return home

    @staticmethod
    async def _make(program: Path, data: Path, home: Path, user: pwd.struct_passwd | None, password: str) -> None:
        secret = home / "password"
        await asyncio.to_thread(_write_secret, secret, password, user)
        # What initdb writes needs no sync: it is of no use once this process is gone.
        options = ("--auth=scram-sha-256", f"--pwfile={secret}", "-U", USER, "-E", "UTF8", "--no-locale", "--no-sync")
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                "-D",
                data,
                *options,
                cwd=home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        except OSError as error:
            raise Unavailable(f"postgres: {program} can't be started: {error.strerror}") from error
        said, _ = await process.communicate()
        secret.unlink()
        if process.returncode:
            words = " ".join(said.decode(errors="replace").split())[-300:]
            raise Unavailable(f"postgres: {program} ended with {process.returncode}: {words}")

    async def _serve(self, program: Path, data: Path, user: pwd.struct_passwd | None) -> int:
        """The port that it serves on."""

        async def ready() -> bool:
            return _status(data, self._process.pid) == "ready"

        async def start(port: int) -> None:
            settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
            argv = [str(program), "-D", str(data), "-p", str(port), *settings]
            await self._process.start(
                argv, data.parent, ready, user=user.pw_uid if user else None, at_death=signal.SIGQUIT
            )

        (port,) = await on_free_ports(1, start, PORT_TAKEN)
        return port


def _status(data: Path, pid: int) -> str:
    """What the server says of itself in its lock file: ``starting``, ``ready``, …; empty where it says nothing.

    One that was killed has left its last word there.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return ""
    return lines[7].strip() if len(lines) > 7 and lines[0].strip() == str(pid) else ""
