"""The story of a trial: its history as a timeline that a person can read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kintsugi.harness.history import Event
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.trial import Trial

__all__ = ["tell"]


def tell(trial: Trial, events: Sequence[Event], result: TrialResult) -> str:
    """Who did what and when, and the verdict at the end."""
    lines = [f"trial    {trial.id}"]
    lines += [f"schedule {strike}" for strike in trial.schedule] or ["schedule no fault"]
    for event in events:
        said = _line(event)
        if said:
            lines.append(f"{event['t'] * 1000:9.1f} ms  {event['who']:<8} {said}")
    lines.append(f"injection {result.injection}")
    lines.append(f"verdict   {result.verdict or 'none'}: {result.reason}")
    return "\n".join(lines)


def _line(event: Event) -> str:
    """One event in words; empty for one that tells a reader nothing new."""
    if event["who"] == "nemesis":
        return f"{event['what'].upper()} {event.get('is_') or event.get('evidence') or event.get('why') or ''}"
    words = _WORDS.get((event["who"], event["what"]))
    return words(event).rstrip() if words else ""


def _worker(event: Event) -> str:
    return f"worker {event['generation']}"


def _where(event: Event) -> str:
    return f"{event['step']}[{event['item']}]"


def _if(flag: object, text: str) -> str:
    return text if flag else ""


_WORDS: Mapping[tuple[str, str], Callable[[Event], str]] = {
    ("world", "request"): lambda e: f"{_worker(e)} calls {e['tool']} for {_where(e)}, request {e['request']}",
    ("world", "effect"): lambda e: (
        f"EFFECT {e['tool']} {e['arguments']} by request {e['request']}" + _if(e["unsafe"], f"  UNSAFE: {e['unsafe']}")
    ),
    ("world", "answer"): lambda e: (
        f"answers request {e['request']} with {e['status']}{_if(e['replayed'], ' (replayed)')}"
    ),
    ("world", "drift"): lambda e: f"{e['record']} CHANGES to {e['set']}",
    ("world", "look_up"): lambda e: (
        f"{_worker(e)} looks for its effect of {e['tool']}: {'found' if e['found'] else 'not found'}"
    ),
    ("gateway", "ask"): lambda e: f"{_worker(e)} asks the model, for {_where(e)} (ask {e['n']})",
    ("gateway", "reply"): lambda e: f"replies{_if(e['damaged'], ' DAMAGED')} to request {e['request']}",
    ("human", "asked"): lambda e: (
        f"{_worker(e)} asks a person: {e['kind']} for {_where(e)}{_if(e['re_asked'], ' AGAIN')}"
    ),
    ("human", "decided"): lambda e: f"decides {e['decision']} on {e['kind']} for {e['step']}",
    ("human", "end_report"): lambda e: f"{_worker(e)} reports the end: {e['status']} ({e['detail']})",
    ("runner", "started"): lambda e: f"{_worker(e)} started on {e['node']}, pid {e['pid']}",
    ("runner", "exited"): lambda e: (
        f"{_worker(e)} exited with {e['code']}" + _if(e["signal"], f" (signal {e['signal']})")
    ),
    ("runner", "extinct"): lambda _: "no worker is left, and none will be started",
    ("runner", "deadline"): lambda _: "the deadline has passed",
    ("runner", "broken"): lambda e: f"the harness broke: {e['error']}",
}
