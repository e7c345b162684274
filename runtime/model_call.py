"""A durable model call: ask, turn down what must not enter state, and record the first reply that may."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kintsugi.runtime.calls import MODEL_CALLS, Call, next_for_model
from kintsugi.runtime.carried import Carried
from kintsugi.runtime.protocol import ModelRequest, Question, WorkflowFailed
from kintsugi.runtime.rules import (
    Rejected,
    accept_reply,
    backoff_seconds,
    canonical,
    idempotency_key,
    repair_messages,
    schema_problem,
)
from kintsugi.runtime.services import Unanswered

__all__ = ["durable_model"]

LOG = logging.getLogger(__name__)


async def durable_model(run: Carried, name: str, request: ModelRequest) -> Mapping[str, Any]:
    """The model's reply, asked for again until it is acceptable or a budget is spent.

    What is recorded under the name stands also where the question is now put in other words: a release may change them.
    Raises WorkflowFailed when a person stops the run, Fenced when the run is someone else's.
    """
    digest = hashlib.sha256(canonical(asdict(request)).encode()).hexdigest()
    recorded = run.calls.get(name, Call())
    if recorded.digest not in {"", digest} and _stands(recorded, request):
        LOG.warning("run %s: %r was asked in other words, by an older release of its chain", run.run_id, name)
    else:
        run.call(name, digest)
    while (known := run.calls.get(name, Call())).end is None:
        match next_for_model(known, run.policy, run.asks):
            case "answer":
                await _take_answer(run, name, digest, request, known)
            case "stop":
                raise WorkflowFailed(f"{request.step}: a person stopped the run; {known.problem}")
            case "halt_budget":
                spent = "malformed_attempts" if known.rejected >= run.policy.malformed_attempts else "attempts"
                await _halt(run, name, digest, request, known, spent)
            case "halt_model_calls":
                await _halt(run, name, digest, request, known, MODEL_CALLS)
            case "ask":
                await _ask(run, name, digest, request, known)
    message: Mapping[str, Any] = known.end["message"]
    return message


def _stands(recorded: Call, request: ModelRequest) -> bool:
    """Whether what is recorded of a question that was put in other words is as good for this one."""
    if recorded.end is None:
        return True
    message = recorded.end.get("message")
    return message is not None and (request.schema is None or not schema_problem(message.get("parsed"), request.schema))


async def _ask(run: Carried, name: str, digest: str, request: ModelRequest, known: Call) -> None:
    messages = repair_messages(request, known.rejection) if known.rejection else list(request.messages)
    failure = {"digest": digest, "step": request.step, "act": "ask", "in_doubt": False}
    await run.back_off(known.not_before)
    usage = None
    try:
        async with run.turn("model") as slot:
            try:
                choice = await run.means.services.model(run.run_id, request, messages, run.plan["model"])
                slot.answered()
            except Unanswered as error:
                slot.failed(error.retry_after_seconds)
                raise
        usage = choice.get("usage")
        message = accept_reply(request, choice)
    except Unanswered as error:
        wait = backoff_seconds(run.policy.budget, known.sends_failed + 1, error.retry_after_seconds, run.means.draw())
        failure |= {"outcome": "unknown", "problem": str(error), "status": error.status}
        await run.record(run.event("failed", name, **failure, not_before=run.clock.now() + wait))
    except Rejected as error:
        failure |= {"outcome": "rejected", "problem": str(error), "usage": usage}
        await run.record(run.event("failed", name, **failure, not_before=0.0))
    else:
        reply = run.event("reply", name, digest=digest, step=request.step, message=message, usage=usage)
        await run.record(reply)


async def _halt(run: Carried, name: str, digest: str, request: ModelRequest, known: Call, spent: str) -> None:
    question = Question(
        kind="budget",
        step=request.step,
        summary=f"the model was asked too often in step {request.step} ({spent}): {known.problem}",
        evidence={"budget": spent, "attempts": list(known.attempts), "asks_of_the_run": run.asks},
    )
    request_id = idempotency_key(run.run_id, f"{name}/halt {known.questions + 1}")
    await run.ask(name, request_id, question, digest)


async def _take_answer(run: Carried, name: str, digest: str, request: ModelRequest, known: Call) -> None:
    assert known.question is not None
    decision = await run.decided(known.question["request_id"])
    spent = known.question["question"]["evidence"].get("budget")
    data = {**asdict(decision), "budget": spent}
    if decision.decision != "happened":
        await run.record(run.event("decided", name, **data))
        return
    # A person answered in the model's place.
    problem = "" if request.schema is None else schema_problem(decision.result, request.schema)
    decided = run.event("decided", name, **data, problem=problem)
    message = _message(request, decision.result)
    reply = run.event("reply", name, digest=digest, step=request.step, message=message, by="human")
    await run.record(decided, *([] if problem else [reply]))


def _message(request: ModelRequest, result: object) -> Mapping[str, Any]:
    if request.schema is not None:
        return {"role": "assistant", "content": json.dumps(result), "parsed": result}
    return dict(result) if isinstance(result, dict) else {"role": "assistant", "content": str(result)}
