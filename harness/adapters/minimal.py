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
)
