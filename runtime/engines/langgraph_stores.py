"""Where LangGraph keeps the checkpoints of a trial: a SQLite file in its state directory, or a PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from kintsugi.runtime.engines.databases import Databases

__all__ = ["PostgresStore", "SqliteStore", "Store"]

Saver = BaseCheckpointSaver[Any]

BUSY_SECONDS = 30.0
"""How long SQLite waits for a lock that another worker holds."""
CONNECTIONS_MAX = 4


class Store(Protocol):
    """The checkpoints of trials, each told by its state directory."""

    def make(self, state_dir: str) -> None:
        """Make them ready for use, with none in them."""
        ...

    def drop(self, state_dir: str) -> None:
        """Remove what is not in the state directory."""
        ...

    def reader(self, state_dir: str) -> AbstractContextManager[Saver]:
        """A saver for a client that looks at a run's state."""
        ...

    def writer(self, state_dir: str) -> AbstractAsyncContextManager[Saver]:
        """A saver for a worker."""
        ...


class SqliteStore:
    """A file in the state directory; `tuned`, or with a saver as it comes."""

    def __init__(self, *, tuned: bool) -> None:
        self._tuned = tuned

    def make(self, state_dir: str) -> None:
        """Make the file and its tables; the savers put it into WAL mode."""
        with SqliteSaver.from_conn_string(self._path(state_dir)) as saver:
            saver.setup()

    def drop(self, state_dir: str) -> None:
        """Nothing is left of it outside the state directory."""

    @contextmanager
    def reader(self, state_dir: str) -> Iterator[Saver]:
        """A saver on a connection of its own."""
        with SqliteSaver.from_conn_string(self._path(state_dir)) as saver:
            yield saver

    @asynccontextmanager
    async def writer(self, state_dir: str) -> AsyncIterator[Saver]:
        """A saver on a connection of its own; tuned, its commits are on the disk when they return."""
        if not self._tuned:
            async with AsyncSqliteSaver.from_conn_string(self._path(state_dir)) as saver:
                yield saver
            return
        async with aiosqlite.connect(self._path(state_dir), timeout=BUSY_SECONDS) as connection:
            await connection.execute("PRAGMA synchronous=FULL")
            yield AsyncSqliteSaver(connection)

    @staticmethod
    def _path(state_dir: str) -> str:
        return str(Path(state_dir, "checkpoints.sqlite"))


class PostgresStore:
    """A database for each trial, on the server that KINTSUGI_POSTGRES_URL names."""

    def __init__(self) -> None:
        self._databases = Databases()

    def make(self, state_dir: str) -> None:
        """Make the database, with the saver's tables: they are set up once, and copied."""
        self._databases.make(state_dir, _set_up)

    def drop(self, state_dir: str) -> None:
        """Drop the database, whoever is still connected to it."""
        self._databases.drop(state_dir)

    @contextmanager
    def reader(self, state_dir: str) -> Iterator[Saver]:
        """A saver on a connection of its own."""
        with _saver(self._databases.url(state_dir)) as saver:
            yield saver

    @asynccontextmanager
    async def writer(self, state_dir: str) -> AsyncIterator[Saver]:
        """A saver on a pool of connections, which replaces those that break."""
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg import AsyncConnection
        from psycopg.rows import DictRow, dict_row
        from psycopg_pool import AsyncConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            self._databases.url(state_dir), min_size=1, max_size=CONNECTIONS_MAX, kwargs=options, open=False
        )
        async with pool:
            yield AsyncPostgresSaver(pool)


@contextmanager
def _saver(url: str) -> Iterator[Any]:
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(url) as saver:
        yield saver


def _set_up(url: str) -> None:
    with _saver(url) as saver:
        saver.setup()
