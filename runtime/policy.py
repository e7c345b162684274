"""The part of a plan's policy that the runtime keeps: budgets, time-outs, and what happens to a repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kintsugi.runtime.rules import Budget

__all__ = ["Policy"]

REPEAT_WRITES = ("refuse", "allow")


@dataclass(frozen=True)
class Policy:
    """Real seconds, never scaled. A plan's policy may hold more than this; the rest is the chain's affair."""

    tool_timeout_seconds: float = 2.0
    model_timeout_seconds: float = 5.0
    attempts: int = 4
    """Attempts of one durable call, before a person is asked."""
    backoff_base_seconds: float = 0.05
    backoff_cap_seconds: float = 2.0
    malformed_attempts: int = 4
    """Asks of one model call whose replies may be rejected, before a person is asked."""
    model_calls_max: int = 60
    """Asks of the model in the whole run, before a person is asked."""
    tool_concurrency: int = 8
    """Calls of one tool, or of the model, that a worker has under way at once."""
    repeat_writes: str = "refuse"
    """``refuse`` or ``allow`` a write that was already done in this run with the same arguments."""

    @property
    def budget(self) -> Budget:
        """The budget of one durable call."""
        return Budget(self.attempts, self.backoff_base_seconds, self.backoff_cap_seconds)

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> Policy:
        """What the plan says, defaults for the rest. Raises ValueError naming the key and what is allowed."""
        said = plan.get("policy", {})
        given = {field.name: said[field.name] for field in fields(cls) if field.name in said}
        for key, value in given.items():
            allowed = _allowed(key, value)
            if allowed:
                raise ValueError(f"policy.{key} is {value!r}; allowed: {allowed}")
        return cls(**given)


def _allowed(key: str, value: object) -> str:
    """What a key may be, in words, where `value` is something else; empty where it is fine."""
    if key == "repeat_writes":
        return "" if value in REPEAT_WRITES else " or ".join(REPEAT_WRITES)
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
    if isinstance(getattr(Policy, key), int):
        return "" if isinstance(number, int) and number >= 1 else "a whole number from 1"
    if key.startswith("backoff"):
        return "" if number >= 0 else "a number from 0"
    return "" if number > 0 else "a number above 0"
