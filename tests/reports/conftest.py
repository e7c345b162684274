"""Made-up results: trials as a runner would store them, and the summary that the harness measures."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.harness.metrics import measure
from kintsugi.harness.records import Count, Halt, Human, Measures, Repeats, Storm, Times, TrialResult, Usage
from kintsugi.reports.scorecard import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

BREAKS = {"minimal+optimized": 0.0, "minimal+naive": 0.02, "naive+optimized": 0.35, "naive+naive": 0.5}
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
    "retry_storm": ("execution", "during", "refused"),
}
FAULT_TEXTS = {
    name: {"layer": layer, "what": f"What {name} does.", "witness": f"How {name} was seen."}
    for name, (layer, _, _) in FAULTS.items()
}
ENVIRONMENT: dict[str, Any] = {
    "kintsugi": "0.1.0",
    "python": "3.11.7",
    "packages": {"aiohttp": "3.12.0"},
    "suts": {
        "minimal": {"about": "Kintsugi's own runtime.", "resumes": "engine", "failed_over_by": "engine"},
        "naive": {"about": "A plain script.", "resumes": "script", "failed_over_by": ""},
    },
}
ENDINGS = (
    ("corrupted", "payment.create ran 2 times for invoice INV-1042, expected 1 (request 17)"),
    ("lost", "no end report before the deadline; its own status says 'running'"),
    ("failed", "the run reported a failure: KeyError: 'approval'"),
    ("needless_halt", "halted at pay (in_doubt): payment.create can be repeated safely"),
)


@dataclass(frozen=True)
class Run:
    """A finished run, as the reports are given it."""

    summary: dict[str, Any]
    results: list[TrialResult]
    environment: dict[str, Any]
    fault_texts: dict[str, dict[str, str]]

    def write(self, folder: Path) -> Path:
        """The results folder that the runner would leave behind."""
        lines = [json.dumps(result.to_json()) + "\n" for result in self.results]
        (folder / "trials.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(self.summary), encoding="utf-8")
        (folder / "environment.json").write_text(json.dumps(self.environment), encoding="utf-8")
        return folder


def make_trial(**changes: Any) -> TrialResult:
    """A trial that ended well; `changes` says what was different."""
    once = Count(1, 1)
    measures = Measures(
        selection_proposed=Count(4, 4),
        arguments_proposed=Count(9, 9),
        calls_proposed=Count(4, 4),
        selection_reached=Count(4, 4),
        calls_reached=Count(4, 4),
        arguments_reached=Count(9, 9),
        unsafe_proposed=Count(0, 2),
        unsafe_reached=Count(0, 2),
        trajectory_in_order=once,
        trajectory_exact=once,
        trajectory_any_order=once,
    )
    plain: dict[str, Any] = {
        "id": "minimal+optimized~finance/invoice_payment~worker_kill.at_boundary@tool:pay[0]#1@before~s7",
        "kind": "fault",
        "sut": "minimal",
        "chain": "optimized",
        "workflow": "finance/invoice_payment",
        "workflow_class": "finance",
        "seed": 7,
        "variance": "none",
        "fault": "worker_kill",
        "form": "at_boundary",
        "points": ("tool:pay[0]#1@before",),
        "phase": "before",
        "layer": "execution",
        "dealt_with_by": "engine",
        "weight": 1.0,
        "injection": "witnessed",
        "verdict": "correct",
        "reason": "every expected effect, once",
        "resumed_exactly": True,
        "measures": measures,
        "usage": Usage(6, 8000, 900, 9, 0.012, 0.4),
        "repeats": Repeats(0, 1, 0),
        "human": Human(1, 0, 1, 0, (4.5,)),
        "times": Times(2.5, 0.6, 0.8, 1.9),
        "review_minutes": 4.0,
        "repair_minutes": 30.0,
    }
    return TrialResult(**(plain | changes))


CALM = {"fault": "", "form": "", "points": (), "phase": "", "layer": "", "injection": "none"}


def make_results(suts: Iterable[str] = tuple(BREAKS), seed: int = 7) -> list[TrialResult]:
    """A whole run: baselines, clean trials, faults with some breakages, kills after a response, times."""
    rng = random.Random(seed)
    found: list[TrialResult] = []
    for key in suts:
        sut, _, chain = key.partition("+")
        for group, name in [(group, name) for group, names in CLASSES.items() for name in names]:
            workflow = f"{group}/{name}"
            who = {"sut": sut, "chain": chain, "workflow": workflow, "workflow_class": group, "seed": seed}
            cell = f"{key}~{workflow}"
            found.append(make_trial(**who, **CALM, id=f"{cell}~baseline~s{seed}", kind="baseline"))
            found += [_clean(rng, BREAKS.get(key, 0.1), who | {"seed": seed + n}) for n in range(6)]
            for fault, (_, phase, form) in FAULTS.items():
                strikes = [(form, phase, number) for number in range(4)]
                if fault == "worker_kill":
                    strikes += [(f"after_{ms}ms", "after", n) for ms in (0, 1, 5, 20) for n in range(2)]
                found += [_struck(rng, BREAKS.get(key, 0.1), who, fault, strike) for strike in strikes]
            found += _timed(rng, who, cell)
    return found


def _clean(rng: random.Random, breaks: float, who: dict[str, Any]) -> TrialResult:
    tokens = int(rng.gauss(7000, 500)) * (1 if who["chain"] == "optimized" else 3)
    changes: dict[str, Any] = {
        "id": f"{who['sut']}+{who['chain']}~{who['workflow']}~clean~s{who['seed']}",
        "kind": "clean",
        "variance": "typical",
        "usage": Usage(6, tokens, tokens // 9, 9, 0.012, 0.4),
    }
    if who["chain"] == "optimized":
        plain = make_trial().measures
        changes["measures"] = replace(plain, selection_proposed=Count(), unsafe_proposed=Count())
    if rng.random() < breaks / 6:
        changes |= {"verdict": "failed", "reason": "the run reported a failure: KeyError: 'lines'"}
    return make_trial(**who, **CALM, **changes, resumed_exactly=None)


def _struck(
    rng: random.Random, breaks: float, who: dict[str, Any], fault: str, strike: tuple[str, str, int]
) -> TrialResult:
    form, phase, number = strike
    point = f"tool:pay[{number}]#1@{phase}"
    changes: dict[str, Any] = {
        "id": f"{who['sut']}+{who['chain']}~{who['workflow']}~{fault}.{form}@{point}~s{who['seed']}",
        "fault": fault,
        "form": form,
        "points": (point,),
        "phase": phase,
        "layer": FAULTS[fault][0],
    }
    if who["chain"] == "naive":
        changes["usage"] = Usage(12, 24000, 2700, 9, 0.012, 0.5)
    if fault == "retry_storm":
        changes["storm"] = Storm(50, 2.0 + number, 80.0, 1.5, within_bounds=who["sut"] == "minimal")
    draw = rng.random()
    if draw < breaks:
        verdict, reason = ENDINGS[rng.randrange(len(ENDINGS))]
        changes |= {"verdict": verdict, "reason": reason, "resumed_exactly": False}
    elif draw > 0.985:
        changes |= {"injection": "not_exposed", "verdict": None, "reason": "the point was never reached"}
    elif fault == "partial_side_effect" and number == 0:
        halt = Halt("in_doubt", "pay", justified=True, why="the tool is opaque")
        changes |= {"verdict": "correct_halt", "reason": "one justified halt", "human": Human(halts=(halt,))}
    return make_trial(**who, **changes)


def _timed(rng: random.Random, who: dict[str, Any], cell: str) -> list[TrialResult]:
    slow = 1.0 + rng.random() * (4.0 if who["sut"] == "naive" else 0.6)
    times = Times(2.0 + slow, 0.3 * slow, 0.5 * slow, 1.4 * slow)
    struck = make_trial(**who, id=f"{cell}~worker_kill.at_boundary~timing", kind="timing", times=times)
    clean = make_trial(**who, **CALM, id=f"{cell}~timing", kind="timing", times=Times(2.0))
    return [struck, clean]


def make_run(results: list[TrialResult] | None = None) -> Run:
    """A run of these trials, with the summary that the harness measures."""
    chosen = make_results() if results is None else results
    summary = measure(
        chosen,
        suite="standard 1",
        seed=7,
        started_at="2026-11-22T03:00:00+00:00",
        wall_seconds=412.0,
        planned=len(chosen) + 3,
        not_applicable=[("naive+naive", "finance/expense_batch", "stale_data")],
        token_source="tiktoken o200k_base",
    )
    plain: dict[str, Any] = json.loads(json.dumps(summary))
    return Run(plain, chosen, ENVIRONMENT, FAULT_TEXTS)


@pytest.fixture(name="make_trial")
def _make_trial() -> Callable[..., TrialResult]:
    return make_trial


@pytest.fixture(name="make_run")
def _make_run() -> Callable[..., Run]:
    return make_run


@pytest.fixture(scope="session")
def run() -> Run:
    """A whole run of four SUT × chain."""
    return make_run()


@pytest.fixture(scope="session")
def small_run() -> Run:
    """A run of one SUT × chain on one class of workflows."""
    return make_run([r for r in make_results(["naive+naive"]) if r.workflow_class == "finance"])


@pytest.fixture(scope="session")
def page(run: Run) -> str:
    """The scorecard of the whole run."""
    return render(run.summary, run.results, run.environment, run.fault_texts, "results/standard-7")
