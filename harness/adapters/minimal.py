"""Kintsugi's own minimal durable runtime."""

from __future__ import annotations

from kintsugi.harness.adapters.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    name="minimal",
    about="Kintsugi's minimal durable runtime: replay over a journal in SQLite, leases with fencing.",
    side="kintsugi.runtime.minimal",
    decisions="push",
    fails_over=True,
    operator=True,
    settings={
        "journal": "SQLite, WAL, synchronous=FULL; commits of several workflows in one",
        "failure detection": "lease of 2 s; a process of this machine that is gone is seen at once, by its file lock",
        "retries": "the plan's policy, with full jitter and Retry-After; a circuit breaker for each tool",
        "at most once": "an intent in the journal before the call; after a crash a person is asked",
    },
)
