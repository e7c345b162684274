"""A PostgreSQL database for each trial, on a server that trials share: copied from one that is prepared once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit, urlunsplit

__all__ = ["SERVER", "Databases"]

SERVER = "KINTSUGI_POSTGRES_URL"
"""The variable with the URL of the server, on which databases may be made."""
TEMPLATE = "kintsugi_template"


class Databases:
    """The databases of the trials, each told by its state directory."""

    def __init__(self) -> None:
        self._prepared: set[str] = set()

    def url(self, state_dir: str, environment: Mapping[str, str] = os.environ) -> str:
        """The URL of a trial's database."""
        return _url(environment[SERVER], _name(state_dir))

    def make(self, state_dir: str, prepare: Callable[[str], None]) -> None:
        """Make a trial's database as `prepare`, which is given the URL of an empty one, has left that."""
        server = os.environ[SERVER]
        if server not in self._prepared:
            _on(server, f'DROP DATABASE IF EXISTS "{TEMPLATE}" WITH (FORCE)')
            _on(server, f'CREATE DATABASE "{TEMPLATE}"')
            prepare(_url(server, TEMPLATE))
            self._prepared.add(server)
        _on(server, f'CREATE DATABASE "{_name(state_dir)}" TEMPLATE "{TEMPLATE}"')

    def drop(self, state_dir: str) -> None:
        """Drop a trial's database, whoever is still connected to it."""
        _on(os.environ[SERVER], f'DROP DATABASE IF EXISTS "{_name(state_dir)}" WITH (FORCE)')


def _name(state_dir: str) -> str:
    """A name of its own for each state directory, of which a path may be too long."""
    return f"kintsugi_{hashlib.sha256(os.path.realpath(state_dir).encode()).hexdigest()[:24]}"


def _url(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


def _on(server: str, statement: str) -> None:
    """Execute what may not be part of a transaction."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())
