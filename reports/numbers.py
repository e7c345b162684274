"""Reads numbers out of a summary and writes them for people. One that is missing is a dash, never made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "DASH",
    "Rate",
    "count",
    "hours",
    "listed",
    "number",
    "of",
    "percent",
    "pick",
    "rate",
    "seconds",
    "share",
    "table",
    "usd",
    "usd_interval",
]

DASH = "–"

_MINUTE = 60.0
_HOUR = 3600.0
_DIME = 0.1
_TEN = 10.0
_MILLICENT = 0.00001
_THOUSAND = 1000.0


@dataclass(frozen=True)
class Rate:
    """k of n, with its 95% interval where trials were sampled; an exhaustive rate has none."""

    k: float
    n: float
    value: float
    low: float | None = None
    high: float | None = None
    trials: float = 0.0
    """How many independent trials it rests on: n, or fewer where calls are counted."""

    @property
    def counts(self) -> str:
        """``k/n``, always shown beside the rate."""
        return f"{self.k:g}/{self.n:g}"

    @property
    def text(self) -> str:
        """The rate as a percentage."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """The interval as ``93.0–100%``, or ``exhaustive``."""
        if self.low is None or self.high is None:
            return "exhaustive"
        return f"{percent(self.low).removesuffix('%')}–{percent(self.high)}"


def pick(data: object, *path: str) -> Any:
    """What stands at `path` in nested mappings, or None where any part of it is missing."""
    for name in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(name)
    return data


def table(data: object, *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, or an empty one."""
    found = pick(data, *path)
    return found if isinstance(found, Mapping) else {}


def listed(data: object, *path: str) -> list[Any]:
    """The list at `path`, or an empty one."""
    found = pick(data, *path)
    return list(found) if isinstance(found, list | tuple) else []


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rate(value: object) -> Rate | None:
    """A rate of the summary's form, or None where it is missing, of no trials, or not of that form."""
    k, n = number(pick(value, "k")), number(pick(value, "n"))
    if k is None or not n:
        return None
    given = number(pick(value, "rate"))
    ends = pick(value, "ci95")
    low, high = (number(ends[0]), number(ends[1])) if isinstance(ends, list | tuple) and len(ends) > 1 else (None,) * 2
    trials = number(pick(value, "trials"))
    return Rate(k, n, k / n if given is None else given, low, high, n if trials is None else trials)


def of(k: float, n: float) -> str:
    """``k of n``, for sentences."""
    return f"{k:g} of {n:g}"


def percent(value: object) -> str:
    """A share as a percentage with one decimal. Never rounded up to 100% or down to 0%."""
    share = number(value)
    if share is None:
        return DASH
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if 0.0 < share < 1.0:
        share = min(max(share, 0.001), 0.999)
    return f"{share:.1%}"


def share(k: float, n: float) -> str:
    """What `k` of `n` is as a percentage; a dash where n is 0."""
    return percent(k / n) if n else DASH


def usd(value: object) -> str:
    """Money with as many digits as matter: $0.0707, $1.84, $1,250."""
    amount = number(value)
    if amount is None:
        return DASH
    if amount == 0.0:
        return "$0"
    size = abs(amount)
    if size < _MILLICENT:
        return "< $0.00001"
    if amount == int(amount) and size >= 1.0:
        return f"{'−' if amount < 0 else ''}${size:,.0f}"
    digits = 5 if size < _DIME / _TEN else 4 if size < 1.0 else 2 if size < _THOUSAND else 0
    return f"{'−' if amount < 0 else ''}${size:,.{digits}f}"


def usd_interval(ends: object) -> str:
    """An interval of money; empty where it is missing, half missing, or a single amount."""
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return ""
    low, high = map(usd, ends)
    return "" if DASH in {low, high} or low == high else f"{low}–{high}"


def count(value: object, digits: int = 0) -> str:
    """A number with its thousands apart."""
    found = number(value)
    return DASH if found is None else f"{found:,.{digits}f}"


def seconds(value: object) -> str:
    """A duration: 0.61 s, 12.3 s, 3 min 5 s, 4.5 h."""
    length = number(value)
    if length is None:
        return DASH
    if length < _TEN:
        return f"{length:.2f} s"
    if length < 2 * _MINUTE:
        return f"{length:.1f} s"
    if round(length) < _HOUR:
        return "{} min {} s".format(*divmod(round(length), 60))
    return hours(length / _HOUR)


def hours(value: object) -> str:
    """A number of hours."""
    length = number(value)
    return DASH if length is None else f"{length:,.1f} h"
