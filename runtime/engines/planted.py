"""SUTs with one bug each: the minimal runtime with exactly one thing broken, to prove that the benchmark sees it.

Each is a side of its own (see `Planted`). A bug is planted in a worker when it begins to work, in that process alone:
whoever else has loaded the runtime has the right one. Two more bugs are in `golden_workflows.chains.planted`.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from types import ModuleType
from typing import Any

from kintsugi.runtime import breaker, calls, context, minimal, model_call, rules, tool_call, worker
from kintsugi.runtime.breaker import Circuit
from kintsugi.runtime.calls import Call
from kintsugi.runtime.carried import Carried, Means
from kintsugi.runtime.context import MinimalContext
from kintsugi.runtime.journal import Claim, Journal
from kintsugi.runtime.leases import Lease
from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import Move, Outcome
from kintsugi.runtime.services import Services, Unanswered
from kintsugi.runtime.store import Event, Run, Signal, append_rows, connect, transaction
from kintsugi.runtime.tool_call import _ToolCall
from kintsugi.runtime.worker import Chain

__all__ = [
    "ASKS_AGAIN",
    "BELIEVES_THE_MODEL",
    "BELIEVES_THE_TOOLS",
    "COUNTS_ITS_STEPS",
    "DIES_SILENTLY",
    "FORGETS_A_PAUSE",
    "FORGETS_THE_LAST_STEP",
    "LOSES_APPROVALS",
    "NEW_KEY_EACH_TIME",
    "NO_BACKOFF",
    "NO_FENCING",
    "NO_KEY",
    "RECORDS_FIRST",
    "SAYS_IT_IS_DONE",
    "SENDS_AGAIN_BLINDLY",
    "STARTS_ANEW",
    "Planted",
]


class Planted:
    """The minimal runtime's side, with (module, name, what stands there instead) for each part that is broken."""

    provision = staticmethod(minimal.provision)
    submit = staticmethod(minimal.submit)
    decide = staticmethod(minimal.decide)
    status = staticmethod(minimal.status)
    pause = staticmethod(minimal.pause)
    resume = staticmethod(minimal.resume)

    def __init__(self, *parts: tuple[ModuleType, str, object]) -> None:
        self._parts = parts

    async def work(self, environment: Mapping[str, str], chains: Mapping[str, Chain]) -> None:
        """Be a worker of the broken runtime. Only in a process that does nothing else."""
        for module, name, broken in self._parts:
            setattr(module, name, broken)
        await minimal.work(environment, chains)


# --- what a worker remembers --------------------------------------------------------------------------------


class _Forgetful(Carried):
    """Taken up again, a run does not know of the last step that was done."""

    def __init__(self, run: Run, claim: Claim, means: Means, events: list[Event], signals: list[Signal]) -> None:
        last = [event.name for event in events if event.kind in {"result", "reply"}][-1:]
        super().__init__(run, claim, means, [event for event in events if event.name not in last], signals)


FORGETS_THE_LAST_STEP = Planted((worker, "Carried", _Forgetful))


def _approvals(events: Iterable[Event]) -> set[str]:
    """The names under which a person was asked for an approval."""
    return {e.name for e in events if e.kind == "asked" and e.data["question"]["kind"] == "approval"}


class _LosesApprovals(Carried):
    """Taken up again, a run waits for the decisions that it had already."""

    def __init__(self, run: Run, claim: Claim, means: Means, events: list[Event], signals: list[Signal]) -> None:
        self._lost = {signal.signal_id for signal in signals if signal.kind == "decision"}
        asked = _approvals(events)
        kept = [event for event in events if event.kind != "decided" or event.name not in asked]
        super().__init__(run, claim, means, kept, signals)

    def deliver(self, signal: Signal) -> None:
        if signal.signal_id not in self._lost:
            super().deliver(signal)


LOSES_APPROVALS = Planted((worker, "Carried", _LosesApprovals))


class _ForgetsQuestions(Carried):
    """Taken up again, a run does not know that it has asked."""

    def __init__(self, run: Run, claim: Claim, means: Means, events: list[Event], signals: list[Signal]) -> None:
        asked = _approvals(events)
        super().__init__(run, claim, means, [event for event in events if event.name not in asked], signals)


def _new_id(*_: str) -> str:
    """The id of a question that nobody has asked yet."""
    return uuid.uuid4().hex


ASKS_AGAIN = Planted((worker, "Carried", _ForgetsQuestions), (context, "idempotency_key", _new_id))


# --- what it does to the world ------------------------------------------------------------------------------


class _RecordsFirst(_ToolCall):
    """The result is in the journal before the effect is in the world."""

    async def _attempt(self, known: Call, *, write: bool) -> Outcome:
        if write:
            await self._run.record(self._result(ToolReply(ok=True, result={})))
        return await super()._attempt(known, write=write)


RECORDS_FIRST = Planted((tool_call, "_ToolCall", _RecordsFirst))


class _NoKey(Services):
    """A write is sent without its idempotency key."""

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Outcome:
        return await super().tool(run_id, call, key=None, reference=reference)


NO_KEY = Planted((worker, "Services", _NoKey))


class _NewKey(Services):
    """Every attempt has a key of its own."""

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Outcome:
        return await super().tool(run_id, call, key=key and uuid.uuid4().hex, reference=reference)


NEW_KEY_EACH_TIME = Planted((worker, "Services", _NewKey))


def _send_again(spec: Mapping[str, Any], *, in_doubt: bool) -> Move:
    """Also a call of an opaque tool that may have happened."""
    move = rules.first_move(spec, in_doubt=in_doubt)
    return "send" if move == "halt" else move


SENDS_AGAIN_BLINDLY = Planted((calls, "first_move", _send_again))


class _SaysItIsDone(_ToolCall):
    """An attempt that came to nothing is taken to have worked."""

    def _believed(self, known: Call, outcome: Outcome) -> Outcome:
        outcome = super()._believed(known, outcome)
        return Outcome("done", ToolReply(ok=True, result={})) if outcome.retryable else outcome


SAYS_IT_IS_DONE = Planted((tool_call, "_ToolCall", _SaysItIsDone))


class _DiesSilently(Services):
    """The first attempt that comes to nothing is the end of the process, without a word and as if all were well."""

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Outcome:
        outcome = await super().tool(run_id, call, key=key, reference=reference)
        if outcome.retryable:
            os._exit(0)
        return outcome

    async def model(self, run_id: str, request: ModelRequest, messages: list[Any], model: str) -> Mapping[str, Any]:
        try:
            return await super().model(run_id, request, messages, model)
        except Unanswered:
            os._exit(0)


DIES_SILENTLY = Planted((worker, "Services", _DiesSilently))


class _ByPosition(MinimalContext):
    """A durable call is known by how many came before it, whatever its name."""

    def __init__(self, run: Carried) -> None:
        super().__init__(run)
        self._calls = itertools.count(1)

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        return await super().model(f"call {next(self._calls)}", request)

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        return await super().tool(f"call {next(self._calls)}", call, step=step, item=item)

    async def ask_human(self, name: str, question: Question) -> Decision:
        return await super().ask_human(f"call {next(self._calls)}", question)

    async def sleep(self, name: str, seconds: float) -> None:
        await super().sleep(f"call {next(self._calls)}", seconds)

    async def now(self, name: str) -> float:
        return await super().now(f"call {next(self._calls)}")


COUNTS_ITS_STEPS = Planted((worker, "MinimalContext", _ByPosition))


class _PausedInMemory(Carried):
    """A pause that came before the run was taken up is not known of."""

    def __init__(self, run: Run, claim: Claim, means: Means, events: list[Event], signals: list[Signal]) -> None:
        super().__init__(run, claim, means, events, [signal for signal in signals if signal.kind != "pause"])


FORGETS_A_PAUSE = Planted((worker, "Carried", _PausedInMemory))


# --- what it believes, how it waits, what it holds ----------------------------------------------------------


def _believe(request: ModelRequest, choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Any JSON is good enough, whatever the step's schema says."""
    return rules.accept_reply(request if request.schema is None else replace(request, schema={}), choice)


BELIEVES_THE_MODEL = Planted((model_call, "accept_reply", _believe))


def _believe_anything(*_: object) -> str:
    """Nothing is wrong with a tool's result, whatever it declares."""
    return ""


BELIEVES_THE_TOOLS = Planted((tool_call, "unexpected_result", _believe_anything))


def _at_once(*_: object) -> float:
    """The wait before the next attempt: none."""
    return 0.0


class _NeverOpen(Circuit):
    """A failing service is called as freely as a healthy one."""

    def end(self, now: float, *, probe: bool, healthy: bool | None, retry_after_seconds: float | None = None) -> None:
        pass


NO_BACKOFF = Planted((tool_call, "backoff_seconds", _at_once), (breaker, "Circuit", _NeverOpen))


class _Unfenced(Journal):
    """Whoever appends to a run may, also once it is another worker's."""

    async def append(self, claim: Claim, events: Iterable[Event], *, end: bool = False) -> None:
        rows = list(events)

        def operation(connection: sqlite3.Connection) -> None:
            append_rows(connection, claim.run_id, rows)
            if end:
                connection.execute("UPDATE runs SET ended = 1 WHERE run_id = ?", (claim.run_id,))

        await self.write(operation)


class _Undead(Lease):
    """It is never noticed that the others hold this worker to be dead."""

    def beat(self, connection: sqlite3.Connection) -> None:
        super().beat(connection)
        self.evicted = False


NO_FENCING = Planted((worker, "Journal", _Unfenced), (worker, "Lease", _Undead))


class _StartsAnew(Planted):
    """What is submitted is begun, also when it was before."""

    @staticmethod
    def submit(state_dir: str | os.PathLike[str], run_id: str, payload: Mapping[str, Any]) -> None:
        with closing(connect(state_dir)) as connection, transaction(connection):
            connection.execute("DROP TRIGGER IF EXISTS no_delete")
            connection.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
            connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
        minimal.submit(state_dir, run_id, payload)


STARTS_ANEW = _StartsAnew()
