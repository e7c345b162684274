"""The chains: how an agent works through a plan, written once against the durable context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kintsugi.golden_workflows.chains import naive, optimized
from kintsugi.runtime.protocol import DurableContext

__all__ = ["CHAINS", "Chain"]

Chain = Callable[[DurableContext, Mapping[str, Any]], Awaitable[str]]

CHAINS: Mapping[str, Chain] = {"naive": naive.run, "optimized": optimized.run}
"""Every chain by its name; each returns a line that says how the run ended."""
