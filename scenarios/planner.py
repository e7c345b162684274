"""Turns a suite into its list of trials. Pure: the same suite and seed give the same plan."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Action
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point, Site
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.scenarios.points import met_in_recovery, sites
from kintsugi.scenarios.suite import FaultShare, Suite
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["Gap", "Plan", "Target", "candidates", "plan", "targets"]


@dataclass(frozen=True)
class Candidate:
    """A form of a fault at a site of a workflow: one point of the frame that is drawn from."""

    form: Form
    site: Site
    drift: str = ""


@dataclass(frozen=True)
class Gap:
    """A trial that can't be run here for want of something that its fault needs."""

    key: str
    """``sut+chain``."""
    workflow: str
    fault: str
    needs: str


@dataclass(frozen=True)
class Target:
    """Something that can be struck: a fault trial, whether it is planned or not."""

    trial: Trial
    whole: bool
    """Whether its suite strikes every one of its kind on its workflow."""


@dataclass(frozen=True)
class Plan:
    """The trials of a suite, in the order in which they are best run, and the fault cells that have no point."""

    trials: tuple[Trial, ...]
    not_applicable: tuple[tuple[str, str, str], ...]
    """(sut+chain, workflow, fault) where no form of the fault applies."""
    gaps: tuple[Gap, ...] = ()
    """One for each trial that this machine can't run."""
    lacks: Mapping[str, Collection[str]] = field(default_factory=dict)
    """What each SUT does not have that forms may ask for."""


def candidates(
    workflow: Workflow, chain: str, fault: str, forms: Sequence[str] = (), every: Sequence[Site] | None = None
) -> list[Candidate]:
    """Every (form, site) of a fault class that applies to a workflow and chain; a drift is a candidate of its own.

    `every` are the sites, where they are not those that suites draw from.
    """
    found: list[Candidate] = []
    every = sites(workflow, chain) if every is None else every
    for form in FAULTS[fault].forms:
        if forms and form.name not in forms:
            continue
        for site in every:
            if form.applies(site):
                drifts = {"": ("",), "any": site.drifts, "instruction": site.instructions}[form.drifts]
                found.extend(Candidate(form, site, drift) for drift in drifts)
    return found


def plan(
    suite: Suite,
    workflows: Mapping[str, Workflow],
    seed: int,
    suts: Iterable[str] | None = None,
    lacks: Mapping[str, Collection[str]] | None = None,
    missing: Collection[str] = (),
) -> Plan:
    """The trials of a suite for one seed.

    `suts` narrows the suite's own list of ``sut+chain``; `lacks` says of each SUT what it does not have that forms may
    ask for, `missing` what this machine does not have. Neither changes what is drawn, only what of it is run.
    Shared points (those that every chain crosses) are drawn once, so that SUTs and chains are compared on the same
    ones; a chain's model points are drawn for that chain. Points are dealt evenly over phases, and each trial's
    weight says how many points of its phase it stands for.
    """
    chosen = [name for name in sorted(workflows) if suite.wants(name)]
    trials: list[Trial] = []
    nowhere: list[tuple[str, str, str]] = []
    gaps: list[Gap] = []
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
                lacking = set((lacks or {}).get(sut, ()))
                drawn = [(candidate, weight) for candidate, weight in drawn if not lacking & set(candidate.form.wants)]
                if not drawn:
                    nowhere.append((name, workflow, share.fault))
                gaps += [Gap(name, workflow, share.fault, c.form.needs) for c, _ in drawn if c.form.needs in missing]
                drawn = [(candidate, weight) for candidate, weight in drawn if candidate.form.needs not in missing]
                trials += [_trial("fault", sut, chain, workflow, share.fault, c, seed, w) for c, w in drawn]
        if suite.pairs is not None:
            trials += _pairs(suite, workflows, chosen, sut, chain, seed)
        if suite.timing is not None:
            trials += _timing(suite, workflows, chosen, sut, chain, seed)
    return Plan(tuple(trials), tuple(nowhere), tuple(gaps), lacks or {})


def targets(
    suite: Suite,
    workflows: Mapping[str, Workflow],
    sut: str,
    chain: str,
    lacks: Mapping[str, Collection[str]] | None = None,
) -> list[Target]:
    """Everything that a suite could strike of its workflows on one SUT and chain, drawn or not."""
    found = []
    lacking = set((lacks or {}).get(sut, ()))
    for name in sorted(workflows):
        if not suite.wants(name):
            continue
        for share in suite.faults:
            frame = _frame(workflows[name], chain, share)
            apt = [candidate for candidate in frame if not lacking & set(candidate.form.wants)]
            trials = [_trial("fault", sut, chain, name, share.fault, candidate, 0, 1.0) for candidate in apt]
            found += [Target(trial, whole=share.all) for trial in trials]
        if suite.pairs is not None:
            whole = suite.pairs.wants_all(name)
            schedules = [_two_kills(*pair) for pair in _pairs_of(workflows[name], chain)]
            found += [Target(Trial("fault", sut, chain, name, schedule), whole=whole) for schedule in schedules]
    return found


def _pairs_of(workflow: Workflow, chain: str) -> list[tuple[Site, Site]]:
    every = sites(workflow, chain, whole=True)
    return [(first, second) for first in every for second in met_in_recovery(every, first)]


def _two_kills(first: Site, second: Site) -> tuple[Strike, Strike]:
    return _kill(first), replace(_kill(second), then=True)


def _pairs(
    suite: Suite, workflows: Mapping[str, Workflow], chosen: Sequence[str], sut: str, chain: str, seed: int
) -> list[Trial]:
    """Two kills, the second in the recovery from the first; all of them, or a draw with its weight."""
    assert suite.pairs is not None
    trials = []
    for name in chosen:
        frame = _pairs_of(workflows[name], chain)
        count = len(frame) if suite.pairs.wants_all(name) else min(suite.pairs.sampled, len(frame))
        drawn = frame if count == len(frame) else _rng(seed, suite.name, "pairs", name, chain).sample(frame, count)
        weight = len(frame) / count if count else 1.0
        trials += [Trial("fault", sut, chain, name, _two_kills(*pair), seed, weight=weight) for pair in drawn]
    return trials


def _kill(site: Site) -> Strike:
    """The kill at a site; right after a delivered response that is a sample of its own, without delay."""
    form = "after_0ms" if site.point.phase == "after" else "at_boundary"
    return Strike("worker_kill", form, site.point)


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


_Physical = tuple[tuple[Action, ...], Point, int, int, str, str]


def _physical(candidate: Candidate) -> _Physical:
    """What is really done: the same under two names is one trial, and is drawn once."""
    form = candidate.form
    return (form.actions, candidate.site.point, form.nodes, form.copies, candidate.drift, form.needs)


def _draw(
    workflow: Workflow, chain: str, share: FaultShare, suite: str, seed: int, taken: Collection[_Physical]
) -> list[tuple[Candidate, float]]:
    frame = _frame(workflow, chain, share)
    if share.all:
        return [(candidate, 1.0) for candidate in frame if _physical(candidate) not in taken]
    model = [candidate for candidate in frame if candidate.site.point.kind == "model"]
    shared = [candidate for candidate in frame if candidate.site.point.kind != "model"]
    names = (suite, share.fault, workflow.name)
    drawn = _deal(shared, share.shared, _rng(seed, *names), taken)
    return drawn + _deal(model, share.model, _rng(seed, *names, chain), taken)


def _frame(workflow: Workflow, chain: str, share: FaultShare) -> list[Candidate]:
    """What a share is drawn from, or all of what it takes."""
    return candidates(workflow, chain, share.fault, share.forms, sites(workflow, chain, whole=share.all))


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
