"""The story of a trial: what the SUT did, what was done to it, and what the ledger holds in the end. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.spec import Effect, Workflow
from kintsugi.harness.effects import (
    Wrong,
    held_against,
    missing_effects,
    there_at_its_end,
)
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.rules import broken
from kintsugi.scenarios.trial import Trial

__all__ = ["tell"]

TEXT_CHARACTERS_MAX = 48
"""How much of a long text in a tool's arguments is shown."""


def tell(workflow: Workflow, trial: Trial, events: Sequence[Event], result: TrialResult) -> str:
    """Who did what and when, the ledger against what is right, and the verdict with the rules that are broken."""
    lines = [f"trial     {trial.id}"]
    for strike in trial.schedule:
        lines += [f"schedule  {strike}", f"          {FAULTS[strike.fault].what}"]
    lines += [] if trial.schedule else ["schedule  no fault"]
    lines += ["", "what happened", *_timeline(trial, events)]
    for run in (f"r{n}" for n in range(trial.copies)):
        whose = f" of run {run}" if trial.copies > 1 else ""
        mine = [event for event in events if event.get("run", run) == run]
        lines += ["", f"the ledger{whose} in the end", *_ledger(workflow, trial, mine, result)]
    lines += ["", f"injection {result.injection}", f"verdict   {result.verdict or 'none'}: {result.reason}"]
    lines += [f"broken    {rule}" for rule in broken(result)]
    return "\n".join(lines)


# --- the timeline -------------------------------------------------------------------------------------------


def _timeline(trial: Trial, events: Sequence[Event]) -> Iterator[str]:
    over = False
    for event in events:
        # Whatever lives after that is ended by the harness.
        over = over or (event["who"], event["what"]) == ("runner", "status")
        if over and event["what"] == "exited":
            continue
        who, said = _line(event)
        if said:
            run = f"{event.get('run', ''):<4}" if trial.copies > 1 else ""
            yield f"{event['t'] * 1000:9.1f} ms  {run}{who:<9} {said}"


def _line(event: Event) -> tuple[str, str]:
    """Who did what, in words; no words for what tells a reader nothing new."""
    if event["who"] == "nemesis":
        said = event.get("is_") or event.get("evidence") or event.get("why") or ""
        return "nemesis", "" if event["what"] == "armed" else f"{event['what'].upper()} {said}".rstrip()
    who, words = _WORDS.get((event["who"], event["what"]), ("", None))
    named = f"worker {event['generation']}" if who == WORKER else who
    return named, words(event).rstrip() if words else ""


def _where(event: Event) -> str:
    return f"{event['step']}[{event['item']}]"


def _if(flag: object, text: str) -> str:
    return text if flag else ""


def _given(arguments: Mapping[str, Any]) -> str:
    """The arguments of a tool on one line, long texts cut short."""
    return ", ".join(f"{name} {_value(value)}" for name, value in arguments.items())


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[: TEXT_CHARACTERS_MAX - 1]}…"


WORKER = "worker"
_WORDS: Mapping[tuple[str, str], tuple[str, Callable[[Event], str]]] = {
    ("world", "request"): (WORKER, lambda e: f"calls {e['tool']} for {_where(e)}, request {e['request']}"),
    ("world", "effect"): (
        "world",
        lambda e: (
            f"EFFECT {e['tool']} by request {e['request']}{_if(e['unsafe'], '  UNSAFE: ' + str(e['unsafe']))}: "
            f"{_given(e['arguments'])}"
        ),
    ),
    ("world", "answer"): (
        "world",
        lambda e: f"answers request {e['request']} with {e['status']}{_if(e['replayed'], ' (replayed)')}",
    ),
    ("world", "delivered"): (
        "world",
        lambda e: _if(not e["delivered"], f"the answer to request {e['request']} DOES NOT ARRIVE"),
    ),
    ("world", "drift"): ("world", lambda e: f"{e['record']} CHANGES: {_given(e['set'])}"),
    ("world", "look_up"): (
        WORKER,
        lambda e: f"looks for its effect of {e['tool']}: {'found' if e['found'] else 'not found'}",
    ),
    ("gateway", "ask"): (
        WORKER,
        lambda e: f"asks the model, for {_where(e)} (ask {e['n']}), request {e['request']}",
    ),
    ("gateway", "reply"): ("model", lambda e: f"replies{_if(e['damaged'], ' DAMAGED')} to request {e['request']}"),
    ("gateway", "delivered"): (
        "model",
        lambda e: _if(not e["delivered"], f"the reply to request {e['request']} DOES NOT ARRIVE"),
    ),
    ("doors", "request_of_the_dead"): ("world", lambda e: f"a request of a dead worker: {e.get('tool') or ''}"),
    ("human", "asked"): (
        WORKER,
        lambda e: f"asks a person: {e['kind']} for {_where(e)}{_if(e['re_asked'], ' AGAIN')}",
    ),
    ("human", "decided"): ("person", lambda e: f"decides {e['decision']} on {e['kind']} for {e['step']}"),
    ("human", "end_report"): (WORKER, lambda e: f"REPORTS THE END: {e['status']} ({e['detail']})"),
    ("runner", "started"): (WORKER, lambda e: f"started on {e['node']}, pid {e['pid']}"),
    ("runner", "submitted"): ("client", lambda e: f"submitted {e['runs']} run{_if(e['runs'] > 1, 's')}"),
    ("runner", "exited"): (
        WORKER,
        lambda e: f"exited with {e['code']}{_if(e['signal'], ' (signal ' + str(e['signal']) + ')')}",
    ),
    ("runner", "left_out"): ("runner", lambda e: f"the trial was not run: {e['why']}"),
    ("runner", "extinct"): ("runner", lambda _: "no worker is left, and none will be started"),
    ("runner", "deadline"): ("runner", lambda _: "the deadline has passed"),
    ("runner", "status"): ("client", lambda e: f"asks for the status of the run: {e['state']}"),
    ("runner", "broken"): ("runner", lambda e: f"the harness broke: {e['error']}"),
}
"""For each event: who acts, and what is said of it."""


# --- the ledger ---------------------------------------------------------------------------------------------


def _ledger(workflow: Workflow, trial: Trial, mine: Sequence[Event], result: TrialResult) -> Iterator[str]:
    """Each effect of a run, with what is wrong with it, and each that should be there and is not."""
    actual = of(mine, "world", "effect")
    drifted = trial.drift if of(mine, "world", "drift") else None
    held = [_flaws(workflow, truth, mine) for truth in ([drifted, None] if drifted else [None])]
    # A record that changed at a moment at which nobody can have noticed leaves either truth right.
    wrong, missing = held[0] if result.verdict == "corrupted" else min(held, key=lambda one: len(one[0]) + len(one[1]))
    for event in actual:
        flaw = wrong.get(event["request"])
        mark = flaw.what.upper() if flaw else "ok"
        detail = f" ({flaw.detail})" if flaw and flaw.detail else ""
        what = f"{event['tool']} at {_where(event)}, request {event['request']}{detail}"
        yield f"  {mark:<16} {what}: {_given(event['arguments'])}"
    for effect in missing:
        yield f"  {'MISSING':<16} {effect.tool} at {effect.step}: {_given(effect.args)}"
    if not actual and not missing:
        yield "  nothing, as it should be"


def _flaws(workflow: Workflow, drifted: str | None, mine: Sequence[Event]) -> tuple[dict[int, Wrong], list[Effect]]:
    """What is wrong with the ledger of a run, by request, and what it lacks, by the truth of the seed or of a drift."""
    expected, wrong = held_against(workflow, drifted, mine)
    return {each.request: each for each in wrong}, missing_effects(workflow, expected, there_at_its_end(mine))
