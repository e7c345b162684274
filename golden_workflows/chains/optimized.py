"""The optimized chain: known structure is code; the model is asked only for judgement, with only what it needs.

Every model answer must satisfy its step's schema before it is used, and what was read before a wait is read again
after it: where it changed, whatever rests on it is decided again, and approved again if its arguments changed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.golden_workflows.plan import (
    POLLS_MAX,
    Instance,
    Results,
    dependents,
    due_together,
    settled,
    step_named,
)
from kintsugi.runtime.protocol import (
    Decision,
    DurableContext,
    ModelRequest,
    PolicyStop,
    Question,
    ToolCall,
    ToolReply,
    WorkflowFailed,
)
from kintsugi.runtime.rules import approval_needed, arguments_digest

__all__ = ["run"]

Plan = Mapping[str, Any]

APPROVALS_MAX = 3
"""How often one write's approval is asked for again because it had expired by the time it was used."""

SYSTEM = "You do one step of a larger workflow. Answer with one JSON object that satisfies the schema, nothing else."


async def run(ctx: DurableContext, plan: Plan) -> str:
    """Carry a plan to its end on a durable context and say how it ended."""
    return await _Chain(ctx, plan).run()


class _Chain:
    """What one run knows so far. It is built again, the same, at every replay."""

    def __init__(self, ctx: DurableContext, plan: Plan) -> None:
        self.ctx = ctx
        self.plan = plan
        self.results: Results = {}
        self.versions: dict[tuple[str, int], str | None] = {}
        self.arguments: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.approvals: dict[str, Decision] = {}
        self.waits = 0
        self.read_at: dict[tuple[str, int], int] = {}
        """For each read, how many waits had passed when it was last made."""
        self.calls: dict[str, int] = defaultdict(int)

    def name(self, what: str) -> str:
        """A name for a durable call that is new in this run and the same at a replay."""
        self.calls[what] += 1
        return f"{what}#{self.calls[what]}"

    async def run(self) -> str:
        """Do what is due until nothing is."""
        while due := due_together(self.plan, self.results):
            await (self.do(due[0]) if len(due) == 1 else self.do_together(due))
        return "all steps done"

    async def do_together(self, group: Sequence[Instance]) -> None:
        """Do steps of which none rests on another; their calls are named in the plan's order, before any begins."""
        named = [(self.name(f"{due.step}[{due.item}]"), due) for due in group]
        calls = [self.served(name, due.step, due.item, due.tool, due.values) for name, due in named]
        for due, reply in zip(group, await self.ctx.gather(*calls), strict=True):
            self.keep(due.step, due.item, due.values, reply)

    async def do(self, due: Instance) -> None:
        if due.kind == "sleep":
            await self.ctx.sleep(self.name(due.step), due.values["seconds"])
            self.waits += 1
            self.results[due.step] = {0: True}
        elif due.kind == "model":
            reply = await self.ctx.model(self.name(due.step), _question(self.plan, due))
            self.results[due.step] = {0: reply["parsed"]}
        elif self.plan["tools"][due.tool]["effect"] == "read":
            await self.read(due.step, due.item, due.tool, due.values)
        else:
            await self.write(due)

    async def read(self, step: str, item: int, tool: str, arguments: Mapping[str, Any]) -> None:
        """Make a read; one with ``until`` again and again, as time goes by, until that holds."""
        polling = step_named(self.plan, step)
        reply, reads = await self.served(self.name(f"{step}[{item}]"), step, item, tool, arguments), 1
        while not settled(self.plan, step, self.results, reply.result):
            if reads == polling.get("polls_max", POLLS_MAX):
                raise WorkflowFailed(f"{step}: what it waits for did not come in {reads} reads of {tool}")
            await self.ctx.sleep(self.name(f"poll {step}"), polling["every_seconds"])
            self.waits += 1
            reply, reads = await self.served(self.name(f"{step}[{item}]"), step, item, tool, arguments), reads + 1
        self.keep(step, item, arguments, reply)

    def keep(self, step: str, item: int, arguments: Mapping[str, Any], reply: ToolReply) -> None:
        """Remember what a call came to, and when it was made."""
        self.results.setdefault(step, {})[item] = reply.result
        self.versions[step, item] = reply.version
        self.arguments[step, item] = arguments
        self.read_at[step, item] = self.waits

    async def served(self, name: str, step: str, item: int, tool: str, arguments: Mapping[str, Any]) -> ToolReply:
        """The reply to a durable call that has to succeed."""
        reply = await self.ctx.tool(name, ToolCall(tool=tool, arguments=arguments), step=step, item=item)
        if not reply.ok:
            raise WorkflowFailed(f"{step}: {tool}: {reply.error}")
        return reply

    async def write(self, due: Instance) -> None:
        """Do a write once it is approved and nothing it rests on changed; else leave it due, with what is new."""
        step = step_named(self.plan, due.step)
        if await self.refresh(step):
            return
        arguments = due.values
        approval: Decision | None = None
        if approval_needed(self.plan["tools"][due.tool], arguments):
            approval = self.approvals.get(arguments_digest(arguments)) or await self.approve(due)
            arguments = approval.arguments or arguments
            if await self.refresh(step):
                return
        reply = await self.ctx.tool(
            self.name(f"{due.step}[{due.item}]"),
            ToolCall(
                tool=due.tool,
                arguments=arguments,
                approval=approval.token if approval else None,
                approval_expires_at=approval.expires_at if approval else None,
                if_match=self.if_match(step, due),
            ),
            step=due.step,
            item=due.item,
        )
        if reply.ok:
            self.results.setdefault(due.step, {})[due.item] = reply.result
        elif not await self.may_go_on(step, due, arguments, reply):
            raise WorkflowFailed(f"{due.step}: {due.tool}: {reply.error}")

    async def approve(self, due: Instance) -> Decision:
        question = Question(
            kind="approval",
            step=due.step,
            item=due.item,
            summary=f"{due.tool} for step {due.step}",
            tool=due.tool,
            arguments=due.values,
        )
        decision = await self.ctx.ask_human(self.name(f"approve {due.step}[{due.item}]"), question)
        self.waits += 1
        if decision.decision not in {"approve", "amend"}:
            raise PolicyStop(f"{due.step} was not approved ({decision.decision})")
        self.approvals[arguments_digest(due.values)] = decision
        return decision

    async def refresh(self, step: Mapping[str, Any], *, force: bool = False) -> bool:
        """Read again what the step needs fresh and was read before the last wait; whether anything changed."""
        changed = []
        again = self.fresh_reads(step) if force else self.outdated_reads(step)
        while again:
            for name, item in again:
                before = self.versions[name, item]
                await self.read(name, item, step_named(self.plan, name)["tool"], self.arguments[name, item])
                if self.versions[name, item] != before:
                    changed.append(name)
            # A read that has to be polled takes time, in which the others grow old.
            again = self.outdated_reads(step)
        if changed and step.get("on_stale") == "flag":
            question = Question(kind="stale", step=step["id"], summary="records changed", evidence={"changed": changed})
            decision = await self.ctx.ask_human(self.name(f"stale {step['id']}"), question)
            self.waits += 1
            if decision.decision == "stop":
                raise PolicyStop(f"{step['id']}: {', '.join(changed)} changed, and a person stopped the run")
        for name in changed:
            self.forget(name)
        return bool(changed)

    def fresh_reads(self, step: Mapping[str, Any]) -> list[tuple[str, int]]:
        """The reads that a step needs fresh, by step and item."""
        return [(name, item) for name in step.get("fresh", []) for item in sorted(self.results.get(name, {}))]

    def outdated_reads(self, step: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Those of them that were made before the last wait."""
        return [read for read in self.fresh_reads(step) if self.read_at[read] != self.waits]

    def forget(self, changed: str) -> None:
        """Drop every result that rests on a changed read, except effects, which can't be undone."""
        for name in dependents(self.plan, changed):
            tool = step_named(self.plan, name).get("tool")
            if tool is None or self.plan["tools"][tool]["effect"] == "read":
                self.results.pop(name, None)

    def if_match(self, step: Mapping[str, Any], due: Instance) -> str | None:
        """The version a conditional write relies on: of the first read it needs fresh, of the same item if it loops."""
        fresh = step.get("fresh", [])
        if not fresh or not self.plan["tools"][due.tool].get("if_match"):
            return None
        versions = self.versions
        return versions.get((fresh[0], due.item)) or versions.get((fresh[0], 0))

    async def may_go_on(
        self, step: Mapping[str, Any], due: Instance, arguments: Mapping[str, Any], reply: ToolReply
    ) -> bool:
        """Whether a refused write can be put right: a newer version is read, an expired approval asked for again."""
        if reply.status == 412:
            return await self.refresh(step, force=True)
        if (
            reply.by == "policy"
            and arguments_digest(arguments) in self.approvals
            and self.calls[f"{due.step}[{due.item}]"] < APPROVALS_MAX
        ):
            del self.approvals[arguments_digest(arguments)]
            return True
        return False


def _question(plan: Plan, due: Instance) -> ModelRequest:
    ask = step_named(plan, due.step)["ask"]
    content = json.dumps({"step": due.step, "inputs": due.values["inputs"]}, ensure_ascii=False)
    return ModelRequest(
        step=due.step,
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{ask}\n{content}"}],
        schema=due.values["output"],
    )
