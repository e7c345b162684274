"""The outside world of the runtime's tests: tools with a ledger, a model, and a person, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kintsugi.runtime import clock
from kintsugi.runtime.client import decide, submit
from kintsugi.runtime.store import connect, provision, read_events
from kintsugi.runtime.worker import Chain, work

OBJECT = {"type": "object"}
PATIENCE_SECONDS = 60.0
"""How long what is sure to come is waited for; how fast it comes is not what is tested."""
TICKET = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}


def tool(effect: str = "write", idempotency: str = "none", approval: str = "never") -> dict[str, Any]:
    return {
        "description": "",
        "parameters": OBJECT,
        "result": TICKET if effect == "write" else OBJECT,
        "effect": effect,
        "idempotency": idempotency,
        "approval": approval,
    }


TOOLS = {
    "read": tool("read"),
    "keyed": tool(idempotency="key"),
    "lookup": tool(idempotency="lookup"),
    "opaque": tool(),
    "guarded": tool(idempotency="key", approval="always"),
}


def make_plan(**policy: object) -> dict[str, Any]:
    # No machine is so slow that a call which is answered at once is taken for lost.
    patient = {"tool_timeout_seconds": 20.0, "model_timeout_seconds": 20.0}
    quick = {"backoff_base_seconds": 0.001, "backoff_cap_seconds": 0.002}
    return {"tools": TOOLS, "model": "test", "steps": [], "policy": {**patient, **quick, **policy}}


Plan = Mapping[str, Any]
MakePlan = Callable[..., dict[str, Any]]
NewWorld = Callable[[str], AbstractAsyncContextManager["World"]]
Working = Callable[..., AbstractAsyncContextManager[None]]
RunChain = Callable[..., Awaitable[tuple[str, str]]]
PassTime = Callable[[float], None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class World:
    """What the runtime acts on, and what a test may put in its place.

    `before` and `after` may answer a tool call before or after its effect; `find`, `question` and `end` a
    look-up, a question and an end report. `model` gives the model's content or whole answer, `person` a
    decision or none.
    """

    state_dir: str
    url: str = ""
    effects: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    model_calls: list[dict[str, Any]] = field(default_factory=list)
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    posts: list[str] = field(default_factory=list)
    ends: list[tuple[str, str, str]] = field(default_factory=list)
    before: Handler | None = None
    after: Handler | None = None
    find: Handler | None = None
    question: Handler | None = None
    end: Handler | None = None
    model: Callable[[dict[str, Any]], Any] = lambda _body: {"value": 1}
    person: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def environment(self, worker_id: str = "w1", **more: str) -> dict[str, str]:
        return {
            "KINTSUGI_TOOLS_URL": f"{self.url}/tools",
            "KINTSUGI_MODEL_URL": f"{self.url}/model",
            "KINTSUGI_HUMAN_URL": f"{self.url}/human",
            "KINTSUGI_TOKEN": "t",
            "KINTSUGI_STATE_DIR": self.state_dir,
            "KINTSUGI_SCRATCH_DIR": self.state_dir,
            "KINTSUGI_WORKER_ID": worker_id,
            "KINTSUGI_TIME_SCALE": "0.01",
            **more,
        }

    def count(self, tool_name: str) -> int:
        return sum(effect["tool"] == tool_name for effect in self.effects)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until the world has seen what makes `ready` true."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ready():
                self.changed.clear()
                await self.changed.wait()

    async def until_ended(self, runs: int = 1) -> None:
        await self.until(lambda: len({end[0] for end in self.ends}) >= runs)

    async def until_stored(self, ready: Callable[[], bool]) -> None:
        """Wait until the store holds what makes `ready` true."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ready():
                await asyncio.sleep(0.005)

    async def until_recorded(self, run_id: str, kind: str, count: int = 1) -> None:
        """Wait until a run's journal holds so many events of a kind."""
        with closing(connect(self.state_dir)) as connection:
            await self.until_stored(
                lambda: [event.kind for event in read_events(connection, run_id)].count(kind) >= count
            )

    # --- the servers --------------------------------------------------------------------------------------

    async def on_tool(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["tool"]
        self.calls.append(name)
        self.changed.set()
        if self.before and (answer := await self.before(request)) is not None:
            return answer
        effect = self._effect(name, request.headers, await request.json())
        self.changed.set()
        if self.after and (answer := await self.after(request)) is not None:
            return answer
        return web.json_response({"result": effect})

    def _effect(self, name: str, headers: Mapping[str, str], arguments: dict[str, Any]) -> dict[str, Any]:
        if TOOLS[name]["effect"] == "read":
            return {"value": len(self.calls)}
        key = headers.get("Idempotency-Key")
        if key is not None:
            for effect in self.effects:
                if effect["key"] == key:
                    return {"id": effect["id"]}
        done = {
            "id": len(self.effects) + 1,
            "tool": name,
            "arguments": arguments,
            "key": key,
            "reference": headers.get("Client-Reference"),
            "run": headers["Kintsugi-Run"],
        }
        self.effects.append(done)
        return {"id": done["id"]}

    async def on_look_up(self, request: web.Request) -> web.StreamResponse:
        answer = await (self.find or self.on_find)(request)
        assert answer is not None
        return answer

    async def on_find(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(request.match_info["tool"] + "/find")
        for effect in self.effects:
            if effect["reference"] == request.headers["Client-Reference"]:
                return web.json_response({"result": {"id": effect["id"]}})
        return web.json_response({"error": {"message": "no such effect"}}, status=404)

    async def on_model(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.model_calls.append(body)
        self.changed.set()
        answer = self.model(body)
        if isinstance(answer, web.StreamResponse):
            return answer
        content = answer if isinstance(answer, str) else json.dumps(answer)
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}})

    async def on_request(self, request: web.Request) -> web.StreamResponse:
        answer = await (self.question or self.on_question)(request)
        assert answer is not None
        return answer

    async def on_question(self, request: web.Request) -> web.StreamResponse:
        question = await request.json()
        self.posts.append(question["request_id"])
        self.questions[question["request_id"]] = question
        self.changed.set()
        if self.person and (decision := self.person(question)) is not None:
            run_id = request.headers["Kintsugi-Run"]
            await asyncio.to_thread(self.decide, run_id, question["request_id"], decision)
        return web.json_response({})

    def decide(self, run_id: str, request_id: str, decision: dict[str, Any]) -> None:
        decide(self.state_dir, run_id, request_id, {"decision_id": f"d-{request_id}", **decision})

    async def on_report(self, request: web.Request) -> web.StreamResponse:
        answer = await (self.end or self.on_end)(request)
        assert answer is not None
        return answer

    async def on_end(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.ends.append((request.headers["Kintsugi-Run"], body["status"], body["detail"]))
        self.changed.set()
        return web.json_response({})

    @staticmethod
    async def reset(request: web.Request) -> web.StreamResponse:
        """An answer that is none: the connection is gone."""
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def truthful(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """A person who approves everything, and answers halts from the ledger."""
        if question["kind"] == "approval":
            return {"decision": "approve", "token": "yes"}
        for effect in self.effects:
            if effect["tool"] == question["tool"] and effect["arguments"] == question["arguments"]:
                return {"decision": "happened", "result": {"id": effect["id"]}}
        return {"decision": "not_happened"}


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    world = World(str(folder / "state"))
    app = web.Application()
    app.router.add_post("/tools/{tool}", world.on_tool)
    app.router.add_post("/tools/{tool}/find", world.on_look_up)
    app.router.add_post("/model/chat/completions", world.on_model)
    app.router.add_post("/human/requests", world.on_request)
    app.router.add_post("/human/end", world.on_report)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    world.url = f"http://{host}:{port}"
    provision(world.state_dir)
    try:
        yield world
    finally:
        await runner.cleanup()


class Workers:
    """Worker processes, forked by launcher.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._said: list[str] = []
        self._spoke = asyncio.Event()

    async def start(self, environment: dict[str, str], **order: object) -> int:
        """Fork a worker; its pid. See launcher.py for the order."""
        assert self._process.stdin is not None
        async with self._one_at_a_time:
            line = json.dumps({"environment": environment, **order}) + "\n"
            self._process.stdin.write(line.encode())
            pid = await self._started.get()
        self._exit(pid)
        return pid

    async def exit(self, pid: int) -> int:
        """The exit status of a worker, negative for a signal, once it is reaped."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.shield(self._exit(pid))

    async def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is reaped."""
        os.kill(pid, signal.SIGKILL)
        assert await self.exit(pid) == -signal.SIGKILL

    async def kill_after(self, pid: int, event: Awaitable[None]) -> None:
        """Wait for what a worker is to bring about, and kill it."""
        await event
        await self.kill(pid)

    def _exit(self, pid: int) -> asyncio.Future[int]:
        return self._exits.setdefault(pid, asyncio.get_running_loop().create_future())

    async def until_said(self, text: str) -> None:
        """Wait until some worker has said this on its stderr."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(text in line for line in self._said):
                self._spoke.clear()
                await self._spoke.wait()

    async def listen_to_errors(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._said.append(line.decode())
            sys.stderr.write(line.decode())
            self._spoke.set()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if isinstance(told, int):
                self._started.put_nowait(told)
            else:
                self._exit(told[0]).set_result(told[1])

    def left(self) -> list[int]:
        return [pid for pid, exited in self._exits.items() if not exited.done()]


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    launcher = Path(__file__).with_name("launcher.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, launcher, stdin=pipe, stdout=pipe, stderr=pipe)
    workers = Workers(process)
    listening = asyncio.gather(workers.listen(), workers.listen_to_errors())
    yield workers
    for pid in workers.left():
        # It may have died by itself, with the news still under way.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await workers.exit(pid)
    process.stdin.close()  # type: ignore[union-attr]
    await process.wait()
    await listening


@pytest.fixture
def plan() -> MakePlan:
    """A plan without steps, over the world's tools, patient, with quick back-off; keywords are its policy."""
    return make_plan


@pytest.fixture
def new_world(tmp_path: Path) -> NewWorld:
    """Worlds of their own, by name."""
    return lambda name: open_world(tmp_path / name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as world:
        yield world


@asynccontextmanager
async def work_here(world: World, chain: Chain, worker_id: str = "w1", **more: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work(world.environment(worker_id, **more), {"chain": chain}))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> PassTime:
    """Lets so many seconds pass at once for the clocks of this process's runs."""
    passed, count = 0.0, clock._boot_seconds

    def at_once(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(clock, "_boot_seconds", lambda: count() + passed)
    return at_once


@pytest.fixture
def working(world: World) -> Working:
    """A worker in this process, carrying runs of the chain it is given until the block is left."""
    return lambda chain, worker_id="w1", **more: work_here(world, chain, worker_id, **more)


@pytest.fixture
def run_chain(world: World) -> RunChain:
    """Run a chain from submission to its end report, in this process; status and detail."""

    async def run(chain: Chain, plan: dict[str, Any] | None = None, run_id: str = "run") -> tuple[str, str]:
        submit(world.state_dir, run_id, {"chain": "chain", "plan": plan or make_plan()})
        async with work_here(world, chain):
            await world.until(lambda: any(end[0] == run_id for end in world.ends))
        return next((status, detail) for run, status, detail in world.ends if run == run_id)

    return run
