"""Token counts that are estimated: what they are of, and what a provider would have had in its cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["ESTIMATE", "cached", "prompt_tokens", "tokens_of"]

ESTIMATE = "estimate: one token per four characters of JSON"
"""How tokens are counted where no provider counts them; the scorecard says so."""
CHARACTERS_PER_TOKEN = 4
CACHE_FROM_TOKENS = 1024
CACHE_STEP_TOKENS = 128


def tokens_of(value: Any) -> int:
    """The token estimate of a JSON value."""
    return max(1, round(len(json.dumps(value, ensure_ascii=False)) / CHARACTERS_PER_TOKEN))


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """The token estimate of a request's prompt: its messages, and its tools or the form of its answer."""
    return tokens_of(request["messages"]) + tokens_of(request.get("tools") or request.get("response_format"))


def cached(prompts: list[str], request: Mapping[str, Any]) -> int:
    """How many tokens of a prompt a provider would have had in its cache from an earlier prompt of the same run.

    The longest common prefix with any of them, in whole steps of 128 tokens and from 1,024 on, as OpenAI's guide to
    prompt caching has it; tools come before messages. Remembers the prompt.
    """
    prompt = json.dumps([request.get("tools") or request.get("response_format"), request["messages"]])
    tokens = max((_steps_in_common(prompt, earlier) for earlier in prompts), default=0) * CACHE_STEP_TOKENS
    prompts.append(prompt)
    return tokens if tokens >= CACHE_FROM_TOKENS else 0


def _steps_in_common(one: str, other: str) -> int:
    """How many whole steps two prompts begin with in common; compared step by step, which costs next to nothing."""
    size = CHARACTERS_PER_TOKEN * CACHE_STEP_TOKENS
    most = min(len(one), len(other)) // size
    starts = range(0, most * size, size)
    return next((n for n, at in enumerate(starts) if one[at : at + size] != other[at : at + size]), most)
