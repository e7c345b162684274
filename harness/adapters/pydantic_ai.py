"""pydantic-ai's own agent, made durable on DBOS as its documentation says."""

from __future__ import annotations

from kintsugi.harness.adapters.adapter import Adapter
from kintsugi.harness.adapters.dbos import SQLITE, SUPERVISED, found_sqlite

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="pydantic_ai",
        about="An agent no one here wrote: pydantic-ai's, with its capability for DBOS; only its tools are ours.",
        side="kintsugi.runtime.engines.pydantic_ai:TUNED",
        decisions="push",
        fails_over=True,
        failed_over_by="supervisor",
        profile="tuned",
        own_chain=True,
        extra="pydantic-ai",
        settings={
            "agent": "Agent with DBOSDurability, retries 1 (the default) for a tool call or an answer that is no good",
            "model_step_config": "retries_allowed, max_attempts 6, interval_seconds 0.1, backoff_rate 2",
            "parallel_execution_mode": "sequential",
            "OpenAI client": "max_retries 0, time-out of the plan's policy",
            "UsageLimits request_limit": "the policy's model_calls_max",
        }
        | SQLITE
        | SUPERVISED,
        check=found_sqlite,
    ),
)
