"""The search for a schedule that breaks a SUT: which schedules are tried, in which order, and how one is shrunk. Pure.

The stream is the same for the same seed: every schedule of one fault once, dealt evenly over what can go wrong and
where, and among them schedules of several faults, drawn at random. Trials of a search never enter a rate.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain as chained
from itertools import pairwise, zip_longest
from typing import TypeVar

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Drift
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point, Site
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.history import Event, of
from kintsugi.scenarios.planner import Candidate, candidates
from kintsugi.scenarios.points import met_in_recovery, sites
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["COPIES_MAX", "COPIES_MIN", "Frame", "ddmin", "exposed", "holds_a_race", "shrinking", "stream"]

COPIES_MAX = 5
"""How many workflows a search runs at once, where a fault is one of many: a bug of one shows in a few of them too."""
COPIES_MIN = 2
"""How many are left of them at least: what befalls one workflow among others needs another."""
ONE_FAULT_IN = 3
"""Of this many schedules all but one are of one fault, until there are no more of these."""
DRAWS_MAX = 500
"""How many draws in a row may bring nothing new before there is taken to be nothing new."""

Item = TypeVar("Item")
Part = TypeVar("Part")


@dataclass(frozen=True)
class Frame:
    """What is drawn from: the schedules of up to `faults_max` faults on some workflows, for one SUT and chain."""

    sut: str
    chain: str
    workflows: Mapping[str, Workflow]
    seed: int
    takes: Mapping[str, Collection[str]]
    """What of a trial each means has for itself, by the name that forms need it by."""
    faults_max: int = 3
    lacks: Collection[str] = ()
    """What the SUT does not have that forms may ask for."""
    missing: Collection[str] = ()
    """What this machine does not have that forms may need."""


@dataclass(frozen=True)
class _Places:
    """The points of a workflow, in the order in which a run comes to them, and what can be struck there."""

    every: Sequence[Site]
    candidates: Sequence[tuple[str, Candidate]]
    """By fault class."""


def _places(frame: Frame, name: str) -> _Places:
    workflow = frame.workflows[name]
    every = sites(workflow, frame.chain)
    found = [(fault, one) for fault in FAULTS for one in candidates(workflow, frame.chain, fault, every=every)]
    lacks, missing = set(frame.lacks), set(frame.missing)
    return _Places(
        every, [(fault, one) for fault, one in found if not lacks & set(one.form.wants) | missing & {one.form.needs}]
    )


# --- the stream ---------------------------------------------------------------------------------------------


def stream(frame: Frame) -> Iterator[Trial]:
    """The trials to try, in order, no two of which do the same. It ends where there is nothing new to draw."""
    places = {name: _places(frame, name) for name in sorted(frame.workflows)}
    done: set[Hashable] = set()
    for trial in _interleaved(_singles(frame, places), _several(frame, places)):
        what = _physical(trial)
        if what not in done:
            done.add(what)
            yield trial


def _interleaved(singles: Iterator[Trial], several: Iterator[Trial]) -> Iterator[Trial]:
    """`ONE_FAULT_IN` by `ONE_FAULT_IN`, the last of which is of several faults; the rest of either at the end."""
    for position, trial in enumerate(singles, start=1):
        yield trial
        if position % (ONE_FAULT_IN - 1) == 0:
            yield from _next(several)
    yield from several


def _next(trials: Iterator[Trial]) -> Iterator[Trial]:
    trial = next(trials, None)
    if trial is not None:
        yield trial


def _singles(frame: Frame, places: Mapping[str, _Places]) -> Iterator[Trial]:
    """Every schedule of one fault, dealt over the classes, their forms, the kinds and phases of points, workflows."""
    found = [(fault, name, one) for name, there in places.items() for fault, one in there.candidates]
    keys: Sequence[Callable[[tuple[str, str, Candidate]], Hashable]] = (
        lambda found: found[0],
        lambda found: found[2].form.name,
        lambda found: (found[2].site.point.kind, found[2].site.point.phase, found[2].site.effect),
        lambda found: found[1],
    )
    for fault, name, one in _dealt(found, keys, random.Random(f"{frame.seed}\nsingles")):
        yield _trial(frame, name, [(fault, one)])


def _dealt(items: Sequence[Item], keys: Sequence[Callable[[Item], Hashable]], rng: random.Random) -> list[Item]:
    """Items so ordered that each group of the first key has its turn, and in each the groups of the next key."""
    if not keys:
        return rng.sample(items, len(items))
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[keys[0](item)].append(item)
    hands = [_dealt(group, keys[1:], rng) for group in rng.sample(list(groups.values()), len(groups))]
    nothing = object()
    dealt = chained.from_iterable(zip_longest(*hands, fillvalue=nothing))
    return [item for item in dealt if item is not nothing]  # type: ignore[misc]


def _several(frame: Frame, places: Mapping[str, _Places]) -> Iterator[Trial]:
    """Schedules of two faults and more, drawn at random. The same may come again; it ends after many in a row."""
    rng = random.Random(f"{frame.seed}\nseveral")
    names = list(places)
    forms = {name: _by_form(there) for name, there in places.items()}
    drawn: set[Hashable] = set()
    in_vain = 0
    while frame.faults_max > 1 and in_vain < DRAWS_MAX:
        name = rng.choice(names)
        trial = _drawn(frame, name, places[name].every, forms[name], rng)
        if trial is None or _physical(trial) in drawn:
            in_vain += 1
            continue
        in_vain = 0
        drawn.add(_physical(trial))
        yield trial


_Forms = Mapping[str, Mapping[str, Sequence[Candidate]]]


def _by_form(places: _Places) -> _Forms:
    """The candidates of a workflow that can be one of several: by fault class, then by form."""
    found: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for fault, one in places.candidates:
        if one.form.copies == 1:
            found[fault][one.form.name].append(one)
    return found


def _drawn(frame: Frame, name: str, every: Sequence[Site], forms: _Forms, rng: random.Random) -> Trial | None:
    """One draw, None where its faults can't be in one schedule. Each fault class and each form is as likely."""
    if not forms:
        return None
    picked: list[tuple[str, Candidate]] = []
    for _ in range(rng.randint(2, frame.faults_max)):
        fault = rng.choice(sorted(forms))
        form = rng.choice(sorted(forms[fault]))
        picked.append((fault, rng.choice(forms[fault][form])))
    picked.sort(key=lambda one: every.index(one[1].site))
    then = [False]
    for (_, before), (_, after) in pairwise(picked):
        follows = after.site in met_in_recovery(every, before.site) and rng.random() < 0.5
        if not follows and _boundary(before.site.point) == _boundary(after.site.point):
            # Two things done to one request: the second could not be told from the first.
            return None
        then.append(follows)
    return _trial(frame, name, picked, then) if _fit([one.form for _, one in picked], frame.takes) else None


def _fit(forms: Sequence[Form], takes: Mapping[str, Collection[str]]) -> bool:
    """Whether each is meant for a trial of its own only where no other is: what takes a node, drifts, or has a means.

    Of two nodes one has to be left; a trial has one drift; and what one means takes of it no other can have.
    """
    taken = [part for form in forms if form.needs for part in takes[form.needs]]
    drifts = sum(any(isinstance(action, Drift) for action in form.actions) for form in forms)
    return sum(form.nodes > 1 for form in forms) <= 1 and drifts <= 1 and len(taken) == len(set(taken))


def _boundary(point: Point) -> Point:
    return replace(point, phase="before")


def _trial(
    frame: Frame, workflow: str, picked: Sequence[tuple[str, Candidate]], then: Sequence[bool] = (False,)
) -> Trial:
    strikes = tuple(
        Strike(fault, one.form.name, one.site.point, then=follows)
        for (fault, one), follows in zip(picked, then, strict=True)
    )
    drift = next((one.drift for _, one in picked if one.drift), "")
    return _fitted(Trial("fault", frame.sut, frame.chain, workflow, strikes, frame.seed, drift=drift))


def _fitted(trial: Trial) -> Trial:
    """The trial with as many nodes and copies as its faults take."""
    forms = trial.forms
    copies = min(COPIES_MAX, max(form.copies for form in forms))
    return replace(trial, nodes=max(form.nodes for form in forms), copies=copies)


def holds_a_race(trial: Trial) -> bool:
    """Whether a kill comes some time after an answer, so that it is open what the worker has done with it by then."""
    return any(strike.point.phase == "after" for strike in trial.schedule)


def _physical(trial: Trial) -> Hashable:
    """What is really done in a trial, whatever it is called."""
    strikes = tuple((strike.form_struck.actions, strike.point, strike.then) for strike in trial.schedule)
    return (trial.workflow, strikes, trial.drift, trial.nodes, trial.copies)


# --- what came of one ---------------------------------------------------------------------------------------


def exposed(trial: Trial, events: Sequence[Event]) -> tuple[Trial, list[Event]]:
    """The trial without the strikes whose points were never reached, and its history.

    Nothing was done for these, so that what is left is the history of the smaller schedule: a run that was lost at its
    first fault is not saved by a second one that it did not live to see.
    """
    begun = {event["strike"] for event in of(events, "nemesis") if event["what"] != "armed"}
    kept = [index for index in range(len(trial.schedule)) if index in begun]
    if len(kept) == len(trial.schedule):
        return trial, list(events)
    places = {index: place for place, index in enumerate(kept)}
    told = [
        {**event, "strike": places[event["strike"]]} if event["who"] == "nemesis" else event
        for event in events
        if event["who"] != "nemesis" or event["strike"] in places
    ]
    return _with(trial, [trial.schedule[index] for index in kept]), told


def _with(trial: Trial, strikes: Sequence[Strike]) -> Trial:
    """The trial with these strikes of its own, in their order; one that would follow nothing follows no more."""
    first = [replace(strike, then=False) for strike in strikes[:1]]
    drifts = any(isinstance(action, Drift) for strike in strikes for action in strike.form_struck.actions)
    return replace(trial, schedule=(*first, *strikes[1:]), drift=trial.drift if drifts else "")


# --- shrinking ----------------------------------------------------------------------------------------------

Shrinking = Generator[Sequence[Item], int | None, Item]
"""Yields candidates, each simpler than what is known to fail, and is sent the index of the first that fails too, or
None. Returns the simplest."""


def ddmin(items: Sequence[Part], build: Callable[[Sequence[Part]], Item]) -> Shrinking[Item]:
    """Delta debugging: what is built of a part of `items` that still fails, and of which no single one can be left out.

    What it yields is built of parts of at least one item, in the order of `items`.
    """
    left, parts = list(items), 2
    while len(left) > 1:
        edges = [len(left) * part // parts for part in range(parts + 1)]
        chunks = [left[begin:end] for begin, end in pairwise(edges)]
        # Of two parts each is the rest of the other.
        rests = [left[:begin] + left[end:] for begin, end in pairwise(edges)] if parts > 2 else []
        tried = chunks + rests
        fails = yield [build(part) for part in tried]
        if fails is not None:
            left, parts = tried[fails], 2 if fails < parts else parts - 1
        elif parts < len(left):
            parts = min(len(left), 2 * parts)
        else:
            break
    return build(left)


def shrinking(trial: Trial) -> Shrinking[Trial]:
    """The simplest trial that still fails: the fewest strikes, then the fewest copies, and none that waits in vain.

    Each candidate differs from what fails by less being done.
    """
    smallest = yield from ddmin(trial.schedule, lambda strikes: _with(trial, strikes))
    while simpler := _simpler(smallest):
        fails = yield simpler
        if fails is None:
            break
        smallest = simpler[fails]
    return smallest


def _simpler(trial: Trial) -> list[Trial]:
    """Trials with the same faults that are simpler by one thing, the simplest first."""
    found = [replace(trial, copies=copies) for copies in (COPIES_MIN, 3) if copies < trial.copies]
    needed = max((form.nodes for form in trial.forms), default=1)
    found += [replace(trial, nodes=needed)] * (needed < trial.nodes)
    for index, strike in enumerate(trial.schedule):
        if strike.then:
            schedule = (*trial.schedule[:index], replace(strike, then=False), *trial.schedule[index + 1 :])
            found.append(replace(trial, schedule=schedule))
    return found
