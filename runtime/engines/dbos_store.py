"""Where DBOS keeps its state: a system database for each state directory, copied from one that is migrated once.

Importing this puts a newer SQLite in place of the machine's own where that is too old for DBOS; so it comes before it.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Protocol

from kintsugi.runtime.engines.databases import Databases

__all__ = ["Postgres", "Sqlite", "Store"]

SQLITE_NEEDED = (3, 42)
"""DBOS stamps its rows with ``unixepoch('subsec')``, which came with this version."""

if sqlite3.sqlite_version_info < SQLITE_NEEDED:
    # Where it is not installed, PostgreSQL still does.
    with suppress(ImportError):
        import pysqlite3

        # SQLAlchemy, through which DBOS speaks to SQLite, takes the driver by this name.
        sys.modules["sqlite3"] = pysqlite3

FILE = "dbos.sqlite"


class Store(Protocol):
    """Where the system databases are."""

    def url(self, state_dir: str, environment: Mapping[str, str]) -> str:
        """The URL of a state directory's system database, as SQLAlchemy takes it."""
        ...

    def make(self, state_dir: str, prepare: Callable[[str], None]) -> None:
        """Make a state directory's system database: migrated, and as `prepare`, which is given its URL, has left it."""
        ...

    def drop(self, state_dir: str) -> None:
        """Remove it from a server that it shares with others."""
        ...


class Sqlite:
    """A file in the state directory; `journal` is its journal mode, which stays with the file."""

    def __init__(self, journal: str = "") -> None:
        self._journal = journal

    def url(self, state_dir: str, environment: Mapping[str, str]) -> str:
        """See `Store`."""
        return _file_url(Path(state_dir, FILE))

    def make(self, state_dir: str, prepare: Callable[[str], None]) -> None:
        """See `Store`."""
        Path(state_dir).mkdir(parents=True, exist_ok=True)
        Path(state_dir, FILE).write_bytes(_file_template(self._journal, prepare))

    def drop(self, state_dir: str) -> None:
        """It goes with its directory."""


def _file_url(path: Path) -> str:
    return f"sqlite:///{path}"


@cache
def _file_template(journal: str, prepare: Callable[[str], None]) -> bytes:
    """The content of a migrated database file."""
    with tempfile.TemporaryDirectory(prefix="kintsugi-dbos-") as folder:
        path = Path(folder, FILE)
        _migrate(_file_url(path), prepare)
        if journal:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA journal_mode = {journal}")
        return path.read_bytes()


class Postgres:
    """A database on the server that ``KINTSUGI_POSTGRES_URL`` names, named after the state directory."""

    def __init__(self) -> None:
        self._databases = Databases()

    def url(self, state_dir: str, environment: Mapping[str, str]) -> str:
        """See `Store`."""
        return self._databases.url(state_dir, environment)

    def make(self, state_dir: str, prepare: Callable[[str], None]) -> None:
        """See `Store`."""
        Path(state_dir).mkdir(parents=True, exist_ok=True)
        self._databases.make(state_dir, lambda url: _migrate(url, prepare))

    def drop(self, state_dir: str) -> None:
        """See `Store`."""
        self._databases.drop(state_dir)


def _migrate(url: str, prepare: Callable[[str], None]) -> None:
    from dbos import DBOS

    DBOS.migrate(url)
    prepare(url)
