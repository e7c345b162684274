"""The story of a trial: its history as a timeline that a person can read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
    who, what = event["who"], event["what"]
    worker = f"worker {event['generation']}" if "generation" in event else "a worker"
    where = f"{event.get('step')}[{event.get('item')}]"
    if (who, what) == ("world", "request"):
        return f"{worker} calls {event['tool']} for {where}, request {event['request']}"
    if (who, what) == ("world", "effect"):
        unsafe = f"  UNSAFE: {event['unsafe']}" if event["unsafe"] else ""
        return f"EFFECT {event['tool']} {event['arguments']} by request {event['request']}{unsafe}"
    if (who, what) == ("world", "answer"):
        return f"answers request {event['request']} with {event['status']}{' (replayed)' if event['replayed'] else ''}"
    if (who, what) == ("world", "drift"):
        return f"{event['record']} CHANGES to {event['set']}"
    if (who, what) == ("world", "look_up"):
        return f"{worker} looks for its effect of {event['tool']}: {'found' if event['found'] else 'not found'}"
    if (who, what) == ("gateway", "ask"):
        return f"{worker} asks the model, for {where} (ask {event['n']})"
    if (who, what) == ("gateway", "reply"):
        return f"replies{' DAMAGED' if event['damaged'] else ''} to request {event['request']}"
    if (who, what) == ("human", "asked"):
        return f"{worker} asks a person: {event['kind']} for {where}{' AGAIN' if event['re_asked'] else ''}"
    if (who, what) == ("human", "decided"):
        return f"decides {event['decision']} on {event['kind']} for {event['step']}"
    if (who, what) == ("human", "end_report"):
        return f"{worker} reports the end: {event['status']} ({event['detail']})"
    if who == "nemesis":
        detail = event.get("is_") or event.get("evidence") or event.get("why") or ""
        return f"{what.upper()} {detail}"
    if who == "runner" and what in {"started", "exited", "extinct", "deadline", "broken"}:
        detail = {
            "started": f"on {event.get('node')}, pid {event.get('pid')}",
            "exited": f"with {event.get('code')}" + (f" (signal {event['signal']})" if event.get("signal") else ""),
        }.get(what, str(event.get("error") or ""))
        return f"{worker if 'generation' in event else 'the trial'} {what} {detail}".rstrip()
    return ""
