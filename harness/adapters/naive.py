"""A plain script without a durable runtime, begun again from the top by its supervisor."""

from __future__ import annotations

from kintsugi.harness.adapters.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    name="naive",
    about="A plain script: time-outs and retries, state in memory, restarted from the top after a crash; no fail-over.",
    side="kintsugi.runtime.engines.naive",
    decisions="poll",
    fails_over=False,
    resumes="script",
    submit_first=True,
)
