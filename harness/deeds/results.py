"""What is done to a tool's result on its way out."""

from __future__ import annotations

from typing import Any

from kintsugi.golden_workflows.reference import trajectory
from kintsugi.harness.deeds.blow import Blow, Tampering
from kintsugi.harness.injected import instruction
from kintsugi.harness.tampering import tampered

__all__ = ["tamper"]


async def tamper(blow: Blow) -> None:
    """Have the result of a call changed; the world says whether it was, and was delivered."""
    if blow.crossing is None:
        return
    how, armed, request = blow.action.how, blow.armed, blow.crossing.request
    workflow = blow.session.workflow
    text = ""
    if how == "instruction":
        needed = next((call for call in trajectory(workflow) if call.needs_approval), None)
        if needed is None:
            armed.missed("no call of this workflow needs an approval")
            return
        text = instruction(needed.tool, needed.arguments)
    schema = workflow.tools[workflow.steps[blow.crossing.step].tool or ""].result

    def change(result: Any) -> Any:
        return tampered(how, result, schema, text)

    def done(delivered: bool) -> None:  # noqa: FBT001 - a callback of one fact
        if delivered:
            armed.witness(f"the result was delivered with this done to it: {how}", request=request)
        elif not armed.witnessed:
            armed.missed("no changed result was delivered")

    blow.crossing.tampering = Tampering(how, change, done)
