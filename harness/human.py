"""The human: an inbox of questions, and a person who answers them late or soon, from the schedule and the ledger.

An approval is answered as the schedule says (by default with yes, an hour later). A halt is answered from the ledger,
as a person would who looks into the outside system: it happened, with this result; or it did not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kintsugi.faults.actions import Decide
from kintsugi.faults.points import Point
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.identity import UNPLANNED
from kintsugi.harness.nemesis import Nemesis
from kintsugi.harness.processes import VerbFailed
from kintsugi.harness.session import SECONDS_PER_HOUR, TIME_SCALE, Approval, Run, Session
from kintsugi.runtime.rules import arguments_digest, schema_problem

__all__ = ["Human"]

REPAIR_HOURS = 1.0
SETTLE = 0.4
"""The part of the wait for a decision after which the SUT is taken to be parked, and may be struck."""
DELIVERY_RETRY_SECONDS = 0.1
QUESTION = {
    "type": "object",
    "required": ["kind"],
    "properties": {
        "kind": {"enum": ["approval", "in_doubt", "budget", "stale", "verify"]},
        "request_id": {"type": "string"},
        "step": {"type": "string"},
        "item": {"type": "integer"},
        "tool": {"type": ["string", "null"]},
        "arguments": {"type": ["object", "null"]},
        "evidence": {"type": ["object", "null"]},
    },
}
END_REPORT = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": ["completed", "failed"]}},
}


class Human:
    """One trial's person. `serve` is the inbox; what the person does runs beside it."""

    def __init__(self, session: Session, nemesis: Nemesis) -> None:
        self._session = session
        self._nemesis = nemesis

    async def serve(self, incoming: Incoming) -> None:
        """Serve ``/human/requests`` (ask), ``/human/requests/ID`` (poll) and ``/human/end`` (the end report)."""
        if incoming.path == ["requests"]:
            await self._asked(incoming)
        elif len(incoming.path) == 2 and incoming.path[0] == "requests":
            await self._polled(incoming)
        elif incoming.path == ["end"]:
            await self._ended(incoming)

    # --- questions ------------------------------------------------------------------------------------------

    async def _asked(self, incoming: Incoming) -> None:
        body, run, history = incoming.body, incoming.run, self._session.history
        if await self._refused(incoming, QUESTION):
            return
        request_id = str(body.get("request_id") or secrets.token_hex(8))
        step, item = self._place(run, body)
        crossing = incoming.crossing("human", step, item)
        if await self._struck(incoming, crossing, body, "before"):
            return
        new = request_id not in run.questions
        if new:
            digest = arguments_digest(body.get("arguments") or {})
            live = body["kind"] == "approval" and any(
                other["tool"] == body.get("tool") and other["digest"] == digest and other["open"]
                for other in run.questions.values()
            )
            question = {**body, "request_id": request_id, "step": step, "item": item, "digest": digest, "open": True}
            question |= {
                "decision": None,
                "asked_at": asyncio.get_running_loop().time(),
                "witness": None,
                "tool": body.get("tool") or "",
                "asked_by": incoming.generation.number,
            }
            run.questions[request_id] = question
            history.add(
                "human",
                "asked",
                **crossing.named(),
                question=request_id,
                kind=body["kind"],
                tool=question["tool"],
                arguments=body.get("arguments") or {},
                summary=body.get("summary", ""),
                evidence=body.get("evidence") or {},
                re_asked=live,
            )
        if await self._struck(incoming, crossing, body, "committed"):
            if new:
                self._session.spawn(self._decide(run, run.questions[request_id], None))
            return
        # Where the acknowledgement is struck, the person's time begins after that, however long it took.
        later = self._nemesis.will_strike(crossing.point("after"))
        if new and not later:
            await self._start_deciding(run, run.questions[request_id])
        await incoming.answer(crossing, 200, {"request_id": request_id, "status": "pending"})
        if new and later:
            await self._start_deciding(run, run.questions[request_id])

    async def _refused(self, incoming: Incoming, form: Mapping[str, Any]) -> bool:
        """Whether a body is not of the form it should have; a SUT that sends such a one is told so."""
        problem = schema_problem(incoming.body, form)
        if problem:
            number = incoming.generation.number
            self._session.history.add("human", "refused", run=incoming.run.id, generation=number, why=problem)
            await incoming.send(422, {"error": {"message": problem}})
        return bool(problem)

    async def _struck(self, incoming: Incoming, crossing: Any, body: dict[str, Any], phase: str) -> bool:
        """Approvals are boundaries of the workflow; halts are the SUT's own, and are not struck."""
        return incoming.generation.dead if body.get("kind") != "approval" else await incoming.struck(crossing, phase)

    async def _start_deciding(self, run: Run, question: dict[str, Any]) -> None:
        planned = self._nemesis.decision(question["step"], question["item"]) if question["kind"] == "approval" else None
        if planned is not None and planned[0].before_wait:
            self._answer(run, question, planned[0])
            await self._deliver(run, question, planned[0], planned[1])
        else:
            self._session.spawn(self._decide(run, question, planned))

    def _place(self, run: Run, body: dict[str, Any]) -> tuple[str, int]:
        """The plan step that a question is about, told from the tool and arguments it names."""
        tool, arguments = body.get("tool"), body.get("arguments")
        if tool and isinstance(arguments, dict):
            where = self._session.identifier.tool(tool, arguments, run.done)
            if where is not None:
                return where
        step = str(body.get("step") or "")
        return (step, int(body.get("item") or 0)) if step in self._session.workflow.steps else (UNPLANNED, 0)

    # --- decisions ------------------------------------------------------------------------------------------

    async def _decide(
        self, run: Run, question: dict[str, Any], planned: tuple[Decide, Callable[[str], None]] | None
    ) -> None:
        if question["kind"] != "approval":
            await asyncio.sleep(REPAIR_HOURS * SECONDS_PER_HOUR)
            self._mend(run, question)
            await self._deliver(run, question, Decide(), None)
            return
        if planned is None:
            planned = self._nemesis.decision(question["step"], question["item"])
        decide, witness = planned or (Decide(), None)
        wait = decide.delay_hours * SECONDS_PER_HOUR
        await asyncio.sleep(wait * SETTLE)
        waiting = Point("human", question["step"], question["item"], self._count(run, question), "waiting")
        restarted = planned is not None and self._nemesis.will_kill(waiting)
        await self._nemesis.strike(waiting, run)
        await asyncio.sleep(wait * (1 - SETTLE))
        if restarted:
            # The schedule has this decision come after a restart, which may take longer than the person.
            await self._session.somebody(run)
        self._answer(run, question, decide)
        await self._deliver(run, question, decide, witness)

    @staticmethod
    def _count(run: Run, question: dict[str, Any]) -> int:
        """How many approvals of this step had been asked for, this one included."""
        same = [
            q
            for q in run.questions.values()
            if (q["kind"], q["step"], q["item"]) == ("approval", question["step"], question["item"])
        ]
        return same.index(question) + 1

    def _answer(self, run: Run, question: dict[str, Any], decide: Decide) -> None:
        decision: dict[str, Any] = {"decision_id": secrets.token_hex(8), "decision": decide.answer}
        if decide.answer == "approve":
            token = secrets.token_urlsafe(12)
            good_for = self._session.workflow.policy.approval_expires_seconds * TIME_SCALE
            run.approvals[token] = Approval(
                question["tool"], question["digest"], asyncio.get_running_loop().time() + good_for
            )
            decision |= {"token": token, "expires_at": _unix_now() + good_for}
        question["decision"] = decision
        self._decided(run, question)

    def _mend(self, run: Run, question: dict[str, Any]) -> None:
        """Answer a halt from the ledger, and end what is being done to the run, as a person who steps in would."""
        decision: dict[str, Any] = {"decision_id": secrets.token_hex(8), "decision": "continue"}
        tool = self._session.workflow.tools.get(question["tool"])
        if tool is not None and tool.effect == "write" and question["kind"] in {"in_doubt", "budget"}:
            found = [e for e in run.effects if (e["tool"], e["digest"]) == (tool.name, question["digest"])]
            decision["decision"] = "happened" if found else "not_happened"
            decision["result"] = found[-1]["result"] if found else None
        if question["kind"] == "budget":
            self._nemesis.mend()
        drift = self._session.workflow.drifts.get(self._session.trial.drift)
        if question["kind"] == "stale" and drift is not None and drift.outcome == "flag":
            decision["decision"] = "stop"
        question["decision"] = decision
        question["open"] = False
        self._decided(run, question)

    def _decided(self, run: Run, question: dict[str, Any]) -> None:
        self._session.history.add(
            "human",
            "decided",
            run=run.id,
            question=question["request_id"],
            kind=question["kind"],
            step=question["step"],
            decision=question["decision"]["decision"],
        )

    async def _deliver(
        self, run: Run, question: dict[str, Any], decide: Decide, witness: Callable[[str], None] | None
    ) -> None:
        """Push a decision until it is durably acknowledged, as often as it is to be delivered."""
        approval = question["kind"] == "approval"
        question["witness"] = None if witness is None else (witness, decide)
        if self._session.adapter.decisions == "poll":
            return
        point = Point("decision", question["step"], question["item"], 1, "before")
        if approval:
            await self._nemesis.strike(point, run)
        point = replace(point, phase="after")
        # As after any other answer: what the SUT does of it is held until it has been struck.
        with self._session.holding(wanted=approval and self._nemesis.will_strike(point)):
            for again in range(decide.deliveries):
                await self._push(run, question)
                if again:
                    self._session.disturbed()
            if approval:
                await self._nemesis.strike(point, run)

    async def _push(self, run: Run, question: dict[str, Any]) -> None:
        while not self._session.closing:
            # The run may have ended before this client has been heard of; its trial has not.
            self._session.under_way += 1
            try:
                await self._session.clients.call(
                    "decide", str(self._session.state_folder), run.id, question["request_id"], question["decision"]
                )
            except VerbFailed as error:
                self._session.history.add(
                    "human", "not_acknowledged", run=run.id, question=question["request_id"], error=str(error)
                )
            else:
                self._delivered(run, question)
                return
            finally:
                self._session.under_way -= 1
            await asyncio.sleep(DELIVERY_RETRY_SECONDS)

    def _delivered(self, run: Run, question: dict[str, Any]) -> None:
        """Note that a decision has reached the SUT, which is what witnesses how it was to be given."""
        if question["witness"] is not None:
            witness, decide = question["witness"]
            question["witness"] = None
            lives = len({g.number for g in self._session.generations.values() if g.number > question["asked_by"]})
            witness(f"decision {decide.answer} after {decide.delay_hours:g} h, {lives} worker(s) since the question")
        self._session.history.add(
            "human",
            "delivered",
            run=run.id,
            question=question["request_id"],
            step=question["step"],
            kind=question["kind"],
        )

    async def _polled(self, incoming: Incoming) -> None:
        """Answer a poll; only the one that brings the decision is a boundary."""
        question = incoming.run.questions.get(incoming.path[1])
        if question is None:
            await incoming.send(404, {"error": {"message": "there is no such question"}})
            return
        if question["decision"] is None:
            await incoming.send(200, {"decision": None})
            return
        if question["kind"] != "approval":
            if await incoming.send(200, {"decision": question["decision"]}):
                self._delivered(incoming.run, question)
            return
        crossing = incoming.crossing("decision", question["step"], question["item"])
        if await incoming.struck(crossing, "before"):
            return
        if await incoming.answer(crossing, 200, {"decision": question["decision"]}):
            self._delivered(incoming.run, question)

    # --- the end --------------------------------------------------------------------------------------------

    async def _ended(self, incoming: Incoming) -> None:
        if await self._refused(incoming, END_REPORT):
            return
        crossing, body = incoming.crossing("end", "end", 0), incoming.body
        if await incoming.struck(crossing, "before"):
            return
        self._session.history.add(
            "human",
            "end_report",
            **crossing.named(),
            status=body["status"],
            detail=str(body.get("detail", ""))[:500],
        )
        self._session.first_end = self._session.first_end or asyncio.get_running_loop().time()
        incoming.run.ended.set()
        if await incoming.struck(crossing, "committed"):
            return
        await incoming.answer(crossing, 200, {"status": "noted"})


def _unix_now() -> float:
    import time

    return time.time()
