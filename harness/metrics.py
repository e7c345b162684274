"""Turns trial results into ``summary.json``, which gate and reports read. Pure; never a global score."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from kintsugi.harness.comparisons import comparisons, two_by_two
from kintsugi.harness.cost import clean_costs, cost_block, sensitivity
from kintsugi.harness.people import approval_seconds, human_rates
from kintsugi.harness.prices import Prices, load_prices
from kintsugi.harness.rates import (
    Basis,
    Rate,
    Sample,
    call_rate,
    clean_attempts,
    judged,
    samples,
    trial_rate,
    witnessed,
)
from kintsugi.harness.records import VERDICTS, Count, TrialResult
from kintsugi.harness.recovery import (
    coverage,
    recovery_rate,
    recovery_seconds,
    repeated_work,
    resumed_rate,
    storms,
)

__all__ = ["Frame", "measure"]

Frame = Mapping[tuple[str, str], Collection[str]]
"""Every point that can be struck, as text, by (chain, workflow)."""
Whole = frozenset[tuple[str, str]]
"""The (fault, workflow) of which every target was witnessed."""
NotApplicable = Sequence[tuple[str, str, str]]
"""(sut+chain, workflow, fault) cells in which no form of the fault applies, as the planner lists them."""

SHOWN_VERDICTS = tuple(verdict for verdict in VERDICTS if verdict != "harness_error")


def measure(  # noqa: PLR0913 - what only the runner knows is passed by keyword, each with a default
    results: Sequence[TrialResult],
    *,
    suite: str = "",
    seed: int = 0,
    started_at: str = "",
    wall_seconds: float = 0.0,
    planned: int | None = None,
    not_applicable: NotApplicable = (),
    prices: Prices | None = None,
    token_source: str = "",
    answered_by: str = "the scripted model",
    frame: Frame | None = None,
    exhaustive: Collection[tuple[str, str]] = (),
    points: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    gaps: Mapping[str, str] | None = None,
    fault_gaps: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The summary of a run, as JSON; the same for the same results in any order. Ids of results are unique.

    `planned` is the number of trials that the suite has; what is missing has not been run. `exhaustive` names
    the (fault, workflow) whose every point was to be struck: where every one was, their rates are coverage, without
    interval.
    `points` gives for each ``sut+chain`` its rows of `harness.coverage`, `frame` the points that a class's
    coverage is a share of. `token_source` says where token counts are from, `answered_by` who the model was; both are
    printed with the prices. `gaps` says for each ``sut+chain`` that could not be run here why, `fault_gaps` for each
    fault class of which some trials could not be. Of each class of workflows, ``exposure`` and ``exposure_timing`` say
    for each fault class how many trials of each fate there are, and ``fault_gaps`` names those that may lack some. Each
    formula stands at the function that computes it.
    """
    table = prices or load_prices()
    by_key: dict[tuple[str, str], list[TrialResult]] = defaultdict(list)
    for result in sorted(results, key=lambda r: r.id):
        by_key[result.sut, result.chain].append(result)
    chains = Counter(sut for sut, _ in by_key)
    suts = {}
    for (sut, chain), mine in sorted(by_key.items()):
        missing = [(workflow, fault) for key, workflow, fault in not_applicable if key == f"{sut}+{chain}"]
        name = f"{sut}+{chain}" if chains[sut] > 1 else sut
        rows = list((points or {}).get(f"{sut}+{chain}", ()))
        whole = _whole(mine, rows, frozenset(exhaustive))
        suts[name] = {"sut": sut, "chain": chain} | _sut(mine, missing, table, frame, whole, fault_gaps or {})
        suts[name]["points"] = rows
    return {
        "schema": 1,
        "suite": suite,
        "seed": seed,
        "started_at": started_at,
        "wall_seconds": wall_seconds,
        "trials": _trials(results) | {"planned": planned, "not_applicable": len(not_applicable)},
        "assumptions": table.model_dump() | {"token_source": token_source or "not stated", "answered_by": answered_by},
        "suts": suts,
        "gaps": dict(sorted((gaps or {}).items())),
        "fault_gaps": dict(sorted((fault_gaps or {}).items())),
        "cost_comparisons": comparisons(results, table),
        "cost_two_by_two": two_by_two(results, table),
    }


def _trials(results: Iterable[TrialResult]) -> dict[str, int]:
    """How many trials there are of each fate; ``clean`` had no fault, ``baseline_failed`` were not run."""
    fates = Counter("harness_error" if r.verdict == "harness_error" else r.injection for r in results)
    return {
        "run": fates.total() - fates["baseline_failed"],
        "clean": fates["none"],
        **{f: fates[f] for f in ("witnessed", "not_exposed", "invalid_injection", "baseline_failed", "harness_error")},
    }


def _whole(mine: Sequence[TrialResult], rows: Sequence[Mapping[str, Any]], exhaustive: Whole) -> Whole:
    """Those of `exhaustive` of which every target was witnessed and judged, as coverage and the trials have it."""
    left_out = {(row["fault"], name.split()[0]) for row in rows for name in row["left_out"]}
    struck = {result.target for result in witnessed(mine)}
    in_vain = {(r.fault, r.workflow) for r in mine if r.kind == "fault" and r.target not in struck}
    return exhaustive - left_out - in_vain


def _sut(
    mine: Sequence[TrialResult],
    missing: Sequence[tuple[str, str]],
    prices: Prices,
    frame: Frame | None,
    exhaustive: Whole,
    fault_gaps: Collection[str],
) -> dict[str, Any]:
    """Everything about one SUT on one chain."""
    by_class: dict[str, list[TrialResult]] = defaultdict(list)
    for result in mine:
        by_class[result.workflow_class].append(result)
    verdicts = Counter(result.verdict for result in mine)
    baselines = clean_costs(mine, prices)
    absent: dict[str, Counter[str]] = defaultdict(Counter)
    for workflow, fault in missing:
        absent[fault][workflow.split("/")[0]] += 1
    struck = samples(witnessed(mine))
    late = [sample for sample in struck if sample[0].phase == "after" and len(sample[0].points) == 1]
    return {
        "verdicts": {verdict: verdicts[verdict] for verdict in SHOWN_VERDICTS},
        "classes": {
            name: _cell(members, baselines, prices, frame, exhaustive)
            | {"fault_gaps": _gaps_of(members, missing, fault_gaps)}
            for name, members in sorted(by_class.items())
        },
        "faults": _split(struck, lambda r: r.fault, exhaustive),
        "layers": _split(struck, lambda r: r.layer, exhaustive),
        "dealt_with_by": _split(struck, lambda r: r.dealt_with_by, exhaustive),
        "phases": _split(struck, lambda r: r.phase, exhaustive),
        "strata": _split(struck, _stratum, exhaustive),
        "after": _split(late, lambda r: r.form, exhaustive),
        "not_applicable": {fault: dict(sorted(counts.items())) for fault, counts in sorted(absent.items())},
    }


def _gaps_of(
    members: Sequence[TrialResult], missing: Sequence[tuple[str, str]], fault_gaps: Collection[str]
) -> list[str]:
    """The fault classes of which trials of this class may not have been run: those with a gap that apply to it."""
    workflows = {result.workflow for result in members}
    return [fault for fault in sorted(fault_gaps) if any((name, fault) not in missing for name in workflows)]


def _exposure(members: Sequence[TrialResult], kind: str) -> dict[str, dict[str, int]]:
    """For each fault class that trials of a kind were planned of: how many there are of each fate."""
    planned: dict[str, list[TrialResult]] = defaultdict(list)
    for result in members:
        if result.kind == kind and result.fault:
            planned[result.fault].append(result)
    fates = {fault: _trials(found) for fault, found in sorted(planned.items())}
    return {fault: {name: many for name, many in counts.items() if name != "clean"} for fault, counts in fates.items()}


def _stratum(result: TrialResult) -> str:
    """``shared`` points are the same for every SUT and chain; ``model`` points are a chain's own."""
    return "model" if any(point.startswith("model:") for point in result.points) else "shared"


def _basis(chosen: Sequence[Sample], exhaustive: Whole) -> Basis:
    """Exhaustive where every fault class struck all its points, and no trial was a race in time."""
    races = any(point.endswith("@after") for sample in chosen for point in sample[0].points)
    whole = bool(chosen) and not races and all((s[0].fault, s[0].workflow) in exhaustive for s in chosen)
    return "exhaustive" if whole else "sampled"


def _split(
    struck: Sequence[Sample], by: Callable[[TrialResult], str], exhaustive: Whole
) -> dict[str, dict[str, Rate | None]]:
    """Recovery rates by some property of the trial, then by class."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in struck:
        groups[by(sample[0]), sample[0].workflow_class].append(sample)
    found: dict[str, dict[str, Rate | None]] = {}
    for (value, name), members in sorted(groups.items()):
        found.setdefault(value, {})[name] = recovery_rate(members, _basis(members, exhaustive))
    return found


def _cell(
    members: Sequence[TrialResult],
    baselines: Mapping[tuple[str, str], float],
    prices: Prices,
    frame: Frame | None,
    exhaustive: Whole,
) -> dict[str, Any]:
    """Everything about one SUT and chain on one class of workflows."""
    clean, hit = clean_attempts(members), witnessed(members)
    calm, struck = samples(clean), samples(hit)
    basis = _basis(struck, exhaustive)
    under = "_under_faults"
    return {
        "trials": _trials(members),
        "exposure": _exposure(members, "fault"),
        "exposure_timing": _exposure(members, "timing"),
        "baselines": _baselines(members),
        "workflow_completion_rate": trial_rate(calm, _correct),
        f"workflow_completion_rate{under}": trial_rate(struck, _correct, basis=basis),
        "pass_k": _pass_k(calm),
        "fault_recovery_rate": recovery_rate(struck, basis),
        "resumed_exactly": resumed_rate(struck, basis),
        "coverage": coverage(hit, _points(members[0], frame)),
        # A wrong effect that an erring model asked for is no one's recovery failing; completion has it already.
        "corruption_rate": trial_rate(
            samples(r for r in members if judged(r) and r.variance == "none"), _corrupted, every=False
        ),
        "corruption_rate_model_errs": trial_rate(
            samples(r for r in members if judged(r) and r.variance != "none"), _corrupted, every=False
        ),
        "corrupted": sum(map(_corrupted, members)),
        "corrupted_unwitnessed": sum(_corrupted(r) and r.injection not in {"none", "witnessed"} for r in members),
        **_accuracy(samples(r for r in clean if r.kind == "clean"), ""),
        **_accuracy(struck, under),
        "unsafe_action_rate": call_rate(
            samples(filter(judged, members)), lambda r: r.measures.unsafe_reached, every=False
        ),
        "unsafe_action_rate_proposed": call_rate(
            samples(filter(judged, members)), lambda r: r.measures.unsafe_proposed, every=False
        ),
        "cost_per_successful_workflow_usd": cost_block(clean, baselines, prices),
        f"cost_per_successful_workflow_usd{under}": cost_block(hit, baselines, prices),
        "all_in_sensitivity": sensitivity(clean, prices),
        f"all_in_sensitivity{under}": sensitivity(hit, prices),
        **human_rates(calm, ""),
        **human_rates(struck, under),
        "approval_completion_seconds": approval_seconds(clean),
        f"approval_completion_seconds{under}": approval_seconds(hit),
        "recovery_seconds": recovery_seconds(members),
        "repeats": repeated_work(hit),
        "storms": storms(hit, prices),
    }


def _points(one: TrialResult, frame: Frame | None) -> set[tuple[str, str]] | None:
    """The (workflow, point) of a frame that belong to the chain and class of a result."""
    if frame is None:
        return None
    return {
        (workflow, point)
        for (chain, workflow), points in frame.items()
        if chain == one.chain and workflow.split("/")[0] == one.workflow_class
        for point in points
    }


def _correct(result: TrialResult) -> bool:
    return result.verdict == "correct"


def _corrupted(result: TrialResult) -> bool:
    return result.verdict == "corrupted"


def _baselines(members: Iterable[TrialResult]) -> dict[str, Any]:
    """The clean runs without variance, on which scores under faults rest; and the workflows that failed."""
    found = [r for r in members if r.kind == "baseline" and judged(r)]
    unable = {r.workflow for r in found if r.verdict != "correct"}
    skipped = {r.workflow for r in members if r.injection == "baseline_failed"}
    return {"run": len(found), "correct": sum(map(_correct, found)), "failed": sorted(unable | skipped)}


def _pass_k(calm: Sequence[Sample]) -> Rate | None:
    """pass^k: the share of workflows that were correct with every one of their k seeds.

    A workflow that was not correct with some judged seed has failed, however many seeds of it were judged. One that
    was correct so far counts only with as many as the best covered one has. A failed baseline is no seed. Yao et al.,
    tau-bench (2024), with all k seeds rather than an estimate from more of them.
    """
    seeds: dict[str, list[Sample]] = defaultdict(list)
    for sample in calm:
        if sample[0].kind == "clean":
            seeds[sample[0].workflow].append(sample)
    if not seeds:
        return None
    k = max(map(len, seeds.values()))
    runs = [(len(chosen), tuple(r for s in chosen for r in s)) for chosen in seeds.values()]
    rate = trial_rate(
        [mine for judged_seeds, mine in runs if judged_seeds == k or not all(map(_correct, mine))], _correct
    )
    return rate and rate | {"seeds": k}


def _accuracy(chosen: Sequence[Sample], suffix: str) -> dict[str, Rate | None]:
    """Tool execution accuracy: as the model proposed it, and (``reached``) as it reached the world.

    ``tool_selection_accuracy``: correct tool choices / choices. ``tool_parameter_accuracy``: correct
    arguments / arguments; ``tool_call_accuracy``: calls with all arguments correct / calls. What code chose
    is in no proposed count, so a chain that leaves no choice to the model has n = 0 there: None.
    ``judgement_accuracy``: answers with every value right / answers, where the model is asked for judgement alone.
    ``trajectory_match_rate``: runs whose expected calls all reached the world in order, extras allowed /
    runs.
    """

    def of(name: str) -> Rate | None:
        def count(result: TrialResult) -> Count:
            found: Count = getattr(result.measures, name)
            return found

        return call_rate(chosen, count)

    return {
        f"tool_selection_accuracy{suffix}": of("selection_proposed"),
        f"tool_selection_accuracy_reached{suffix}": of("selection_reached"),
        f"tool_parameter_accuracy{suffix}": of("arguments_proposed"),
        f"tool_parameter_accuracy_reached{suffix}": of("arguments_reached"),
        f"tool_call_accuracy{suffix}": of("calls_proposed"),
        f"tool_call_accuracy_reached{suffix}": of("calls_reached"),
        f"judgement_accuracy{suffix}": of("judgements_proposed"),
        f"trajectory_match_rate{suffix}": of("trajectory_in_order"),
        f"trajectory_exact_rate{suffix}": of("trajectory_exact"),
        f"trajectory_any_order_rate{suffix}": of("trajectory_any_order"),
    }
