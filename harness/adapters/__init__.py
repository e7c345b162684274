"""The adapters: how the harness drives each SUT. One file for each, and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from kintsugi.harness.adapters import dbos, langgraph, minimal, naive, pydantic_ai, restate, temporal
from kintsugi.harness.adapters.adapter import Adapter, Unavailable

__all__ = ["ADAPTERS", "Adapter", "Unavailable"]

ADAPTERS: Mapping[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        minimal.ADAPTER,
        naive.ADAPTER,
        *langgraph.ADAPTERS,
        *dbos.ADAPTERS,
        *temporal.ADAPTERS,
        *restate.ADAPTERS,
        *pydantic_ai.ADAPTERS,
    )
}
"""Every SUT by its name."""
