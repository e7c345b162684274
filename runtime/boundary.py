"""The commit boundary of one run: what must hold of a proposed tool call before any intent is recorded.

Pure memory of what the run has done, built up by the sequence of its calls, so it is the same at every
replay. Every durable context has one, whatever engine it stands on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.runtime.protocol import ToolCall, ToolReply
from kintsugi.runtime.rules import arguments_digest, canonical, refusal

__all__ = ["Boundary"]


class Boundary:
    """The boundary of a run of `plan`.

    `check` each new call before it is sent, and tell `committed` what came of each that passed. A call that
    was sent before a crash and is taken up again has been through `check` then, and is not checked again.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._tools: Mapping[str, Any] = plan["tools"]
        self._repeats_allowed = plan.get("policy", {}).get("repeat_writes", "refuse") == "allow"
        self._done: dict[str, ToolReply | None] = {}
        """Each write that was begun in this run; with its reply once it is committed."""

    def check(self, call: ToolCall, now: float) -> ToolReply | None:
        """The refusal of a call that must not be sent at `now` (Unix seconds), None where it may be.

        A write that is let through counts as begun: the same one (same tool, same arguments) is refused from
        here on, with the first one's result once there is one, unless that turns out to have had no effect.
        """
        spec = self._tools.get(call.tool)
        problem = refusal(spec, call, now)
        if spec is None or problem:
            return ToolReply(ok=False, status=0, error=problem, by="policy")
        if spec["effect"] == "read" or self._repeats_allowed:
            return None
        write = _write(call)
        if write in self._done:
            return _repeated(call, self._done[write])
        self._done[write] = None
        return None

    def begun(self, call: ToolCall) -> None:
        """A call was let through earlier, and what came of it is not known yet."""
        self._done.setdefault(_write(call), None)

    def committed(self, call: ToolCall, reply: ToolReply) -> None:
        """A call that was let through has come to its end; one without an effect may be made again.

        The boundary's own refusals are not of this kind, and change nothing.
        """
        if reply.by == "policy" or self._tools[call.tool]["effect"] == "read":
            return
        if reply.ok:
            self._done[_write(call)] = reply
        else:
            self.withdrawn(call)

    def withdrawn(self, call: ToolCall) -> None:
        """A call that was let through was given up without any effect, and may be made again."""
        self._done.pop(_write(call), None)


def _write(call: ToolCall) -> str:
    return f"{call.tool} {arguments_digest(call.arguments)}"


def _repeated(call: ToolCall, earlier: ToolReply | None) -> ToolReply:
    if earlier is None:
        error = f"{call.tool} is being done with exactly these arguments already; it isn't done twice."
        return ToolReply(ok=False, status=0, error=error, by="policy")
    error = (
        f"{call.tool} was already done in this run with exactly these arguments, and isn't done twice."
        f" Its result was {canonical(earlier.result)}"
    )
    return ToolReply(ok=False, result=earlier.result, version=earlier.version, status=0, error=error, by="policy")
