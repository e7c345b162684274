"""LangGraph: a library, with its checkpoints in SQLite or PostgreSQL, under the plain supervisor."""

from __future__ import annotations

from dataclasses import replace

from kintsugi.harness.adapters import postgres
from kintsugi.harness.adapters.adapter import Adapter

__all__ = ["ADAPTERS"]

SIDE = "kintsugi.runtime.engines.langgraph"
SUPERVISOR = {
    "supervisor": "plain: claims in files, a beat every 0.25 s, another worker takes over after 2 s without one",
}
TUNED = {
    "workflow": "StateGraph, every durable call a node and so a super-step",
    "durability": "sync",
    "retry_policy": "retry_on=TryAgain; max_attempts, initial_interval and max_interval of the plan's policy; "
    "backoff_factor 2, jitter False; Retry-After is waited for in the node",
    "error_handler": "records that the retries are spent; a person is asked",
    "approvals": "interrupt() in a node of its own, Command(resume=…)",
    "at most once": "a mark in a super-step before; after a crash a person is asked",
    **SUPERVISOR,
}

LANGGRAPH = Adapter(
    name="langgraph",
    about="LangGraph: a graph whose durable calls are super-steps, durability sync, checkpoints in SQLite.",
    side=f"{SIDE}:TUNED",
    decisions="push",
    fails_over=True,
    resumes="supervisor",
    failed_over_by="supervisor",
    profile="tuned",
    extra="langgraph",
    settings={**TUNED, "checkpointer": "AsyncSqliteSaver; WAL, synchronous=FULL, busy time-out 30 s"},
    # Its tracing would otherwise be switched on by what a user has in the environment.
    environment={"LANGSMITH_TRACING": "false"},
)

ADAPTERS: tuple[Adapter, ...] = (
    LANGGRAPH,
    replace(
        LANGGRAPH,
        name="langgraph_default",
        about="LangGraph as the functional API's pages have it: an entrypoint with tasks, default durability (async).",
        side=f"{SIDE}:DEFAULT",
        profile="default",
        fails_over=False,
        settings={
            "workflow": "@entrypoint, every durable call a @task",
            "durability": "not set: async",
            "retry_policy": "none, as by default: a task is tried once",
            "approvals": "interrupt() in the entrypoint, Command(resume=…)",
            "idempotency keys": "a new one for each attempt, as a client library makes it",
            "checkpointer": "AsyncSqliteSaver.from_conn_string, as it comes",
            "supervisor": "plain: invokes a worker's runs again when it is started again",
        },
    ),
    replace(
        LANGGRAPH,
        name="langgraph_postgres",
        about="LangGraph: a graph whose durable calls are super-steps, durability sync, checkpoints in PostgreSQL.",
        side=f"{SIDE}:TUNED_POSTGRES",
        settings={
            **TUNED,
            "checkpointer": "AsyncPostgresSaver on a pool of up to 4 connections; fsync and synchronous_commit on",
        },
        retires=True,
        server=postgres.PostgresServer,
        store_address=postgres.URL,
        check=postgres.found,
    ),
)
