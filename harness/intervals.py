"""How sure a rate is: intervals, and how many trials a claim needs. Pure; every random draw is seeded.

scipy and numpy are imported where they are used, so that a command that measures nothing starts fast.
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = [
    "DRAWN_MIN",
    "Interval",
    "clopper_pearson",
    "cluster_bootstrap",
    "cost_bootstrap",
    "cost_difference_bootstrap",
    "cost_ratio_bootstrap",
    "trials_needed",
]

Interval = tuple[float, float]

RESAMPLES = 2000
"""Fifty draws beyond each end of a 95% interval."""
DRAWN_MIN = 5
"""Fewer runs or pairs have no interval of their cost: what two, three or four have in common may well be chance.

Drawn again, n of them make C(2n - 1, n) different samples (Hall, The Bootstrap and Edgeworth Expansion, 1992, appendix
I): one makes 1, four make 35, five 126, the fewest of which a fortieth at each end is more than one.
"""


@lru_cache(maxsize=65536)
def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval of a proportion: `k` of `n` independent trials.

    Clopper and Pearson, Biometrika 26 (1934): the ends are quantiles of Beta(k, n-k+1) and Beta(k+1, n-k).
    It covers the truth at least as often as `confidence` says. ValueError unless 0 <= k <= n and n > 0.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n} is no proportion")
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def trials_needed(target: float, *, sided: int = 1, failures: int = 0, confidence: float = 0.95) -> int:
    """The smallest n of independent trials, `failures` among them, that shows a rate of at least `target`.

    `sided` 1: by the one-sided lower bound (299 for 0.99, 2,995 for 0.999, without a failure). `sided` 2: by
    the lower end of the two-sided interval, which is what the gate's interval mode asks (368, 3,688). From
    Clopper and Pearson's bound: P(at most `failures` failures | n, 1 - target) <= the tail's probability.
    """
    if not 0 < target < 1:
        raise ValueError(f"a target must lie between 0 and 1, found {target}")
    if sided not in {1, 2}:
        raise ValueError(f"a bound has 1 or 2 sides, found {sided}")
    tail = (1 - confidence) / sided
    if failures == 0:
        return math.ceil(math.log(tail) / math.log(target))
    from scipy.special import bdtr

    low = high = failures + 1
    while bdtr(failures, high, 1 - target) > tail:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if bdtr(failures, middle, 1 - target) > tail:
            low = middle + 1
        else:
            high = middle
    return high


def cluster_bootstrap(clusters: Sequence[tuple[int, int]], *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The interval of a rate per call, where the calls (k, n) of one trial stand or fall together.

    Whole trials are drawn again, with replacement (Davison and Hinkley, Bootstrap Methods, 1997, §3.8). Where few
    calls, or none, fail, that shows less spread than there may be, so the interval is never narrower than Clopper and
    Pearson's over the trials, of which as many are successes as their rates add up to, rounded outwards: of what lies
    between 0 and 1 with a given mean, nothing varies more than what is 0 or 1 (Hoeffding, JASA 58, 1963). So one
    wrong call never leaves a rate surer than none does. The order of the clusters does not matter.
    """
    counted = [(k, n) for k, n in clusters if n]
    k, n = sum(k for k, _ in counted), sum(n for _, n in counted)
    if n == 0:
        raise ValueError("no calls, no rate")
    # Exactly, so that ten times a tenth is one.
    good = sum((Fraction(k, n) for k, n in counted), Fraction())
    low = clopper_pearson(math.floor(good), len(counted), confidence)[0]
    high = clopper_pearson(math.ceil(good), len(counted), confidence)[1]
    if k in {0, n}:
        return low, high
    drawn = _draw_again(counted, seed)
    ends = _ends(drawn[:, 0] / drawn[:, 1], confidence)
    return min(ends[0], low), max(ends[1], high)


def cost_bootstrap(
    runs: Sequence[tuple[float, float]], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float | None] | None:
    """The interval of a cost per success, over runs of (cost, successes); None of fewer than DRAWN_MIN runs.

    An end of None: without bound.
    """
    if len(runs) < DRAWN_MIN:
        return None
    drawn = _draw_again(runs, seed)
    return _bounded(_per_success(drawn[:, 0], drawn[:, 1]), confidence)


def cost_ratio_bootstrap(
    pairs: Sequence[tuple[float, float, float, float]], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float | None] | None:
    """The interval of one cost per success over another, over pairs of (cost, successes, cost, successes).

    None of fewer than DRAWN_MIN pairs. Pairs are drawn again whole, so that what both have in common (workflow,
    schedule, seed) cancels. A draw in which the first has no success is infinitely dear; an upper end of None is
    without bound.
    """
    if len(pairs) < DRAWN_MIN:
        return None
    import numpy as np

    drawn = _draw_again(pairs, seed)
    first, second = _per_success(drawn[:, 0], drawn[:, 1]), _per_success(drawn[:, 2], drawn[:, 3])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = first / second
    return _bounded(ratios[~np.isnan(ratios)], confidence)


def cost_difference_bootstrap(
    pairs: Sequence[tuple[float, float, float, float]], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float | None, float | None] | None:
    """The interval of the second cost per success less the first, over pairs of (cost, successes, cost, successes).

    None of fewer than DRAWN_MIN pairs. Drawn as the ratio's interval is, with the same draws for the same seed: what is
    above 0 is saved. An end of None is without bound, as where one side has no success in many draws.
    """
    if len(pairs) < DRAWN_MIN:
        return None
    import numpy as np

    drawn = _draw_again(pairs, seed)
    first, second = _per_success(drawn[:, 0], drawn[:, 1]), _per_success(drawn[:, 2], drawn[:, 3])
    with np.errstate(invalid="ignore"):
        differences = second - first
    known = differences[~np.isnan(differences)]
    if not len(known):
        return None, None
    low, high = _ends(known, confidence)
    return (None if math.isinf(low) else low), (None if math.isinf(high) else high)


def _draw_again(rows: Sequence[tuple[float, ...]], seed: int) -> Array:
    """The column sums of each resample: as many rows as there are, drawn with replacement.

    Equal rows are drawn as one kind, so the order of rows does not matter, and many trials with few outcomes
    cost little.
    """
    import numpy as np

    if not rows:
        raise ValueError("nothing to draw from")
    kinds = sorted(Counter(rows).items())
    drawn = _drawn(tuple(times for _, times in kinds), seed)
    sums: Array = drawn @ np.asarray([row for row, _ in kinds], dtype=float)
    return sums


@lru_cache(maxsize=8)
def _drawn(times: tuple[int, ...], seed: int) -> Array:
    """How often each kind of row is drawn in each resample. The same trials are drawn again for several figures."""
    import numpy as np

    rows = sum(times)
    drawn: Array = np.random.default_rng(seed).multinomial(rows, np.asarray(times) / rows, size=RESAMPLES)
    return drawn


def _per_success(cost: Array, successes: Array) -> Array:
    """Infinite where there was no success."""
    import numpy as np

    costs: Array = np.divide(cost, successes, out=np.full(len(cost), np.inf), where=successes > 0)
    return costs


def _ends(values: Array, confidence: float) -> Interval:
    """The percentile interval, of values that were drawn: no interpolation, as some may be infinite."""
    import numpy as np

    tail = (1 - confidence) / 2
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def _bounded(values: Array, confidence: float) -> tuple[float, float | None]:
    if not len(values):
        return 0.0, None
    low, high = _ends(values, confidence)
    return (0.0 if math.isinf(low) else low), (None if math.isinf(high) else high)
