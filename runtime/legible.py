"""A run told from its journal: for a program as a dict (`view`), for a person as text (`describe`). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kintsugi.runtime.store import Event, Run, Signal

__all__ = ["describe", "view"]

Json = dict[str, Any]

ANSWERS = {
    "approval": "approve, reject or amend",
    "in_doubt": "happened (with its result), not_happened or stop",
    "budget": "continue, happened (with its result), not_happened or stop",
}


def view(
    run: Run | None,
    events: Iterable[Event],
    signals: Iterable[Signal],
    workers: Collection[str],
    now: float,
) -> Json:
    """What there is to know of a run.

    ``state`` is one of ``unknown``, ``submitted`` (no worker has it yet), ``running``, ``waiting`` (for a
    person), ``sleeping`` (a timer), ``paused``, ``orphaned`` (its worker is gone), ``completed``, ``failed``.
    With an end, ``ended`` says whether it was reported. `workers` are the incarnations that are held to be
    alive, `now` is Unix seconds.
    """
    if run is None:
        return {"state": "unknown", "run_id": None, "detail": "there is no such run", "ended": False}
    told = _Told()
    for event in events:
        told.take(event)
    for signal in signals:
        told.hear(signal)
    for call in told.calls.values():
        # A timer's end is not recorded: it is told by the clock.
        call["ended"] = call["ended"] or (call["kind"] == "timer" and call["until"] <= now)
    open_calls = [call for call in told.calls.values() if not call["ended"]]
    state, detail = _state(run, told, open_calls, workers, now)
    return {
        "run_id": run.run_id,
        "chain": run.payload.get("chain"),
        "state": state,
        "detail": detail,
        "ended": run.ended,
        "worker": run.owner if not run.ended else None,
        "current": [_brief(call) for call in open_calls],
        "done": [_brief(call) for call in told.calls.values() if call["ended"] and call["ok"]],
        "failed": [_brief(call) for call in told.calls.values() if call["ended"] and not call["ok"]],
        "pending": _pending(run, told),
        "questions": [call["question"] for call in open_calls if call["question"]],
        "approvals": told.approvals,
        "retries": {call["name"]: len(call["attempts"]) for call in told.calls.values() if call["attempts"]},
        "evidence": {call["name"]: call["attempts"] for call in open_calls if call["attempts"]},
        "in_doubt": [call["name"] for call in open_calls if call["in_doubt"]],
        "next": _next(state, open_calls),
        "options": _options(state),
        "cost": dict(told.cost),
        "claims": told.claims,
        "seconds": round(max(now, told.last_at) - run.born.wall, 3),
    }


class _Told:
    """The journal, read once from front to back."""

    def __init__(self) -> None:
        self.calls: dict[str, Json] = {}
        self.approvals: list[Json] = []
        self.cost: Counter[str] = Counter(model_calls=0, tool_calls=0)
        self.claims = 0
        self.last_at = 0.0
        self.ending: Mapping[str, Any] | None = None
        self.paused = False
        self.cancelled = False

    def take(self, event: Event) -> None:
        self.last_at = event.at
        if event.kind == "claimed":
            self.claims += 1
        elif event.kind == "ending":
            self.ending = event.data
        elif event.kind == "reopened":
            self.ending = None
        elif event.name:
            blank = {"name": event.name, "kind": "", "step": "", "ended": False, "ok": True, "question": None}
            call = self.calls.setdefault(event.name, {**blank, "attempts": [], "in_doubt": False})
            self._take_call(call, event)

    def _take_call(self, call: Json, event: Event) -> None:
        data = event.data
        call["step"] = data.get("step", call["step"])
        match event.kind:
            case "intent":
                call.update(kind="tool", tool=data["tool"], arguments=data["arguments"], in_doubt=True)
            case "failed":
                call["kind"] = "model" if data["act"] == "ask" else "tool"
                kept = ("act", "outcome", "problem", "status")
                call["attempts"].append({"at": event.at, **{key: data[key] for key in kept if key in data}})
                call["in_doubt"] = data["in_doubt"]
                call["retry_at"] = data["not_before"]
                self.cost["model_calls" if data["act"] == "ask" else "tool_calls"] += 1
                self._count_tokens(data)
            case "absent":
                call["in_doubt"] = False
            case "asked":
                call["kind"] = call["kind"] or "person"
                call["step"] = call["step"] or data["question"]["step"]
                call["question"] = {
                    "name": call["name"],
                    "request_id": data["request_id"],
                    **data["question"],
                }
            case "decided":
                self._take_decision(call, event)
            case "result":
                reply = data["reply"]
                call.update(kind="tool", ended=True, ok=reply["ok"], by=reply["by"], in_doubt=False)
                call["error"] = reply["error"]
                self.cost["tool_calls"] += reply["by"] == "tool"
            case "reply":
                call.update(kind="model", ended=True)
                self.cost["model_calls"] += data.get("by") != "human"
                self._count_tokens(data)
            case "timer":
                call.update(kind="timer", until=data["until"])
            case "time":
                call.update(kind="time", ended=True)

    def _take_decision(self, call: Json, event: Event) -> None:
        question = call["question"] or {}
        told = {"at": event.at, "name": call["name"], "question": question.get("kind", "")}
        self.approvals.append({**told, "decision": event.data["decision"], "id": event.data["decision_id"]})
        call["question"] = None
        if call["kind"] == "person":
            call["ended"] = True
        if event.data["decision"] == "not_happened":
            call["in_doubt"] = False

    def _count_tokens(self, data: Mapping[str, Any]) -> None:
        usage = data.get("usage") or {}
        for key in ("prompt_tokens", "completion_tokens"):
            if isinstance(usage.get(key), int):
                self.cost[key] += usage[key]

    def hear(self, signal: Signal) -> None:
        if signal.kind in {"pause", "resume"}:
            self.paused = signal.kind == "pause"
        self.cancelled = self.cancelled or signal.kind == "cancel"


def _state(run: Run, told: _Told, open_calls: list[Json], workers: Collection[str], now: float) -> tuple[str, str]:
    if told.ending is not None:
        return told.ending["status"], told.ending["detail"]
    if run.owner is None:
        return "submitted", "no worker has taken it up yet"
    if run.owner not in workers:
        return "orphaned", f"its worker {run.owner} is gone; the next worker takes it up"
    if told.paused:
        return "paused", "an operator has paused it"
    return _waits_for(open_calls, now) or ("running", "")


def _waits_for(open_calls: list[Json], now: float) -> tuple[str, str] | None:
    """State and detail of a run all of whose open calls wait for a person or a timer."""
    asked = [call["question"] for call in open_calls if call["question"]]
    if asked and len(asked) == len(open_calls):
        return "waiting", f"for a person: {asked[0]['summary'] or asked[0]['kind']}"
    if open_calls and all(call["kind"] == "timer" for call in open_calls):
        return "sleeping", f"{min(call['until'] for call in open_calls) - now:.1f} s to go"
    return None


def _brief(call: Json) -> Json:
    kept = ("name", "kind", "step", "tool", "by", "error", "until", "retry_at")
    return {key: call[key] for key in kept if call.get(key) not in {None, ""}}


def _pending(run: Run, told: _Told) -> list[str]:
    """The plan's steps of which the journal says nothing yet, where the plan has steps with an id."""
    begun = {call["step"] for call in told.calls.values()}
    steps = run.payload.get("plan", {}).get("steps", [])
    ids = [step["id"] for step in steps if isinstance(step, dict) and "id" in step]
    return [step for step in ids if step not in begun] if told.ending is None else []


def _next(state: str, open_calls: list[Json]) -> str:
    if state in {"completed", "failed", "unknown"}:
        return "nothing"
    for call in open_calls:
        if call["question"]:
            kind = call["question"]["kind"]
            allowed = ANSWERS.get(kind, "continue or stop")
            return f"answer {kind} request {call['question']['request_id']}: {allowed}"
    if state == "paused":
        return "resume"
    if open_calls:
        return f"go on with {open_calls[0]['name']}"
    return "go on with the next step"


def _options(state: str) -> list[str]:
    match state:
        case "unknown":
            return ["submit"]
        case "completed":
            return []
        case "failed":
            return ["retry"]
        case "paused":
            return ["resume", "cancel"]
        case "waiting":
            return ["decide", "pause", "cancel"]
    return ["pause", "retry", "cancel"]


def describe(shown: Mapping[str, Any]) -> str:
    """A view as a person reads it, a line for each thing that matters."""
    if shown["state"] == "unknown":
        return "unknown run"
    lines = [f"run {shown['run_id']} ({shown['chain']}): {shown['state']}"]
    if shown["detail"]:
        lines[0] += f", {shown['detail']}"
    for title in ("done", "failed", "current"):
        for call in shown[title]:
            told = [str(call[key]) for key in ("tool", "by", "error") if key in call]
            lines.append(f"  {title:8} {call['name']}: {' '.join([call.get('kind', ''), *told])}")
    lines += [f"  pending  {step}" for step in shown["pending"]]
    for question in shown["questions"]:
        lines.append(f"  asked    {question['kind']} {question['request_id']}: {question['summary']}")
    for name, attempts in shown["evidence"].items():
        for attempt in attempts:
            lines.append(f"  tried    {name}: {attempt['act']} {attempt['outcome']}, {attempt['problem']}")
    lines += [f"  in doubt {name}: it may have had its effect" for name in shown["in_doubt"]]
    for given in shown["approvals"]:
        lines.append(f"  decided  {given['name']} ({given['question']}): {given['decision']}")
    cost = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in shown["cost"].items())
    lines.append(f"  cost     {cost}; claimed {shown['claims']} times, {shown['seconds']:.1f} s")
    lines.append(f"  next     {shown['next']}")
    if shown["options"]:
        lines.append(f"  you may  {', '.join(shown['options'])}")
    return "\n".join(lines)
