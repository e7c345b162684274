"""The adapters: how the harness drives each SUT. One file for each, and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from kintsugi.harness.adapters import minimal, naive
from kintsugi.harness.adapters.adapter import Adapter, Unavailable

__all__ = ["ADAPTERS", "POLLING", "Adapter", "Unavailable"]

ADAPTERS: Mapping[str, Adapter] = {module.ADAPTER.name: module.ADAPTER for module in (minimal, naive)}
"""Every SUT by its name."""

POLLING = frozenset(name for name, adapter in ADAPTERS.items() if adapter.decisions == "poll")
"""The SUTs that fetch decisions by themselves."""
