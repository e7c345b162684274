"""Reads one figure, with its interval and n, out of a summary. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kintsugi.harness.rates import share
from kintsugi.harness.thresholds import METRICS, Line, Metric

__all__ = ["Reading", "block_of", "keys", "read"]

Block = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """A measured figure, its interval where it has one, and on how many trials it rests."""

    value: float
    """Infinite where it is without bound."""
    n: int
    text: str
    low: float | None = None
    high: float | None = None
    """None: no interval, or no bound on this side."""
    k: int = 0
    exhaustive: bool = False


def keys(summary: Block) -> list[str]:
    """``sut+chain`` of everything in a summary."""
    return [f"{block['sut']}+{block['chain']}" for block in summary["suts"].values()]


def block_of(summary: Block, sut: str) -> Block | None:
    """The block of a SUT, by its key in the summary or by sut+chain."""
    for key, block in summary["suts"].items():
        if sut in {key, f"{block['sut']}+{block['chain']}"}:
            found: Block = block
            return found
    return None


def read(line: Line, name: str, summary: Block) -> Reading | None:
    """What a summary says of a line's metric, SUT and fault in class `name`; None where it says nothing."""
    metric = METRICS[line.metric]
    block = block_of(summary, line.sut)
    if block is None or name not in block["classes"]:
        return None
    cell = block["classes"][name]
    if metric.kind == "rate":
        return _rate(line, name, block, cell)
    if metric.kind == "saving":
        return _saving(line, metric, name, summary)
    return {"cost": _cost, "seconds": _seconds, "number": _storm}[metric.kind](metric, cell)


def _rate(line: Line, name: str, block: Block, cell: Block) -> Reading | None:
    if line.metric in {"fault_recovery_rate", "unattended_recovery_rate"}:
        rate = block["faults"].get(line.fault, {}).get(name) if line.fault else cell["fault_recovery_rate"]
    else:
        rate = cell.get(line.metric)
    if line.metric == "unattended_recovery_rate" and rate is not None:
        rate = share(rate["unattended"], rate["n"], rate["basis"])
    if line.metric == "coverage":
        rate = share(rate["covered"], rate["total"], "exhaustive") if rate["total"] else None
    if rate is None:
        return None
    low, high = rate["ci95"] or (None, None)
    of = f"{rate['k']}/{rate['n']}"
    text = f"{rate['rate']:.1%} ({of}, exhaustive)"
    if rate["ci95"]:
        text = f"{rate['rate']:.1%} ({of}; 95%: {low:.1%} to {high:.1%})"
    n = rate.get("trials", rate["n"])
    return Reading(rate["rate"], n, text, low, high, rate["k"], rate["basis"] == "exhaustive")


def _cost(metric: Metric, cell: Block) -> Reading | None:
    block, figure = cell[metric.path[0]], metric.path[1]
    if block[figure] is None:
        return None
    low, high = (block["machine_ci95"] if figure == "machine" else None) or (None, None)
    text = f"${block[figure]:.4f} ({block['successes']} of {block['trials']} ended correctly)"
    return Reading(block[figure], block["trials"], text, low, high)


def _seconds(metric: Metric, cell: Block) -> Reading | None:
    found = cell
    for part in metric.path[:-1]:
        found = found[part]
    if not found["n"]:
        return None
    seconds = found[metric.path[-1]]
    shown = "never" if seconds is None else f"{seconds:.2f} s"
    text = f"{shown} ({found['reached']} of {found['n']} got there)"
    return Reading(math.inf if seconds is None else seconds, found["n"], text)


def _storm(metric: Metric, cell: Block) -> Reading | None:
    storms = cell["storms"]
    if storms is None:
        return None
    value, n = storms[metric.path[-1]], storms["within_bounds"]["n"]
    return Reading(value, n, f"{value:{'.1f' if not value or value >= 1 else '.4f'}} ({n} storms)")


def _saving(line: Line, metric: Metric, name: str, summary: Block) -> Reading | None:
    sut, against = (_key(summary, key) for key in (line.sut, line.against))
    condition = "under_faults" if metric.under_faults else "clean"
    wanted = {"class": name, "condition": condition, "sut": sut, "against": against}
    for row in summary["cost_comparisons"]:
        if wanted.items() <= row.items() and row["saving"] is not None:
            # A ratio's upper end is the saving's lower one.
            low, high = (None if end is None else 1 - end for end in reversed(row["ci95"] or (None, None)))
            costs = f"${row['machine']:.4f} against ${row['machine_against']:.4f}"
            text = f"{row['saving']:.1%} ({costs}, {row['pairs']} pairs)"
            return Reading(row["saving"], row["pairs"], text, low, high)
    return None


def _key(summary: Block, sut: str) -> str:
    block = block_of(summary, sut)
    return f"{block['sut']}+{block['chain']}" if block else sut
