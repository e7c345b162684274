"""An agent no one here wrote: pydantic-ai's, made durable by its own capability for DBOS.

The loop, the transcript, and what becomes of a reply that is no good are pydantic-ai's. Ours are the tools: a plan's
tools by their JSON schemas, a person's approval, and a wait. They run in the agent's workflow, and what they do outside
is a DBOS step, with the rules that the durable context keeps on every engine. Runs, decisions and workers are as in
`dbos`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent, FunctionToolset, ModelSettings, RunContext, Tool, UsageLimits
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from kintsugi.runtime.engines.dbos import Side, Workflow
from kintsugi.runtime.engines.dbos_store import Sqlite
from kintsugi.runtime.engines.durable import Chains
from kintsugi.runtime.policy import Policy
from kintsugi.runtime.protocol import Decision, DurableContext, Question, ToolCall
from kintsugi.runtime.rules import Budget, arguments_digest

__all__ = ["APPROVAL_FUNCTION", "TUNED", "WAIT_FUNCTION", "function_name"]

# The client loads this at its first use, for half a second; a worker that is forked from here has it already.
import_module("openai.resources")

Json = Mapping[str, Any]
Call = Callable[..., Awaitable[Json]]

CHAIN = "own"
NAME = "agent"
MODEL = "scripted"
"""The model that plans name. The agent has to have one when it is made; what answers is the gateway's affair."""
APPROVAL_FUNCTION = "request_approval"
WAIT_FUNCTION = "wait"
INSTRUCTIONS = """You carry out a task by calling tools, one at a time, until it is done.
Take exact arguments from the results so far. Some tools need a person's approval: call request_approval with the tool's
name and the exact arguments first, and then call the tool with the same arguments. If approval is refused, stop. Use
wait when the task says to wait. When everything is done, answer with a short summary."""
MODEL_RETRIES = Budget(attempts=6, base_seconds=0.1, cap_seconds=2.0)
"""What the plans of the benchmark allow: the agent, and its steps with it, is made before any plan is known."""


def function_name(tool: str) -> str:
    """A tool's name as one that the chat protocol allows (no dots)."""
    return tool.replace(".", "__")


class AgentSide(Side):
    """DBOS's verbs and workers, with an agent in place of a chain."""

    def workflow(self, environment: Mapping[str, str], chains: Chains) -> Workflow:
        """What a run is: the agent on the durable context. It brings its own chain, and needs none of `chains`."""
        agent = _agent(environment["KINTSUGI_MODEL_URL"], environment["KINTSUGI_TOKEN"])

        async def chain(context: DurableContext, plan: Json) -> str:
            return await _run(agent, context, plan)

        return super().workflow(environment, {CHAIN: chain})


def _agent(model_url: str, token: str) -> Agent[None, str]:
    """The agent; DBOS, which is to retry, is the only one that does."""
    provider = OpenAIProvider(openai_client=AsyncOpenAI(base_url=model_url, api_key=token, max_retries=0))
    durability: DBOSDurability[None] = DBOSDurability(
        model_step_config={
            "retries_allowed": True,
            "max_attempts": MODEL_RETRIES.attempts,
            "interval_seconds": MODEL_RETRIES.base_seconds,
            "backoff_rate": 2.0,
        },
        # What a tool does takes several steps, which may not mingle with those of another.
        parallel_execution_mode="sequential",
    )
    model = OpenAIChatModel(MODEL, provider=provider)
    return Agent(model, name=NAME, instructions=INSTRUCTIONS, deps_type=type(None), capabilities=[durability])


async def _run(agent: Agent[None, str], context: DurableContext, plan: Json) -> str:
    """Let the agent work through a task; the text of its answer."""
    policy = Policy.from_plan(plan)
    settings = ModelSettings(timeout=policy.model_timeout_seconds, extra_headers={"Kintsugi-Run": context.run_id})
    result = await agent.run(
        plan["task"],
        model_settings=settings,
        usage_limits=UsageLimits(request_limit=policy.model_calls_max),
        toolsets=[FunctionToolset(_Tools(context, plan).all())],
    )
    return str(result.output)


class _Tools:
    """What one run's agent may call. It is made again, the same, at every replay."""

    def __init__(self, context: DurableContext, plan: Json) -> None:
        self._context = context
        self._plan = plan
        self._tools = {function_name(name): name for name in plan["tools"]}
        self._approvals: dict[str, Decision] = {}

    def all(self) -> list[Tool[None]]:
        """Every tool of the plan, with those for a person's approval and a wait."""
        tools = [
            _offered(self._calling(name), function, spec["description"], spec["parameters"])
            for function, name in self._tools.items()
            for spec in [self._plan["tools"][name]]
        ]
        asked = {
            "type": "object",
            "required": ["function", "arguments"],
            "properties": {"function": {"type": "string"}, "arguments": {"type": "object"}},
        }
        about = "Ask a person whether a function may be called with exactly these arguments."
        tools.append(_offered(self._approve, APPROVAL_FUNCTION, about, asked))
        if any("sleep_seconds" in step or "until" in step for step in self._plan["steps"]):
            seconds = {"type": "object", "required": ["seconds"], "properties": {"seconds": {"type": "number"}}}
            tools.append(_offered(self._wait, WAIT_FUNCTION, "Wait for a number of seconds.", seconds))
        return tools

    def _calling(self, tool: str) -> Call:
        async def call(run: RunContext[None], **arguments: Any) -> Json:
            name = _name(run)
            approval = self._approvals.get(f"{tool} {arguments_digest(arguments)}")
            wanted = ToolCall(
                tool=tool,
                arguments=arguments,
                approval=approval.token if approval else None,
                approval_expires_at=approval.expires_at if approval else None,
            )
            reply = await self._context.tool(name, wanted, step=name)
            return {"result": reply.result} if reply.ok else {"error": reply.error, "status": reply.status}

        return call

    async def _approve(self, run: RunContext[None], **request: Any) -> Json:
        tool, arguments = self._tools.get(str(request.get("function")), ""), request.get("arguments")
        if not tool or not isinstance(arguments, dict):
            return {"error": "give the function's name and its arguments, an object"}
        name = _name(run)
        question = Question(
            kind="approval", step=name, summary=f"may {tool} be called?", tool=tool, arguments=arguments
        )
        decision = await self._context.ask_human(name, question)
        if decision.decision not in {"approve", "amend"}:
            return {"result": {"decision": decision.decision}}
        granted = decision.arguments or arguments
        self._approvals[f"{tool} {arguments_digest(granted)}"] = decision
        return {"result": {"decision": decision.decision, "arguments": granted}}

    async def _wait(self, run: RunContext[None], **request: Any) -> Json:
        seconds = request.get("seconds", 0)
        await self._context.sleep(_name(run), float(seconds))
        return {"result": {"waited_seconds": seconds}}


def _offered(function: Call, name: str, about: str, parameters: Json) -> Tool[None]:
    return Tool.from_schema(function, name, about, dict(parameters), takes_ctx=True)


def _name(run: RunContext[None]) -> str:
    """The call's id, which stands in the model's recorded reply: the same at a replay, and of no other call."""
    return f"{run.tool_call_id}"


TUNED = AgentSide(Sqlite(journal="wal"), tuned=True)
