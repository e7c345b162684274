"""Trial results and histories made by hand, for what is computed from them; and a trial's doors without a SUT."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from kintsugi.faults.points import Point
from kintsugi.golden_workflows.chains.naive import function_name
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.golden_workflows.walk import Visit, walk
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.crossing import Doors, Incoming
from kintsugi.harness.gateway import serve_model
from kintsugi.harness.history import History, of
from kintsugi.harness.human import Human as Person
from kintsugi.harness.processes import Exit
from kintsugi.harness.records import Human, Measures, Repeats, Times, TrialResult, Usage
from kintsugi.harness.session import TIME_SCALE, Generation, Session
from kintsugi.harness.world import serve_tools
from kintsugi.scenarios.trial import Strike, Trial

if TYPE_CHECKING:
    from kintsugi.golden_workflows.spec import Workflow
    from kintsugi.harness.history import Event

MakeResult = Callable[..., TrialResult]


@pytest.fixture
def make_result() -> MakeResult:
    """Makes a witnessed fault at a point of its own, recovered from at no cost, unless told otherwise.

    ``kind="baseline"`` or ``"clean"`` leaves the fault out; a ``"timing"`` has one unless ``fault=""``.
    """
    numbers = count()

    def make(**changes: Any) -> TrialResult:
        number = next(numbers)
        plain = TrialResult(
            id=f"t{number:05}",
            kind="fault",
            sut="minimal",
            chain="optimized",
            workflow="finance/invoice_payment",
            workflow_class="finance",
            seed=7,
            variance="none",
            fault="worker_kill",
            form="at_boundary",
            points=(f"tool:pay[{number}]#1@before",),
            phase="before",
            layer="execution",
            dealt_with_by="engine",
            weight=1.0,
            injection="witnessed",
            verdict="correct",
            reason="",
            resumed_exactly=True,
            measures=Measures(),
            usage=Usage(),
            repeats=Repeats(),
            human=Human(),
            times=Times(),
        )
        calm = changes.get("kind") in {"baseline", "clean"} or changes.get("fault") == ""
        if calm:
            plain = replace(
                plain,
                fault="",
                form="",
                points=(),
                phase="",
                layer="",
                dealt_with_by="",
                injection="none",
                resumed_exactly=None,
                seed=number,
                variance="typical" if changes.get("kind") == "clean" else "none",
            )
        if "workflow" in changes:
            changes.setdefault("workflow_class", changes["workflow"].split("/")[0])
        return replace(plain, **changes)

    return make


# --- histories ----------------------------------------------------------------------------------------------

WORKFLOWS = load_workflows()
PROSE = " Best wishes. (B1)"
"""What the model adds to the free text of its script."""


class HandWritten:
    """A history written down step by step, as the harness would write it; `events` is what there is so far.

    What a step reads, asks or writes is that of the reference trajectory, on the records of the seed or, after
    `moves_on`, of a drift. Each event comes a hundredth of a second after the one before, or after a timer.
    """

    def __init__(self, workflow: Workflow, run: str = "r0", events: list[Event] | None = None) -> None:
        self.workflow = workflow
        self.run = run
        self.events: list[Event] = [] if events is None else events
        self.generation = 1
        self.drift: str | None = None
        self.questions = 0
        self.slept_seconds = 0.0
        """Since the last event."""

    # --- one event ------------------------------------------------------------------------------------------

    def add(self, who: str, what: str, **data: Any) -> Event:
        last = self.events[-1]["t"] if self.events else 0.0
        event = {"t": round(last + self.slept_seconds + 0.01, 4), "who": who, "what": what, **data}
        self.slept_seconds = 0.0
        self.events.append(event)
        return event

    def visits(self) -> list[Visit]:
        """The reference trajectory as the records are now."""
        return list(walk(self.workflow, self.drift, PROSE))

    def visit(self, step: str, item: int = 0) -> Visit:
        """One call of it; of the seed's where the drift's has none."""
        for drift in (self.drift, None):
            for visit in walk(self.workflow, drift, PROSE):
                if (visit.call.step, visit.call.item) == (step, item):
                    return visit
        raise KeyError(step, item)

    def named(self, step: str, item: int = 0) -> dict[str, Any]:
        """A new request's identity."""
        number = 1 + sum("occurrence" in event for event in self.events)
        same = sum((e.get("step"), e.get("item"), e.get("run")) == (step, item, self.run) for e in self.events)
        where = {"step": step, "item": item, "occurrence": 1 + same}
        return {"request": number, "run": self.run, "generation": self.generation, **where}

    # --- what a SUT does ------------------------------------------------------------------------------------

    def calls(self, step: str, item: int = 0, **changes: Any) -> dict[str, Any]:
        """A tool's request, whose arguments are altered by `changes`; nothing comes of it yet."""
        call = self.visit(step, item).call
        effect = self.workflow.tools[call.tool].effect
        named = self.named(step, item)
        self.add(
            "world",
            "request",
            **named,
            tool=call.tool,
            effect=effect,
            arguments={**call.arguments, **changes},
            key=None,
            reference=None,
            approved=False,
        )
        return named

    def takes_effect(self, named: dict[str, Any], unsafe: str = "") -> None:
        """The request is carried out: a read is served, or a write is in the ledger."""
        request = next(e for e in self.events if e["what"] == "request" and e["request"] == named["request"])
        visit = self.visit(named["step"], named["item"])
        same = {key: named[key] for key in ("request", "run", "generation", "step", "item")}
        if request["effect"] == "read":
            shown = {"result": visit.value} if self.workflow.steps[named["step"]].until else {}
            self.add("world", "read", **same, occurrence=1, record=visit.record, version='"1"', **shown)
        else:
            made = {"tool": request["tool"], "arguments": request["arguments"], "record": visit.record}
            self.add("world", "effect", **same, occurrence=1, **made, unsafe=unsafe)

    def answered(self, named: dict[str, Any], status: int = 200, *, told: bool = True) -> None:
        """The answer to a tool's request is sent, and reaches its client or not."""
        both = {"request": named["request"], "run": named["run"]}
        self.add("world", "answer", **both, status=status, replayed=False)
        self.add("world", "delivered", **both, delivered=told)

    def does(self, step: str, item: int = 0, unsafe: str = "", **changes: Any) -> HandWritten:
        """A whole call of a tool: requested, carried out, answered."""
        named = self.calls(step, item, **changes)
        self.takes_effect(named, unsafe)
        self.answered(named)
        return self

    def does_each(self, *steps: str) -> HandWritten:
        """A whole call of each of some steps, in order."""
        for step in steps:
            self.does(step)
        return self

    def asks_model(
        self, step: str, *, damaged: bool = False, answered: bool = True, says: str = "", told: bool = True
    ) -> HandWritten:
        """A judgement is asked for; the reply is the script's, or what it `says`, and reaches its client or not."""
        named = self.named(step)
        self.add("gateway", "ask", **named, n=1, wants="answer", prompt_tokens=100)
        if answered:
            right = json.dumps(self.visit(step).value)
            message = {"role": "assistant", "content": says or right}
            self._replies(named, message, {"kind": "answer", "content": right}, damaged=damaged, told=told)
        return self

    def model_calls(self, step: str, item: int = 0, **given: Any) -> HandWritten:
        """The model of a naive chain is asked, and makes the right call, or one with other arguments, or tool."""
        named = self.named(step, item)
        self.add("gateway", "ask", **named, n=1, wants="call", prompt_tokens=100)
        call = self.visit(step, item).call
        function = function_name(given.pop("tool", call.tool))
        made = {"name": function, "arguments": json.dumps({**call.arguments, **given})}
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": made}]}
        right = {"function": function_name(call.tool), "arguments": json.dumps(call.arguments)}
        self._replies(named, message, {"kind": "call", **right}, wants="call")
        return self

    def _replies(
        self,
        named: dict[str, Any],
        message: dict[str, Any],
        right: dict[str, Any],
        *,
        wants: str = "answer",
        damaged: bool = False,
        told: bool = True,
    ) -> None:
        said = {"message": message, "finish_reason": "stop", "right": right, "damaged": damaged}
        tokens = {"prompt_tokens": 100, "completion_tokens": 20}
        self.add("gateway", "generated", **named, **tokens, cached_prompt_tokens=0)
        self.add("gateway", "reply", **named, wants=wants, as_scripted=not damaged, **said, **tokens)
        self.add("gateway", "delivered", request=named["request"], run=self.run, delivered=told)

    def asks_person(self, kind: str, step: str, item: int = 0, *, re_asked: bool = False, **of: Any) -> str:
        """A question (with `tool` and `arguments` where it is about a call); its id."""
        self.questions += 1
        question = f"{self.run}-q{self.questions}"
        about = {"tool": "", "arguments": {}, **of}
        named = self.named(step, item)
        more = {"summary": "", "evidence": {}, "re_asked": re_asked}
        self.add("human", "asked", **named, question=question, kind=kind, **about, **more)
        return question

    def halts(self, kind: str, step: str, item: int = 0, **of: Any) -> str:
        """A halt about the call of a step, where nothing else is said."""
        call = self.visit(step, item).call
        about = {"tool": call.tool, "arguments": call.arguments, **of}
        return self.asks_person(kind, step, item, **about)

    def decides(self, question: str, decision: str) -> HandWritten:
        """The person's answer, delivered."""
        asked = next(e for e in self.events if e.get("question") == question)
        same = {"run": self.run, "question": question, "kind": asked["kind"], "step": asked["step"]}
        self.add("human", "decided", **same, decision=decision)
        self.add("human", "delivered", **same)
        return self

    def approval(self, step: str, decision: str = "approve", item: int = 0) -> HandWritten:
        """An approval is asked for and answered."""
        return self.decides(self.halts("approval", step, item), decision)

    def ends(self, status: str = "completed", detail: str = "all steps done") -> HandWritten:
        """The end report."""
        self.add("human", "end_report", **self.named("end"), status=status, detail=detail)
        return self

    # --- a whole run ----------------------------------------------------------------------------------------

    def starts(self) -> HandWritten:
        """A worker starts and is handed the run."""
        self.add("runner", "started", generation=self.generation, node="node1", pid=40 + self.generation)
        self.add("runner", "submitted", runs=1)
        return self

    def goes_on(self, start: str = "", *, until: str = "", leave_out: tuple[str, ...] = ()) -> HandWritten:
        """The reference trajectory from a step on, to its end or up to (without) another; each wait is approved."""
        steps = [visit.call.step for visit in self.visits()]
        first = steps.index(start) if start else 0
        last = steps.index(until) if until else len(steps)
        for visit in self.visits()[first:last]:
            call = visit.call
            if call.step in leave_out:
                continue
            if call.needs_approval:
                self.approval(call.step, item=call.item)
            if call.kind == "model":
                self.asks_model(call.step)
            elif call.kind == "tool":
                self.does(call.step, call.item)
            else:
                self.slept_seconds += call.arguments["seconds"] * TIME_SCALE
        return self

    def is_correct(self) -> HandWritten:
        """A whole correct run, up to its end report."""
        return self.starts().goes_on().ends()

    # --- what the harness does ------------------------------------------------------------------------------

    def struck(self, *, witnessed: bool = True, strike: int = 0, after: int | None = None) -> HandWritten:
        """The nemesis carries out a strike (`after` that request's answer), and sees that it happened or does not."""
        is_ = "a strike" if after is None else "a strike@after"
        self.add("nemesis", "injected", strike=strike, is_=is_, request=after)
        if witnessed:
            self.add("nemesis", "witnessed", strike=strike, evidence="seen")
        return self

    def missed(self, why: str, strike: int = 0) -> HandWritten:
        """A strike does not succeed."""
        self.add("nemesis", "missed", strike=strike, why=why)
        return self

    def moves_on(self, drift: str) -> HandWritten:
        """A record changes as the drift declares."""
        happening = self.workflow.drifts[drift]
        self.add("world", "drift", run=self.run, record=happening.record, set=happening.set, version=2)
        self.drift = drift
        return self

    def dies(self, *, restarted: bool = True, code: int = -9) -> HandWritten:
        """The worker ends; another takes its place or not."""
        exited = {"code": code, "signal": max(-code, 0), "cpu_seconds": 0.1, "output": ""}
        self.add("runner", "exited", generation=self.generation, **exited)
        if restarted:
            self.generation += 1
            self.add("runner", "started", generation=self.generation, node="node1", pid=40 + self.generation)
        return self

    def closed(self) -> list[Event]:
        """The trial is over; its events."""
        self.add("runner", "status", run=self.run, state="unknown")
        self.add("runner", "used", generation=1, cpu_seconds=0.25)
        self.add("runner", "closed")
        return self.events


WriteHistory = Callable[..., HandWritten]
MakeTrial = Callable[..., Trial]


@pytest.fixture(scope="session")
def write_history() -> WriteHistory:
    """Begins the history of a run; of a shipped workflow by its name: ``write_history("finance/invoice_payment")``."""

    def write(workflow: str | Workflow, run: str = "r0", events: list[Event] | None = None) -> HandWritten:
        return HandWritten(WORKFLOWS[workflow] if isinstance(workflow, str) else workflow, run, events)

    return write


@pytest.fixture(scope="session")
def make_trial() -> MakeTrial:
    """Makes a trial: clean, or with the strikes that are given as ``fault.form@point``."""

    def make(workflow: str, *strikes: str, **more: Any) -> Trial:
        schedule = []
        for strike in strikes:
            fault, _, rest = strike.removeprefix("then ").partition(".")
            form, _, point = rest.partition("@")
            schedule.append(Strike(fault, form, Point.parse(point), then=strike.startswith("then ")))
        kind: Any = more.pop("kind", "fault" if strikes else "clean")
        return Trial(kind, "minimal", "optimized", workflow, tuple(schedule), seed=7, **more)

    return make


# --- a trial's doors, open, with no SUT behind them ---------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """What came back for a request; the body is parsed where it is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]


class StandIn:
    """Stands in for a launcher: a kill is over, with signal 9, once a test has set `reaped`."""

    pid = 0

    def __init__(self) -> None:
        self.reaped = asyncio.Event()
        self.asked_to_kill = asyncio.Event()

    async def kill(self, process: object) -> Exit:
        self.asked_to_kill.set()
        await self.reaped.wait()
        return Exit(-9, 9, 0.0)

    async def stop(self, process: object) -> bool:
        return not self.reaped.is_set()

    async def resume(self, process: object) -> bool:
        return not self.reaped.is_set()


class WatchedHistory(History):
    """A history whose events can be waited for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._changed = asyncio.Event()

    def add(self, who: str, what: str, **data: Any) -> Event:
        event = super().add(who, what, **data)
        self._changed.set()
        return event

    async def until(self, who: str, what: str, count: int = 1) -> Event:
        """Wait until a party has had so many events of a kind; the last of them."""
        async with asyncio.timeout(20):
            while len(found := of(self.events, who, what)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]


class OpenDoors:
    """One trial's doors and person, and an HTTP client that sends what a worker of the SUT would send."""

    def __init__(self, session: Session, workers: StandIn, http: ClientSession, history: WatchedHistory) -> None:
        self.session, self.workers, self.http = session, workers, http
        self.until = history.until
        services = {"tools": serve_tools, "model": serve_model, "human": self._human}
        self.doors = Doors(session, services)
        self.person = Person(session, self.doors.nemesis)
        self.worker = self.new_worker()

    async def _human(self, incoming: Incoming) -> None:
        await self.person.serve(incoming)

    def new_worker(self) -> Generation:
        generation = self.session.new_generation("node1")
        generation.process = self.workers  # type: ignore[assignment] # only handed on to the stand-in
        return generation

    def saw(self, who: str, *what: str) -> list[Event]:
        """What the history holds of one party so far."""
        return of(self.session.history.events, who, *what)

    async def post(
        self, service: str, path: str, body: object = None, *, token: str | None = None, **headers: str
    ) -> Answered:
        """Post a JSON body; ``idempotency_key="k"`` is the header ``Idempotency-Key``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.worker.token if token is None else token}"
        data = json.dumps(body).encode()
        async with self.http.post(self.session.urls[service] + path, data=data, headers=sent) as response:
            text = await response.text()
            parsed = json.loads(text) if response.content_type == "application/json" else text
            return Answered(response.status, parsed, response.headers)

    async def call(self, tool: str, arguments: Mapping[str, Any], **headers: str) -> Answered:
        """Call a tool."""
        return await self.post("tools", f"/{tool}", dict(arguments), **headers)

    async def decision(self, tool: str, arguments: Mapping[str, Any], request_id: str = "q1") -> dict[str, Any]:
        """Ask for an approval and poll until it is decided."""
        asked = {"kind": "approval", "request_id": request_id, "tool": tool, "arguments": dict(arguments)}
        assert (await self.post("human", "/requests", asked)).status == 200
        while (found := (await self.post("human", f"/requests/{request_id}")).body["decision"]) is None:
            await asyncio.sleep(0.01)  # A poll, as a script polls.
        decision: dict[str, Any] = found
        return decision


NewDoors = Callable[..., AbstractAsyncContextManager[OpenDoors]]


@pytest.fixture
def open_doors(tmp_path: Path, make_trial: MakeTrial) -> NewDoors:
    """Opens a trial's doors: ``async with open_doors("finance/invoice_payment", "fault.form@point") as world``."""

    @asynccontextmanager
    async def opened(workflow: str = "finance/invoice_payment", *strikes: str, **more: Any) -> AsyncIterator[OpenDoors]:
        workers, clients = StandIn(), StandIn()
        history = WatchedHistory(tmp_path / "history.jsonl")
        session = Session(
            make_trial(workflow, *strikes, **more),
            WORKFLOWS[workflow],
            ADAPTERS["naive"],
            workers,  # type: ignore[arg-type] # no process is started
            clients,  # type: ignore[arg-type]
            history,
            tmp_path,
        )
        async with ClientSession() as http:
            world = OpenDoors(session, workers, http, history)
            await world.doors.open()
            try:
                yield world
                if session.broken.done():
                    session.broken.result()
            finally:
                session.closing = True
                workers.reaped.set()
                await session.end_tasks()
                await world.doors.close()
                history.close()

    return opened
