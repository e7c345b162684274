"""DBOS Transact, a library that keeps its state in SQLite or PostgreSQL; as it should be set, and as it comes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from kintsugi.harness.adapters.adapter import DISTRIBUTION, Adapter, Unavailable
from kintsugi.harness.adapters.postgres import URL, PostgresServer, found

__all__ = ["ADAPTERS", "SQLITE", "SUPERVISED", "found_sqlite"]

SIDE = "kintsugi.runtime.engines.dbos"
SQLITE_MIN = (3, 42)

SUPERVISED = {
    "application_version": "pinned",
    "executor_id": "the node's name",
    "queue polling_interval_sec": "0.1",
    "notification_listener_polling_interval_sec": "0.1",
    "enable_otlp": "False",
    "steps": "retries_allowed, max_attempts and interval_seconds of the plan's policy, backoff_rate 2",
    "recv timeout_seconds": "30 days, again and again",
    "lost workers": "found by the plain supervisor within 2 s, their runs resumed with DBOS.resume_workflow",
}
SQLITE = {"system_database_url": "SQLite, journal_mode WAL (its synchronous is FULL)"}


def found_sqlite() -> str:
    """The SQLite that DBOS is given: Python's own, or a newer one of its extra. Raises Unavailable."""
    own = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= SQLITE_MIN:
        return f"SQLite {own}"
    try:
        import pysqlite3
    except ImportError:
        needed = ".".join(map(str, SQLITE_MIN))
        raise Unavailable(
            f"dbos: Python's SQLite is version {own}, {needed} is needed; "
            f"pip install '{DISTRIBUTION}[dbos]' brings one on x86_64 Linux"
        ) from None
    return f"SQLite {pysqlite3.sqlite_version}"


_TUNED = Adapter(
    name="dbos",
    about="DBOS Transact on SQLite: runs are workflows on a durable queue, lost workers' runs resumed by a supervisor.",
    side=f"{SIDE}:TUNED",
    decisions="push",
    fails_over=True,
    failed_over_by="supervisor",
    profile="tuned",
    extra="dbos",
    settings=SQLITE | SUPERVISED,
    check=found_sqlite,
)

ADAPTERS: tuple[Adapter, ...] = (
    _TUNED,
    Adapter(
        name="dbos_default",
        about="DBOS Transact as its quick-start has it: SQLite, a queue and steps with default settings; no fail-over.",
        side=f"{SIDE}:DEFAULT",
        decisions="push",
        fails_over=False,
        profile="default",
        extra="dbos",
        settings={
            "system_database_url": "SQLite, as DBOS makes it (journal_mode DELETE)",
            "application_version": "pinned",
            "executor_id": "local, the default",
            "queue polling_interval_sec": "1, the default",
            "notification_listener_polling_interval_sec": "1, the default",
            "steps": "retries_allowed False, the default",
            "recv timeout_seconds": "60, the default: 25 days of the workflow's time",
        },
        check=found_sqlite,
    ),
    replace(
        _TUNED,
        name="dbos_postgres",
        about="DBOS Transact on PostgreSQL, otherwise as on SQLite: a durable queue, and a supervisor.",
        side=f"{SIDE}:POSTGRES",
        settings={
            "system_database_url": "PostgreSQL, fsync and synchronous_commit on",
            "use_listen_notify": "True, the default",
            "sys_db_idle_transaction_timeout_sec": "2",
        }
        | SUPERVISED,
        server=PostgresServer,
        store_address=URL,
        check=found,
        retires=True,
    ),
)
