"""Whether a SUT keeps to the protocol: what its histories show, check by check. Pure.

A check is about the protocol, not about recovery: what becomes of a run after a kill is what the benchmark measures,
and is only noted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.reference import trajectory
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.adapters import Adapter
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.history import Event, of
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["WORKFLOW", "Called", "Finding", "clean_findings", "kill_findings", "left_finding", "trials", "two_findings"]

WORKFLOW = "marketing/campaign_launch"
"""Small, and with all there is: tools of every kind, an approval, a timer."""
SEED = 1
TAIL_LINES = 8


@dataclass(frozen=True)
class Finding:
    """What came of one check: `seen`, what to do about it, and the last lines that the worker printed."""

    name: str
    outcome: Literal["ok", "FAIL", "note", "skip"]
    seen: str
    advice: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class Called:
    """One call of a client verb: how long it took, and what went wrong."""

    verb: str
    seconds: float
    problem: str = ""


def trials(adapter: Adapter, workflow: Workflow) -> dict[str, Trial]:
    """The trials that are looked at, by what they are for."""
    chain = OWN if adapter.own_chain else "naive"
    step = next(call.step for call in trajectory(workflow) if call.needs_approval)

    def trial(*strikes: Strike, copies: int = 1, nodes: int = 1) -> Trial:
        kind: Literal["fault", "baseline"] = "fault" if strikes else "baseline"
        return Trial(kind, adapter.name, chain, workflow.name, strikes, SEED, copies=copies, nodes=nodes)

    committed, waiting = Point("tool", step, phase="committed"), Point("human", step, phase="waiting")
    found = {
        "clean": trial(),
        "two": trial(copies=2),
        "restart": trial(Strike("worker_kill", "at_boundary", committed)),
        "restart while waiting": trial(Strike("worker_kill", "at_boundary", waiting)),
    }
    if adapter.fails_over:
        found["fail-over"] = trial(Strike("node_loss", "process", committed), nodes=2)
    return found


# --- a run without a fault ----------------------------------------------------------------------------------


def clean_findings(
    adapter: Adapter, workflow: Workflow, events: Sequence[Event], result: TrialResult, calls: Sequence[Called]
) -> Iterator[Finding]:
    """What a run without any fault shows, and the `calls` of the verbs that there are.

    Where one of these fails, nothing else can be told.
    """
    verbs = list(_verbs(calls))
    yield from verbs
    broken = of(events, "runner", "broken")
    if broken:
        if not any(finding.outcome == "FAIL" for finding in verbs):
            yield Finding("completes", "FAIL", f"the trial broke: {broken[0]['error'].strip().splitlines()[-1]}")
        return
    yield _starts(events)
    yield _approval(workflow, events)
    yield _completes(adapter, workflow, events, result)
    yield _keys(workflow, events)
    if adapter.submit_first:
        yield _ends(events)


def _verbs(calls: Sequence[Called]) -> Iterator[Finding]:
    for verb in dict.fromkeys(call.verb for call in calls):
        mine = [call for call in calls if call.verb == verb]
        problems = [call.problem for call in mine if call.problem]
        if problems:
            yield Finding(f"verb {verb}", "FAIL", problems[0], _VERB_ADVICE.get(verb, ""))
        else:
            slowest = max(call.seconds for call in mine)
            yield Finding(f"verb {verb}", "ok", f"called {_times(len(mine))}, at most {slowest:.2f} s")


_VERB_ADVICE: Mapping[str, str] = {
    "submit": "it has to end with 0 (or answer 2xx) once the run is durable, whether or not a worker lives",
    "decide": "it has to end with 0 (or answer 2xx) once the decision is durable, and to take the same one twice",
    "status": 'it has to answer with a JSON object that has a "state", a text',
}


def _starts(events: Sequence[Event]) -> Finding:
    name = "worker starts"
    turned_away = of(events, "doors", "turned_away")
    first = next((e for e in events if _is_request(e)), None)
    started = of(events, "runner", "started")
    if first is not None and not turned_away:
        took = first["t"] - started[0]["t"]
        return Finding(name, "ok", f"pid {started[0]['pid']}, its first request {took:.2f} s after its start")
    if turned_away:
        status = turned_away[0]["status"]
        seen = f"{_times(len(turned_away))} a request was turned away with {status}"
        advice = (
            'send "Authorization: Bearer TOKEN" with the KINTSUGI_TOKEN of this very process'
            if status == 401
            else "Kintsugi-Run is the id of the run, under which it was submitted"
        )
        return Finding(name, "FAIL", seen, advice, _output(events))
    exits = of(events, "runner", "exited")
    seen = "no request came" + (f"; it ended with {exits[0]['code']}" if exits and not exits[0]["signal"] else "")
    advice = "it has to take up what was submitted and to call the URLs in its environment"
    if exits and exits[0]["code"] == 0:
        advice += "; if it looks for its runs only when it starts, set submit_first = true"
    return Finding(name, "FAIL", seen, advice, _output(events))


def _approval(workflow: Workflow, events: Sequence[Event]) -> Finding:
    name = "approval"
    asked = [e for e in of(events, "human", "asked") if e["kind"] == "approval"]
    unsafe = [e for e in of(events, "world", "effect") if e["unsafe"]]
    if unsafe:
        seen = f"{unsafe[0]['tool']} was called and took effect: {unsafe[0]['unsafe']}"
        advice = "ask first, and send the decision's token as Approval-Token with exactly the arguments asked about"
        return Finding(name, "FAIL", seen, advice)
    needed = next(call.tool for call in trajectory(workflow) if call.needs_approval)
    if not asked:
        advice = 'POST /human/requests with kind "approval", the tool and its arguments'
        return Finding(name, "FAIL", f"nobody was asked about {needed}", advice)
    delivered = of(events, "human", "delivered")
    if not delivered:
        return Finding(name, "FAIL", "the decision was never fetched", "poll POST /human/requests/ID until it is there")
    waited = delivered[0]["t"] - asked[0]["t"]
    return Finding(name, "ok", f"asked about {needed}, decided and heard of {waited:.2f} s later, token used")


def _completes(adapter: Adapter, workflow: Workflow, events: Sequence[Event], result: TrialResult) -> Finding:
    name = "completes"
    if result.verdict == "correct":
        ended = of(events, "human", "end_report")[0]["t"] - of(events, "runner", "started")[0]["t"]
        requests = sum(map(_is_request, events))
        return Finding(name, "ok", f"correct: {result.reason}; {requests} requests in {ended:.2f} s")
    advice = "kintsugi replay tells the story of a trial"
    asked = of(events, "gateway", "ask")
    if result.verdict == "failed":
        advice = "what the run said is above; refusals of the tools and of the model say what they miss"
    elif of(events, "runner", "extinct") and not adapter.submit_first:
        advice = (
            "a worker lives until it is killed; one that takes only what it finds at its start is submit_first = true"
        )
    elif asked and asked[-1]["step"] in workflow.steps and workflow.steps[asked[-1]["step"]].sleep_seconds:
        advice = "the last thing the model asked for was to wait: seconds of waiting are times KINTSUGI_TIME_SCALE"
    elif result.verdict == "lost":
        advice = 'a run ends with POST /human/end, {"status": "completed"} or "failed"'
    return Finding(name, "FAIL", f"{result.verdict}: {result.reason}", advice, _output(events))


def _keys(workflow: Workflow, events: Sequence[Event]) -> Finding:
    kinds = {"key": ("Idempotency-Key", "key"), "lookup": ("Client-Reference", "reference")}
    lacking = set()
    for request in of(events, "world", "request"):
        tool = workflow.tools.get(request["tool"])
        header, field = kinds.get(tool.idempotency, ("", "")) if tool is not None else ("", "")
        if tool is not None and tool.effect == "write" and header and not request[field]:
            lacking.add(f"{header} with {tool.name}")
    if lacking:
        return Finding("keys", "note", f"no {', no '.join(sorted(lacking))}: what is repeated happens twice")
    return Finding("keys", "ok", "every write that can be told apart from its repeat carries what tells it")


def _ends(events: Sequence[Event]) -> Finding:
    name = "worker ends"
    exits = of(events, "runner", "exited")
    if exits and exits[-1]["code"] == 0:
        return Finding(name, "ok", "with 0, when its runs had ended")
    seen = f"it ended with {exits[-1]['code']}" if exits and not exits[-1]["signal"] else "it was still there"
    advice = "with submit_first = true a worker ends, with 0, when its runs have ended"
    return Finding(name, "FAIL", seen, advice, _output(events))


# --- the others ---------------------------------------------------------------------------------------------


def two_findings(events: Sequence[Event], result: TrialResult) -> Iterator[Finding]:
    """What two runs at once show."""
    if result.verdict == "correct":
        yield Finding("two runs at once", "ok", "both correct")
        return
    advice = "every request says in Kintsugi-Run which run it is for; a storm is fifty runs at once"
    yield Finding("two runs at once", "FAIL", f"{result.verdict}: {result.reason}", advice, _output(events))


def kill_findings(name: str, events: Sequence[Event], result: TrialResult) -> Iterator[Finding]:
    """What a kill shows: whether the SUT came back at all, and, as a note, what became of the run."""
    witnessed = of(events, "nemesis", "witnessed")
    if not witnessed:
        yield Finding(name, "FAIL", f"the kill could not be made ({result.reason or result.injection})", "", ())
        return
    killed = witnessed[0]
    back = next((e for e in events if e["t"] > killed["t"] and _is_request(e)), None)
    if back is None:
        advice = (
            "fails_over = true says that a worker on another node takes its runs over"
            if name == "fail-over"
            else "a worker that is started again takes up, or begins again, the runs that have not ended"
        )
        yield Finding(name, "FAIL", "no request came after the kill", advice, _output(events))
        return
    took = back["t"] - killed["t"]
    yield Finding(name, "ok", f"killed with signal 9; worker {back['generation']} went on {took:.2f} s later")
    yield Finding("  and the run", "note", f"{result.verdict}: {result.reason}")


def left_finding(left: Sequence[int]) -> Finding:
    """Whether processes outlived the trials in which they were started."""
    if not left:
        return Finding("nothing left", "ok", "no process outlived its trial")
    advice = "what a worker starts stays in its process group; a process that leaves it (setsid) is not ended with it"
    pids = ", ".join(map(str, left))
    return Finding("nothing left", "FAIL", f"{len(left)} processes outlived their trial: {pids}", advice)


def _is_request(event: Event) -> bool:
    return (event["who"], event["what"]) in {("world", "request"), ("gateway", "ask"), ("human", "asked")}


def _output(events: Sequence[Event]) -> tuple[str, ...]:
    """The last lines that the first worker to say something has printed."""
    said = next((e["output"] for e in of(events, "runner", "exited") if e["output"].strip()), "")
    return tuple(said.strip().splitlines()[-TAIL_LINES:])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
