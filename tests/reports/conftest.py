"""Made-up results: trials as a runner would store them, and their summary by the contract of summary.json."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kintsugi.harness.records import Count, Halt, Human, Measures, Repeats, Times, TrialResult, Usage

SUTS = {"minimal+optimized": 0.0, "minimal+naive": 0.02, "naive+optimized": 0.35, "naive+naive": 0.5}
"""Each SUT × chain, with how often it breaks under a fault."""
CLASSES = {
    "finance": ("customer_refund", "expense_batch", "invoice_payment"),
    "marketing": ("campaign_launch", "lead_follow_up"),
    "research": ("competitor_brief", "literature_review"),
    "data": ("partition_backfill", "subject_access_export"),
}
FAULTS = {
    "worker_kill": ("execution", "before", "at_boundary"),
    "tool_timeout": ("execution", "during", "once"),
    "partial_side_effect": ("side-effect", "committed", "reset"),
    "malformed_output": ("semantic", "during", "truncated"),
    "stale_data": ("semantic", "waiting", "drift"),
    "approval_delay": ("execution", "waiting", "late"),
}
FAULT_TEXTS = {
    name: {"layer": layer, "what": f"What {name} does.", "witness": f"How {name} was seen."}
    for name, (layer, _, _) in FAULTS.items()
}
ENVIRONMENT = {
    "kintsugi": "0.1.0",
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "cpus": 2,
    "packages": {"aiohttp": "3.12.0", "jinja2": "3.1.6"},
}
BREAKS = (
    ("corrupted", "payment.create ran 2 times for invoice INV-1042, expected 1 (request 17)"),
    ("lost", "no end report before the deadline of 90 s; last boundary tool:pay[0]#1"),
    ("failed", "worker ended with code 1: KeyError: 'approval'"),
    ("needless_halt", "asked a person about step pay, although its tool takes a key"),
)


def make_trial(**changes: Any) -> TrialResult:
    """One trial that ended well; `changes` says what was different."""
    plain = TrialResult(
        id="minimal+optimized~finance/invoice_payment~worker_kill.at_boundary@tool:pay[0]#1@before~s7",
        kind="fault",
        sut="minimal",
        chain="optimized",
        workflow="finance/invoice_payment",
        workflow_class="finance",
        seed=7,
        variance="none",
        fault="worker_kill",
        form="at_boundary",
        points=("tool:pay[0]#1@before",),
        phase="before",
        layer="execution",
        dealt_with_by="engine",
        weight=1.0,
        injection="witnessed",
        verdict="correct",
        reason="every expected effect, once",
        resumed_exactly=True,
        measures=Measures(
            selection_proposed=Count(4, 4),
            arguments_proposed=Count(9, 9),
            calls_proposed=Count(4, 4),
            selection_reached=Count(4, 4),
            calls_reached=Count(4, 4),
            arguments_reached=Count(9, 9),
            unsafe_proposed=Count(0, 2),
            unsafe_reached=Count(0, 2),
            trajectory_in_order=Count(1, 1),
            trajectory_exact=Count(1, 1),
            trajectory_any_order=Count(1, 1),
        ),
        usage=Usage(6, 8000, 900, 9, 0.012, 0.4),
        repeats=Repeats(0, 1, 0),
        human=Human(1, 0, 1, 0, (4.5,)),
        times=Times(2.5, 0.6, 0.8, 1.9),
        review_minutes=4.0,
        repair_minutes=30.0,
        trial={"kind": "fault"},
    )
    return replace(plain, **changes)


def make_results(suts: Iterable[str] = SUTS, seed: int = 7) -> list[TrialResult]:
    """A whole run: baselines, clean trials, faults with some breakages, kills after a response, recovery times."""
    rng = random.Random(seed)
    found: list[TrialResult] = []
    for key in suts:
        sut, _, chain = key.partition("+")
        breaks = SUTS.get(key, 0.1)
        cells = [(group, f"{group}/{name}") for group, names in CLASSES.items() for name in names]
        for group, workflow in cells:
            who = {"sut": sut, "chain": chain, "workflow": workflow, "workflow_class": group, "seed": seed}
            calm = {"fault": "", "form": "", "points": (), "phase": "", "layer": "", "injection": "none"}
            for kind, count in (("baseline", 1), ("clean", 3)):
                for number in range(count):
                    good = rng.random() > breaks / 6
                    ended = {"verdict": "correct", "reason": "every expected effect, once"}
                    if not good:
                        ended = {"verdict": "failed", "reason": "the model's budget of malformed replies is spent"}
                    name = f"{key}~{workflow}~{kind}~s{seed + number}"
                    found.append(
                        make_trial(**who, **calm, **ended, id=name, kind=kind, resumed_exactly=None)
                    )
            for fault, (layer, phase, form) in FAULTS.items():
                strikes = [(form, phase, number) for number in range(4)]
                if fault == "worker_kill":
                    strikes += [(f"after_{ms}ms", "after", number) for ms in (0, 1, 5, 20) for number in range(2)]
                for how, when, number in strikes:
                    found.append(_struck(rng, breaks, key, who, fault, how, when, layer, number))
            name = f"{key}~{workflow}~worker_kill.at_boundary@tool:pay[0]#1@before~timing~s{seed}"
            slow = 1.0 + rng.random() * (4.0 if sut == "naive" else 0.6)
            times = Times(2.0 + slow, 0.3 * slow, 0.5 * slow, 1.4 * slow)
            found.append(make_trial(**who, id=name, kind="timing", times=times))
    return found


def _struck(
    rng: random.Random,
    breaks: float,
    key: str,
    who: dict[str, Any],
    fault: str,
    form: str,
    phase: str,
    layer: str,
    number: int,
) -> TrialResult:
    point = f"tool:pay[{number}]#1@{phase}"
    changes: dict[str, Any] = {
        **who,
        "id": f"{key}~{who['workflow']}~{fault}.{form}@{point}~s{who['seed']}",
        "fault": fault,
        "form": form,
        "points": (point,),
        "phase": phase,
        "layer": layer,
    }
    draw = rng.random()
    if draw < breaks:
        verdict, reason = BREAKS[rng.randrange(len(BREAKS))]
        changes |= {"verdict": verdict, "reason": reason, "resumed_exactly": False}
    elif draw > 0.985:
        changes |= {"injection": "not_exposed", "verdict": None, "reason": "the point was never reached"}
    elif draw > 0.98:
        changes |= {"injection": "invalid_injection", "verdict": None, "reason": "the worker exited by itself"}
    elif fault == "partial_side_effect" and number == 0:
        halt = Halt("in_doubt", "pay", justified=True, why="the tool is opaque")
        changes |= {"verdict": "correct_halt", "reason": "one justified halt", "human": Human(halts=(halt,))}
    return make_trial(**changes)


def rate(k: int, n: int, **more: Any) -> dict[str, Any] | None:
    """A rate of summary.json. The interval is a rough one: these tests are about showing it."""
    if n == 0:
        return None
    wide = 1.0 / n**0.5
    low, high = max(0.0, k / n - wide), min(1.0, k / n + wide / 2)
    return {"k": k, "n": n, "rate": k / n, "ci95": [low, high], "basis": "sampled", **more}
