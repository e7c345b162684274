"""Random chains under random schedules of crashes and outcomes, in process: what must hold whatever happens.

A crash strikes at a journal write or an outside call: everything in memory is dropped, and a new incarnation
starts from the journal. The tape of numbers that Hypothesis draws decides what becomes of each of them.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.runtime import breaker
from kintsugi.runtime.breaker import Breaker
from kintsugi.runtime.carried import Carried, Means
from kintsugi.runtime.clock import moment
from kintsugi.runtime.context import MinimalContext
from kintsugi.runtime.journal import Claim
from kintsugi.runtime.protocol import ModelRequest, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import Outcome
from kintsugi.runtime.services import Services, Unanswered
from kintsugi.runtime.store import Event, Run, Signal

RESULT = {"type": "object", "required": ["id"]}


def tool(effect: str, idempotency: str) -> dict[str, Any]:
    known = {"parameters": {}, "result": RESULT, "approval": "never"}
    return {"effect": effect, "idempotency": idempotency, **known}


PLAN = {
    "model": "m",
    "tools": {
        "read": tool("read", "none"),
        "keyed": tool("write", "key"),
        "lookup": tool("write", "lookup"),
        "opaque": tool("write", "none"),
    },
    "policy": {"attempts": 2, "backoff_base_seconds": 0.0, "malformed_attempts": 2, "model_calls_max": 5},
}
RUN = Run("run", {"plan": PLAN}, "w", 1, ended=False, born=moment())

Step = tuple[str, int]
steps = st.tuples(st.sampled_from(["read", "keyed", "lookup", "opaque", "model", "person", "now"]), st.integers(0, 1))
chains = st.lists(st.lists(steps, min_size=1, max_size=3), min_size=1, max_size=5)
# Bytes, because Hypothesis fills them evenly; it shrinks them to zeros, for all is well.
tapes = st.binary(min_size=40, max_size=80)
# A machine that is busy meanwhile is no fault of the code.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class World:
    """Everything that outlives a crash, and the tape."""

    def __init__(self, tape: Iterable[int]) -> None:
        self._tape: Iterator[int] = iter(tape)
        self.events: list[Event] = []
        self.signals: list[Signal] = []
        self.effects: list[dict[str, Any]] = []
        self.questions: dict[str, Question] = {}
        self.sent: list[str] = []
        self.living: Incarnation | None = None

    def draw(self) -> int:
        """The next number below 15; 0, for all is well, for half of the tape and at its end."""
        drawn = next(self._tape, 0) % 30
        return drawn if drawn < 15 else 0


class Incarnation(Services):
    """One life of a worker: its journal and its services, which fall silent when it crashes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.crashed = asyncio.Event()
        world.living = self
        means = Means(self, self, Breaker(), draw=lambda: 0.0)
        self.carried = Carried(RUN, Claim("run", "w", 1), means, list(world.events), list(world.signals))

    async def crash(self) -> NoReturn:
        self.crashed.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def _alive(self) -> None:
        if self.crashed.is_set():
            await self.crash()
        # Others get their turn, as they would in real life.
        await asyncio.sleep(0)

    async def append(self, claim: Claim, events: list[Event], *, end: bool = False) -> None:
        await self._alive()
        drawn = self.world.draw()
        if drawn == 13:
            await self.crash()
        for event in events:
            # What another incarnation reads is what JSON made of it.
            data = json.loads(json.dumps(event.data))
            self.world.events.append(Event(event.kind, event.name, data, event.at, len(self.world.events) + 1))
        if drawn == 14:
            await self.crash()

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Outcome:
        await self._alive()
        self.world.sent.append(call.tool)
        drawn = self.world.draw()
        if drawn == 10:
            await self.crash()
        refused = ToolReply(ok=False, status=503, error="not now")
        if drawn == 7:
            return Outcome("refused", refused, retryable=True)
        unknown = Outcome("unknown", ToolReply(ok=False, status=0, error="no answer"), retryable=True)
        if drawn == 6:
            return unknown
        known = [effect for effect in self.world.effects if key is not None and effect["key"] == key]
        if drawn == 8 and not known:
            return Outcome("refused", ToolReply(ok=False, status=422, error="never"))
        if known:
            effect = known[0]
        else:
            arguments = dict(call.arguments)
            effect = {"id": len(self.world.sent), "tool": call.tool, "arguments": arguments, "key": key}
            effect["reference"] = reference
            if PLAN["tools"][call.tool]["effect"] == "write":  # type: ignore[index]
                self.world.effects.append(effect)
        if drawn == 11:
            await self.crash()
        if drawn == 5:
            return unknown
        result = {"nonsense": True} if drawn == 9 else {"id": effect["id"]}
        return Outcome("done", ToolReply(ok=True, result=result))

    async def find_effect(self, run_id: str, tool: str, reference: str) -> ToolReply | None:
        await self._alive()
        drawn = self.world.draw()
        if drawn in {5, 6, 7}:
            raise Unanswered("no answer")
        if drawn in {10, 11}:
            await self.crash()
        for effect in self.world.effects:
            if effect["reference"] == reference:
                return ToolReply(ok=True, result={"id": effect["id"]})
        return None

    async def model(self, run_id: str, request: ModelRequest, messages: list[Any], model: str) -> dict[str, Any]:
        await self._alive()
        self.world.sent.append("model")
        drawn = self.world.draw()
        if drawn in {10, 11}:
            await self.crash()
        if drawn in {5, 6, 7}:
            raise Unanswered("no answer")
        content = "nonsense" if drawn in {8, 9} else json.dumps({"id": len(self.world.sent)})
        return {"finish_reason": "stop", "message": {"content": content}}

    async def ask(self, run_id: str, request_id: str, question: Question) -> None:
        await self._alive()
        drawn = self.world.draw()
        if drawn in {5, 6, 7}:
            raise Unanswered("no answer")
        if drawn == 10:
            await self.crash()
        if request_id not in self.world.questions:
            self.world.questions[request_id] = question
            decision = {"decision_id": request_id, **self._decision(question)}
            self.world.signals.append(Signal(len(self.world.signals) + 1, "run", "decision", request_id, decision))
            if drawn == 11:
                await self.crash()
            self.carried.deliver(self.world.signals[-1])

    def _decision(self, question: Question) -> dict[str, Any]:
        """A halt is answered from the ledger."""
        if question.kind == "approval":
            return {"decision": "approve"}
        for effect in self.world.effects:
            if (effect["tool"], effect["arguments"]) == (question.tool, question.arguments):
                return {"decision": "happened", "result": {"id": effect["id"]}}
        return {"decision": "not_happened"}


async def do(ctx: MinimalContext, name: str, step: Step) -> object:
    kind, argument = step
    match kind:
        case "model":
            request = ModelRequest("s", [{"role": "user", "content": str(argument)}], schema=RESULT)
            return (await ctx.model(name, request))["parsed"]
        case "person":
            return (await ctx.ask_human(name, Question("approval", "s"))).decision
        case "now":
            await ctx.sleep(f"{name} sleep", 0)
            return await ctx.now(name)
    reply = await ctx.tool(name, ToolCall(kind, {"n": argument}), step=kind)
    return [reply.ok, reply.by, reply.result]


async def chain(ctx: MinimalContext, groups: list[list[Step]]) -> str:
    """Groups one after another, each side by side."""
    seen = []
    for at, group in enumerate(groups):
        seen.append(await asyncio.gather(*(do(ctx, f"{at}.{n}", step) for n, step in enumerate(group))))
    return json.dumps(seen)


async def live(world: World, groups: list[list[Step]]) -> str | None:
    """One incarnation's attempt; None where it crashed."""
    incarnation = Incarnation(world)
    task = asyncio.create_task(chain(MinimalContext(incarnation.carried), groups))
    crash = asyncio.create_task(incarnation.crashed.wait())
    await asyncio.wait({task, crash}, return_when=asyncio.FIRST_COMPLETED)
    crash.cancel()
    if not incarnation.crashed.is_set():
        return await task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def until_done(world: World, groups: list[list[Step]]) -> str:
    for _ in range(100):
        before = list(world.events)
        end = await live(world, groups)
        assert world.events[: len(before)] == before
        if end is not None:
            return end
    raise AssertionError("still not done after a hundred crashes")


@pytest.fixture(autouse=True)
def _no_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its waits have a test of their own.
    monkeypatch.setattr(breaker, "FAILURES_TO_OPEN", 10**9)


@settings(patient, max_examples=1500)
@given(groups=chains, tape=tapes)
def test_whatever_happens(groups: list[list[Step]], tape: bytes) -> None:
    world = World(tape)
    end = asyncio.run(until_done(world, groups))
    seen = json.loads(end)

    for name in ("keyed", "lookup", "opaque"):
        for argument in (0, 1):
            replies = [
                reply
                for group, told in zip(groups, seen, strict=True)
                for step, reply in zip(group, told, strict=True)
                if step == (name, argument)
            ]
            done = [reply for reply in replies if reply[0]]
            effects = [e for e in world.effects if (e["tool"], e["arguments"]) == (name, {"n": argument})]
            # The ledger and the journal tell the same truth, and nothing was done twice.
            assert len(effects) == len(done) <= 1
            assert [effect["id"] for effect in effects] == [reply[2]["id"] for reply in done]

    # A replay of the finished run comes to the same end, without a call or a write.
    sent, written = len(world.sent), len(world.events)
    assert asyncio.run(until_done(world, groups)) == end
    assert (len(world.sent), len(world.events)) == (sent, written)


@settings(patient, max_examples=150)
@given(groups=chains, tape=tapes, cut=st.integers(0, 200))
def test_any_prefix_of_the_journal_can_be_taken_up(groups: list[list[Step]], tape: bytes, cut: int) -> None:
    """What power loss may leave behind of what was never acknowledged still makes a run that ends."""
    world = World(tape)
    asyncio.run(until_done(world, groups))
    world.events = world.events[: cut % (len(world.events) + 1)]
    known = {event.name: event.data for event in world.events if event.kind in {"result", "reply"}}
    asyncio.run(until_done(world, groups))
    for event in world.events:
        if event.kind in {"result", "reply"}:
            assert known.get(event.name, event.data) == event.data


@settings(patient, max_examples=150)
@given(
    step=st.sampled_from(["read", "keyed", "lookup", "opaque", "model"]),
    failures=st.lists(st.sampled_from([6, 6, 7, 7, 10, 14]), max_size=40),
)
def test_attempts_stay_within_what_was_granted(step: str, failures: list[int]) -> None:
    """Each grant, the first and each of a person's, is for two attempts; a crash may add one."""
    world = World(failures)
    lives = 0

    async def run() -> None:
        nonlocal lives
        end = None
        while end is None:
            lives += 1
            end = await live(world, [[(step, 0)]])

    asyncio.run(run())
    assert len(world.sent) <= 2 * (1 + len(world.questions)) + lives
