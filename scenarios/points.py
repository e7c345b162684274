"""Every point of a workflow at which a fault can strike, for one chain: enumerated from the reference trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kintsugi.faults.points import Holds, Point, Site
from kintsugi.golden_workflows.reference import Call, trajectory
from kintsugi.golden_workflows.results import fields_of
from kintsugi.golden_workflows.spec import Tool, Workflow

__all__ = ["END", "REACT", "START", "met_in_recovery", "sites"]

START = "start"
END = "end"

REACT = frozenset({"naive", "own"})
"""The chains whose model decides every call: ours, and what a SUT's own agent is taken to be."""

_READ_PHASES = ("before", "after")
_WRITE_PHASES = ("before", "during", "committed", "after")
_MODEL_PHASES = ("before", "during", "after")


def sites(workflow: Workflow, chain: str, *, whole: bool = False) -> list[Site]:
    """The sites of a clean run, in the order in which it crosses them.

    Tool, approval, timer, submit and end sites are the same for every chain. The model of a ReAct chain is asked
    before every call (and once more for the last word); an optimized chain's only at the plan's questions. Sites that
    an agent of another make does not cross are never exposed, and count for nothing.

    The frame that suites draw from lacks one point, the acknowledgement of a question to a person: adding it would
    change what the frozen ones draw. The `whole` frame has it.
    """
    guarded = any(call.needs_approval for call in trajectory(workflow))
    every = (replace(site, guarded=guarded) for site in _sites(workflow, chain))
    return [site for site in every if whole or (site.point.kind, site.point.phase) != ("human", "after")]


def met_in_recovery(every: Sequence[Site], first: Site) -> list[Site]:
    """The sites that any recovery from a kill at `first` crosses, in order: what a second kill can be sure to meet.

    Those of every later boundary. And those of the same one, from its beginning, where nothing had come of the request;
    or where a write had happened that only another request with the same key can tell of. What some runtime does
    beyond that, as looking an effect up, is no point of the plan. Nor are the others of a parallel group sure to be
    met, which may have been crossed at the same time. Nor is a timer right after a boundary that is not crossed again:
    no request then tells when the SUT is parked on it. Nor `first` itself: two kills at one point are
    ``worker_kill.again_in_recovery``.
    """
    boundary = _boundary(first)
    places = [_boundary(site) for site in every]
    at = places.index(boundary)
    end = len(places) - places[::-1].index(boundary)
    later = [site for site, place in zip(every[end:], places[end:], strict=True) if place != boundary]
    later = [site for site in later if not site.group or site.group != first.group]
    phase, again = first.point.phase, every[at:end]
    if phase in {"before", "during"} and first.point.kind != "decision":
        return [site for site in [*again, *later] if site != first]
    if phase == "committed" and first.idempotency == "key":
        return [*(site for site in again if site.point.phase in {"before", "after"}), *later]
    # The person's delay goes on, whatever becomes of the worker.
    delayed = first.point.kind == "human" and phase != "waiting"
    parked = [site for site in again if delayed and site.point.phase == "waiting"]
    return parked + (later[1:] if later and later[0].point.kind == "timer" else later)


def _boundary(site: Site) -> Point:
    return replace(site.point, phase="before")


def _sites(workflow: Workflow, chain: str) -> Iterator[Site]:
    yield Site(Point("submit", START, phase="after"))
    for call in trajectory(workflow):
        if chain in REACT and call.kind != "model":
            yield from _model(call.step, call.item, 1, "call")
        if call.needs_approval:
            yield from _approval(workflow, call)
            if chain in REACT:
                yield from _model(call.step, call.item, 2, "call")
        if call.kind == "tool":
            yield from _tool(workflow, call)
        elif call.kind == "model" and chain == "optimized":
            yield from _model(call.step, call.item, 1, "answer")
        elif call.kind == "sleep":
            yield _waiting(workflow, Point("timer", call.step, phase="waiting"))
    if chain in REACT:
        yield from _model(END, 0, 1, "close")
    for phase in ("before", "committed", "after"):
        yield Site(Point("end", END, phase=phase))


def _model(step: str, item: int, occurrence: int, proposes: str) -> Iterator[Site]:
    for phase in _MODEL_PHASES:
        yield Site(Point("model", step, item, occurrence, phase), proposes=proposes)


def _tool(workflow: Workflow, call: Call) -> Iterator[Site]:
    tool = workflow.tools[call.tool]
    for phase in _WRITE_PHASES if tool.effect == "write" else _READ_PHASES:
        point = Point("tool", call.step, call.item, 1, phase)
        group = workflow.steps[call.step].parallel or ""
        if tool.effect == "write":
            yield Site(point, call.tool, tool.effect, tool.idempotency, group=group)
        else:
            yield Site(point, call.tool, tool.effect, holds=_holds(tool), group=group)


def _holds(tool: Tool) -> tuple[Holds, ...]:
    """What every record of a read's result holds that an absurd value can be told from."""
    fields = [field for _, field in fields_of(tool.result)]
    number: tuple[Holds, ...] = ("number",) if any("minimum" in field for field in fields) else ()
    return (*number, "choice") if any("enum" in field for field in fields) else number


def _approval(workflow: Workflow, call: Call) -> Iterator[Site]:
    for phase in ("before", "committed", "after"):
        yield Site(Point("human", call.step, call.item, 1, phase))
    yield _waiting(workflow, Point("human", call.step, call.item, 1, "waiting"))
    for phase in ("before", "after"):
        yield Site(Point("decision", call.step, call.item, 1, phase))


def _waiting(workflow: Workflow, point: Point) -> Site:
    """The site of a wait, with what may change meanwhile."""
    drifts = [drift for drift in workflow.drifts.values() if drift.step == point.step]
    instructions = tuple(drift.name for drift in drifts if drift.instruction)
    return Site(point, drifts=tuple(drift.name for drift in drifts), instructions=instructions)
