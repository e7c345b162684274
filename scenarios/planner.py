"""Turns a suite into its list of trials. Pure: the same suite and seed give the same plan."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Action
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point, Site
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.scenarios.points import sites
from kintsugi.scenarios.suite import FaultShare, Suite
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["Plan", "candidates", "plan"]


@dataclass(frozen=True)
class Candidate:
    """A form of a fault at a site of a workflow: one point of the frame that is drawn from."""

    form: Form
    site: Site
    drift: str = ""


@dataclass(frozen=True)
class Plan:
    """The trials of a suite, in the order in which they are best run, and the fault cells that have no point."""

    trials: tuple[Trial, ...]
    not_applicable: tuple[tuple[str, str, str], ...]
    """(sut+chain, workflow, fault) where no form of the fault applies."""


def candidates(workflow: Workflow, chain: str, fault: str, forms: Sequence[str] = ()) -> list[Candidate]:
    """Every (form, site) of a fault class that applies to a workflow and chain; a drift is a candidate of its own."""
    found: list[Candidate] = []
    every = sites(workflow, chain)
    for form in FAULTS[fault].forms:
        if forms and form.name not in forms:
            continue
        for site in every:
            if form.applies(site):
                drifts = site.drifts if fault == "stale_data" else ("",)
                found.extend(Candidate(form, site, drift) for drift in drifts)
    return found


def plan(
    suite: Suite,
    workflows: Mapping[str, Workflow],
    seed: int,
    suts: Iterable[str] | None = None,
    polling: Collection[str] = (),
    alone: Collection[str] = (),
) -> Plan:
    """The trials of a suite for one seed.

    `suts` narrows the suite's own list of ``sut+chain``; `polling` names the SUTs that fetch decisions by themselves,
    `alone` those of which no worker takes over another's runs.
    Shared points (those that every chain crosses) are drawn once, so that SUTs and chains are compared on the same
    ones; a chain's model points are drawn for that chain. Points are dealt evenly over phases, and each trial's
    weight says how many points of its phase it stands for.
    """
    chosen = [name for name in sorted(workflows) if suite.wants(name)]
    trials: list[Trial] = []
    missing: list[tuple[str, str, str]] = []
    for name in suts if suts is not None else suite.suts:
        sut, _, chain = name.partition("+")
        trials += [Trial("baseline", sut, chain, workflow, seed=seed) for workflow in chosen]
        for workflow in chosen:
            trials += [
                Trial("clean", sut, chain, workflow, seed=seed + offset, variance=suite.variance)
                for offset in range(suite.clean_seeds)
            ]
        taken: dict[str, set[_Physical]] = defaultdict(set)
        for share in suite.faults:
            for workflow in _for_share(share, chosen, seed):
                drawn = _draw(workflows[workflow], chain, share, suite.name, seed, taken[workflow])
                taken[workflow] |= {_physical(candidate) for candidate, _ in drawn}
                if sut in polling:
                    drawn = [(candidate, weight) for candidate, weight in drawn if not candidate.form.pushed]
                if sut in alone:
                    drawn = [(candidate, weight) for candidate, weight in drawn if not candidate.form.taken_over]
                if not drawn:
                    missing.append((name, workflow, share.fault))
                trials += [_trial("fault", sut, chain, workflow, share.fault, c, seed, w) for c, w in drawn]
        if suite.timing is not None:
            trials += _timing(suite, workflows, chosen, sut, chain, seed)
    return Plan(tuple(trials), tuple(missing))


def _trial(
    kind: str, sut: str, chain: str, workflow: str, fault: str, candidate: Candidate, seed: int, weight: float
) -> Trial:
    strike = Strike(fault, candidate.form.name, candidate.site.point)
    return Trial(
        kind,  # type: ignore[arg-type]
        sut,
        chain,
        workflow,
        (strike,),
        seed,
        copies=candidate.form.copies,
        nodes=candidate.form.nodes,
        drift=candidate.drift,
        weight=weight,
    )


def _for_share(share: FaultShare, chosen: Sequence[str], seed: int) -> list[str]:
    if not share.one_per_class:
        return list(chosen)
    by_class: dict[str, list[str]] = defaultdict(list)
    for workflow in chosen:
        by_class[workflow.split("/")[0]].append(workflow)
    return [_rng(seed, share.fault, name).choice(members) for name, members in sorted(by_class.items())]


def _rng(seed: int, *names: str) -> random.Random:
    return random.Random("\n".join([str(seed), *names]))


_Physical = tuple[tuple[Action, ...], Point, int, int, str]


def _physical(candidate: Candidate) -> _Physical:
    """What is really done: the same under two names is one trial, and is drawn once."""
    form = candidate.form
    return (form.actions, candidate.site.point, form.nodes, form.copies, candidate.drift)


def _draw(
    workflow: Workflow, chain: str, share: FaultShare, suite: str, seed: int, taken: Collection[_Physical]
) -> list[tuple[Candidate, float]]:
    frame = candidates(workflow, chain, share.fault, share.forms)
    model = [candidate for candidate in frame if candidate.site.point.kind == "model"]
    shared = [candidate for candidate in frame if candidate.site.point.kind != "model"]
    names = (suite, share.fault, workflow.name)
    drawn = _deal(shared, share.shared, _rng(seed, *names), taken)
    return drawn + _deal(model, share.model, _rng(seed, *names, chain), taken)


def _deal(
    frame: Sequence[Candidate], count: int, rng: random.Random, taken: Collection[_Physical]
) -> list[tuple[Candidate, float]]:
    """`count` candidates without repetition, dealt evenly over phases (over forms where all share one phase).

    Each comes with its weight: how many candidates of its stratum it stands for. What is `taken` under another name
    is not drawn again.
    """
    phases = {candidate.site.point.phase for candidate in frame}
    strata: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in frame:
        strata[candidate.site.point.phase if len(phases) > 1 else candidate.form.name].append(candidate)
    order = sorted(strata)
    rng.shuffle(order)
    left: dict[str, list[Candidate]] = {}
    for key in order:
        rng.shuffle(strata[key])
        left[key] = [candidate for candidate in strata[key] if _physical(candidate) not in taken]
    drawn: dict[str, int] = dict.fromkeys(order, 0)
    while sum(drawn.values()) < min(count, sum(map(len, left.values()))):
        for key in order:
            if drawn[key] < len(left[key]) and sum(drawn.values()) < count:
                drawn[key] += 1
    return [(candidate, len(strata[key]) / drawn[key]) for key in order for candidate in left[key][: drawn[key]]]


def _timing(
    suite: Suite, workflows: Mapping[str, Workflow], chosen: Sequence[str], sut: str, chain: str, seed: int
) -> list[Trial]:
    """Kills at exact shared points, the same for every SUT, spread over the workflows of each class."""
    assert suite.timing is not None
    by_class: dict[str, list[str]] = defaultdict(list)
    for workflow in chosen:
        by_class[workflow.split("/")[0]].append(workflow)
    trials = []
    for name, members in sorted(by_class.items()):
        frame = [
            (workflow, candidate)
            for workflow in members
            for candidate in candidates(workflows[workflow], chain, suite.timing.fault, suite.timing.forms)
            if candidate.site.point.kind == "tool" and candidate.site.point.phase in {"before", "committed"}
        ]
        picked = _rng(seed, suite.name, "timing", name).sample(frame, min(suite.timing.per_class, len(frame)))
        trials += [_trial("timing", sut, chain, w, suite.timing.fault, c, seed, 1.0) for w, c in picked]
        trials += [Trial("timing", sut, chain, workflow, seed=seed) for workflow in sorted({w for w, _ in picked})]
    return trials
