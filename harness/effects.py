"""Holds the effects of a run, as the ledger has them, against the truth. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kintsugi.golden_workflows.spec import Effect, Workflow
from kintsugi.harness.history import Event, of

__all__ = ["Wrong", "expected_effects", "missing_effects", "wrong_effects"]


@dataclass(frozen=True)
class Wrong:
    """An effect that should not be: what is wrong with it, at which step, by which request."""

    what: str
    """``duplicate``, ``extra``, ``wrong arguments``, ``out of order``, ``stale`` or ``unauthorised``."""
    step: str
    tool: str
    request: int
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.what} effect of {self.tool} at step {self.step}, request {self.request}{detail}"


def expected_effects(workflow: Workflow, drifted: str | None, events: Sequence[Event]) -> list[Effect]:
    """The literal effects that are right for a run: the seed's or the drift's, cut short where a person said no.

    `events` are the run's. The decision that counts for an approval is the last one made.
    """
    truth = list(workflow.drifts[drifted].effects if drifted else workflow.truth.effects)
    for decided in of(events, "human", "decided"):
        if decided["kind"] == "approval" and decided["decision"] in {"reject", "expire"}:
            kept = set(workflow.truth.rejected.get(decided["step"], []))
            item = _item_of(decided, events)
            before = [effect for effect in truth if effect.step == decided["step"]][:item]
            truth = [effect for effect in truth if effect.step in kept or any(effect is b for b in before)]
    return truth


def _item_of(decided: Event, events: Sequence[Event]) -> int:
    return next((int(e["item"]) for e in of(events, "human", "asked") if e["question"] == decided["question"]), 0)


def wrong_effects(
    workflow: Workflow, expected: Sequence[Effect], actual: Sequence[Event], prose: Sequence[str]
) -> Iterator[Wrong]:
    """Every effect that should not be, in the order of the ledger.

    `prose` is all text that the model really gave in this trial: free text that is none of it was made up on the way.
    """
    left = list(expected)
    taken: list[Effect] = []
    order = {step: position for position, step in enumerate(workflow.steps)}
    furthest = -1
    for event in actual:
        unsafe = event.get("unsafe")
        if unsafe:
            yield _wrong("unauthorised", event, str(unsafe))
            continue
        match = next((effect for effect in left if _same(workflow, effect, event)), None)
        if match is None:
            yield _unexpected(workflow, event, taken, left)
            continue
        left.remove(match)
        taken.append(match)
        made_up = _made_up(workflow, match, event, prose)
        if made_up:
            yield _wrong("wrong arguments", event, f"{made_up} holds text that the model never gave")
        if order[match.step] < furthest:
            yield _wrong("out of order", event)
        furthest = max(furthest, order[match.step])


def missing_effects(workflow: Workflow, expected: Sequence[Effect], actual: Sequence[Event]) -> list[Effect]:
    """The expected effects that are not in the ledger."""
    left = list(actual)
    missing = []
    for effect in expected:
        found = next((event for event in left if _same(workflow, effect, event)), None)
        if found is None:
            missing.append(effect)
        else:
            left.remove(found)
    return missing


def _wrong(what: str, event: Event, detail: str = "") -> Wrong:
    return Wrong(what, event["step"], event["tool"], event["request"], detail)


def _same(workflow: Workflow, effect: Effect, event: Event) -> bool:
    free = workflow.free_arguments[effect.step]
    literal = {name: value for name, value in event["arguments"].items() if name not in free}
    return bool(event["tool"] == effect.tool and literal == effect.args)


def _unexpected(workflow: Workflow, event: Event, taken: Sequence[Effect], left: Sequence[Effect]) -> Wrong:
    if any(_same(workflow, effect, event) for effect in taken):
        return _wrong("duplicate", event)
    if any(_same(workflow, effect, event) for effect in workflow.truth.effects):
        drifted = any(_same_place(effect, event) for effect in left) or len(workflow.drifts) > 0
        return _wrong("stale" if drifted and not _was_refused(workflow, left, taken) else "extra", event)
    for effect in [*left, *taken]:
        if _same_place(effect, event):
            wrong = sorted(n for n, v in effect.args.items() if event["arguments"].get(n) != v)
            return _wrong("wrong arguments", event, ", ".join(wrong))
    return _wrong("extra", event)


def _same_place(effect: Effect, event: Event) -> bool:
    return bool(effect.tool == event["tool"] and effect.step == event["step"])


def _was_refused(workflow: Workflow, left: Sequence[Effect], taken: Sequence[Effect]) -> bool:
    """Whether what is expected is the seed's truth cut short, so that an effect beyond it is not stale but refused."""
    seed = list(workflow.truth.effects)
    return all(any(effect is of_seed for of_seed in seed) for effect in [*left, *taken])


def _made_up(workflow: Workflow, effect: Effect, event: Event, prose: Sequence[str]) -> str:
    for name in sorted(workflow.free_arguments[effect.step]):
        text = event["arguments"].get(name)
        if not isinstance(text, str) or not any(said in text or text in said for said in prose):
            return name
    return ""


def prose_of(events: Sequence[Event]) -> list[str]:
    """All text of some length in the model's replies: contents, and strings inside answers and arguments."""


    found: list[str] = []

    def gather(value: Any) -> None:
        if isinstance(value, str):
            if len(value) > 8:
                found.append(value)
        elif isinstance(value, Mapping):
            for inner in value.values():
                gather(inner)
        elif isinstance(value, list):
            for inner in value:
                gather(inner)

    for event in of(events, "gateway", "reply"):
        message = event["message"]
        texts = [message.get("content")]
        texts += [call["function"]["arguments"] for call in message.get("tool_calls") or []]
        for text in texts:
            try:
                gather(json.loads(text or "null"))
            except ValueError:
                gather(text)
    return found
