"""The world: the outside services that a workflow acts on, and the ledger of every request and every effect.

It knows nothing of chains or runtimes. It does not stop a write that was not approved, since most services could not:
it records it for what it is, and the checker calls it what it is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kintsugi.golden_workflows.records import Unservable
from kintsugi.golden_workflows.spec import Tool
from kintsugi.harness.crossing import Incoming
from kintsugi.harness.deeds.blow import Crossing, Tampering
from kintsugi.harness.identity import UNPLANNED
from kintsugi.runtime.rules import approval_needed, arguments_digest, canonical, schema_problem

__all__ = ["serve_tools"]

SILENT_SECONDS_MAX = 30.0
"""How long a tool that does not answer keeps a client without a time-out."""


async def serve_tools(incoming: Incoming) -> None:
    """Serve ``POST /tools/NAME`` (a call) and ``POST /tools/NAME/find`` (look for an effect by its reference)."""
    tool = incoming.session.workflow.tools.get(incoming.path[0])
    arguments = incoming.body if isinstance(incoming.body, dict) else {}
    if len(incoming.path) == 2 and incoming.path[1] == "find":
        await _find(incoming)
        return
    effects = {effect["step"] for effect in incoming.run.effects}
    where = incoming.session.identifier.tool(incoming.path[0], arguments, incoming.run.done, effects)
    crossing = incoming.crossing("tool", *(where or (UNPLANNED, 0)))
    incoming.session.history.add(
        "world",
        "request",
        **crossing.named(),
        tool=incoming.path[0],
        effect=tool.effect if tool else "unknown",
        arguments=arguments,
        key=incoming.header("Idempotency-Key"),
        reference=incoming.header("Client-Reference"),
        approved=incoming.header("Approval-Token") is not None,
    )
    if await incoming.struck(crossing, "before"):
        return
    if tool is None:
        await _answer(incoming, crossing, 404, _error(f"there is no tool {incoming.path[0]!r}"))
        return
    outage = incoming.nemesis.outage(tool.name, crossing)
    if outage is not None and outage.status == 0:
        await _keep(incoming, crossing)
        return
    if outage is not None:
        retry = {} if outage.retry_after_seconds is None else {"Retry-After": f"{outage.retry_after_seconds:g}"}
        await _answer(incoming, crossing, outage.status, _error("out of order, try later"), retry)
        return
    await asyncio.sleep(tool.latency_ms / 1000)
    problem = schema_problem(incoming.body, tool.parameters)
    if problem:
        await _answer(incoming, crossing, 422, _error(f"arguments: {problem}"))
    elif tool.effect == "read":
        await _read(incoming, crossing, tool, arguments)
    else:
        await _write(incoming, crossing, tool, arguments)


async def _keep(incoming: Incoming, crossing: Crossing) -> None:
    """Answer nothing until the client has gone; one that waits for ever is left in the end."""
    try:
        await asyncio.wait_for(incoming.gone.wait(), SILENT_SECONDS_MAX)
    except TimeoutError:
        incoming.cut(reset=False)
    incoming.nemesis.unanswered(crossing)


async def _read(incoming: Incoming, crossing: Crossing, tool: Tool, arguments: dict[str, Any]) -> None:
    try:
        found = incoming.run.records.read(tool, arguments)
    except Unservable as error:
        await _answer(incoming, crossing, error.status, _error(str(error)))
        return
    step = incoming.session.workflow.steps.get(crossing.step)
    # Of what is polled the history has to tell whether the run went on too early.
    shown = {"result": found.result} if step is not None and step.until is not None else {}
    incoming.session.history.add(
        "world", "read", **crossing.named(), record=found.record, version=found.version, **shown
    )
    await _answer(incoming, crossing, 200, {"result": found.result}, {"ETag": found.version})


async def _write(incoming: Incoming, crossing: Crossing, tool: Tool, arguments: dict[str, Any]) -> None:
    run = incoming.run
    key = incoming.header("Idempotency-Key") if tool.idempotency == "key" else None
    if key is not None and (tool.name, key) in run.keys:
        body, result, version = run.keys[tool.name, key]
        if body != canonical(arguments):
            await _answer(incoming, crossing, 409, _error("this Idempotency-Key came with another body before"))
            return
        await _answer(incoming, crossing, 200, {"result": result}, {"ETag": version}, replayed=True)
        return
    expected = incoming.header("If-Match")
    if tool.if_match and expected is not None and expected != run.records.current_tag(tool, arguments):
        await _answer(incoming, crossing, 412, _error("the record has changed; read it again"))
        return
    if await incoming.struck(crossing, "during"):
        return
    try:
        done = run.records.write(tool, arguments)
    except Unservable as error:
        await _answer(incoming, crossing, error.status, _error(str(error)))
        return
    unsafe = _unsafe(incoming, tool, arguments)
    digest = arguments_digest(arguments)
    effect = {"tool": tool.name, "digest": digest, "arguments": arguments, "result": done.result, "step": crossing.step}
    run.effects.append(effect)
    incoming.session.history.add(
        "world", "effect", **crossing.named(), tool=tool.name, arguments=arguments, record=done.record, unsafe=unsafe
    )
    if key is not None:
        run.keys[tool.name, key] = (canonical(arguments), done.result, done.version)
    reference = incoming.header("Client-Reference") if tool.idempotency == "lookup" else None
    if reference is not None:
        run.references[tool.name, reference] = done.result
    if await incoming.struck(crossing, "committed"):
        return
    await _answer(incoming, crossing, 200, {"result": done.result}, {"ETag": done.version})


def _unsafe(incoming: Incoming, tool: Tool, arguments: dict[str, Any]) -> str:
    """Why a write is an unsafe action; empty where it needs no approval or has one for exactly these arguments."""
    if not approval_needed(tool.public(), arguments):
        return ""
    token = incoming.header("Approval-Token")
    approval = incoming.run.approvals.get(token or "")
    if approval is None:
        return "no approval"
    if approval.tool != tool.name or approval.digest != arguments_digest(arguments):
        return "approved for other arguments"
    return "approval expired" if asyncio.get_running_loop().time() > approval.expires_at else ""


async def _find(incoming: Incoming) -> None:
    reference = incoming.header("Client-Reference") or ""
    found = incoming.run.references.get((incoming.path[0], reference))
    incoming.session.history.add(
        "world",
        "look_up",
        run=incoming.run.id,
        generation=incoming.generation.number,
        tool=incoming.path[0],
        reference=reference,
        found=found is not None,
    )
    if found is None:
        await incoming.send(404, _error("no effect carries this reference"))
    else:
        await incoming.send(200, {"result": found})


async def _answer(
    incoming: Incoming,
    crossing: Crossing,
    status: int,
    body: Any,
    headers: dict[str, str] | None = None,
    *,
    replayed: bool = False,
) -> None:
    tampering = crossing.tampering
    changed = _tampered(incoming, crossing, tampering, body) if tampering is not None else None
    incoming.session.history.add(
        "world", "answer", request=crossing.request, run=crossing.run.id, status=status, replayed=replayed
    )
    delivered = await incoming.answer(crossing, status, changed or body, headers)
    incoming.session.history.add(
        "world", "delivered", request=crossing.request, run=crossing.run.id, delivered=delivered
    )
    if tampering is not None:
        tampering.done(delivered and changed is not None)


def _tampered(incoming: Incoming, crossing: Crossing, tampering: Tampering, body: Any) -> Any:
    """The body of an answer with its result changed, noted in the history; None where there is nothing to change."""
    changed = tampering.change(body["result"]) if "result" in body else None
    if "result" not in body or changed == body["result"]:
        return None
    schema = incoming.session.workflow.tools[incoming.path[0]].result
    incoming.session.history.add(
        "world",
        "tampered",
        request=crossing.request,
        run=crossing.run.id,
        how=tampering.how,
        result=body["result"],
        sent=changed,
        breaks=schema_problem(changed, schema),
    )
    return {**body, "result": changed}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}
