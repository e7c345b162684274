"""What one trial holds while it runs: its runs' records, its worker generations, its ports, and the gate.

Everything here is state that the servers, the nemesis and the supervisor of one trial share; it decides nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.golden_workflows.records import Servable
from kintsugi.golden_workflows.reference import trajectory
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.harness.adapters import Adapter
from kintsugi.harness.adapters.adapter import Server
from kintsugi.harness.history import History
from kintsugi.harness.identity import Identifier
from kintsugi.harness.models.answers import Model
from kintsugi.harness.models.scripted import Scripted
from kintsugi.harness.processes import Exit, Launcher, Process, Workers
from kintsugi.scenarios.points import REACT
from kintsugi.scenarios.trial import Trial

if TYPE_CHECKING:
    from kintsugi.harness.deeds.blow import Link

__all__ = ["SECONDS_PER_HOUR", "TIME_SCALE", "Approval", "CutOff", "Generation", "Run", "Session"]

TIME_SCALE = 1 / 36_000
"""Wall seconds per second of workflow time: an hour of waiting for a person takes a tenth of a second."""

SECONDS_PER_HOUR = 3600 * TIME_SCALE

SUCCESSOR_SECONDS = 2.0
"""How long is waited for a worker in place of one that died; many times what a supervisor takes."""


def boundaries_before_timers(workflow: Workflow, chain: str) -> dict[str, list[tuple[str, str, int]]]:
    """For each timer step: the (kind, step, item) whose answers a run waits on it after.

    The model of a ReAct chain asks for the wait; in an optimized chain it follows the plan's call before it, or all
    of a parallel group.
    """
    found: dict[str, list[tuple[str, str, int]]] = {}
    before: list[tuple[str, str, int]] = [("submit", "start", 0)]
    group: str | None = None
    for call in trajectory(workflow):
        if call.kind == "sleep":
            found[call.step] = [("model", call.step, 0)] if chain in REACT else before
            continue
        same = group is not None and group == workflow.steps[call.step].parallel
        group = workflow.steps[call.step].parallel
        before = [*(before if same else []), (call.kind, call.step, call.item)]
    return found


def workflow_clock() -> Callable[[], float]:
    """Tells the world's records workflow seconds from now on. No SUT can set it; it runs as fast as their timers do."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    return lambda: (loop.time() - began) / TIME_SCALE


@dataclass
class Generation:
    """One life of one worker: its process, its node, and the token by which its requests are told apart."""

    number: int
    node: str
    token: str
    process: Process | None = None
    dead: bool = False
    """Set once the process has been reaped: a request with its token is then a request of the dead."""
    restart: bool = True
    started_at: float = 0.0
    """Event loop seconds at which it was let go, the last time."""
    heard: bool = False
    """Whether it has sent a request since then."""
    stopped: bool = False
    """Whether it stands still now."""
    woken: bool = False
    """Whether it stood still for a while and was let go again."""

    def wake(self) -> None:
        """Note that it goes on after it stood still, or was alone: its next request is the first again."""
        self.heard, self.woken, self.started_at = False, True, asyncio.get_running_loop().time()


class CutOff:
    """A node that reaches none of the doors, until it is healed. `rejects`: its requests are reset at once."""

    def __init__(self, *, rejects: bool) -> None:
        self.rejects = rejects
        self.kept = 0
        """How many of its requests were kept from their services."""
        self.meets = asyncio.Event()
        self.healed = asyncio.Event()

    def met(self) -> None:
        """Note a request that is kept from its service."""
        self.kept += 1
        self.meets.set()

    async def over(self, gone: asyncio.Event) -> None:
        """Wait for as long as a client hears nothing: until it has `gone`, or the node is healed."""
        if not self.rejects:
            waits = [asyncio.ensure_future(event.wait()) for event in (gone, self.healed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()


@dataclass
class Approval:
    """A token: good for one tool with exactly one set of arguments, until it expires (event loop seconds)."""

    tool: str
    digest: str
    expires_at: float


@dataclass
class Run:
    """One run of the workflow within a trial: its own records and its own ledger of keys and references."""

    id: str
    records: Servable
    delivered: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    """For each (kind, step, item): how many answers reached the SUT. The next is one occurrence further."""
    keys: dict[tuple[str, str], tuple[str, Any, str]] = field(default_factory=dict)
    references: dict[tuple[str, str], Any] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """How often the model was asked for each step and item."""
    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often a real model was asked the very same, by the key of what it was asked."""
    prompts: list[str] = field(default_factory=list)
    """The model's prompts so far: what a provider would have in its cache."""
    holder: Generation | None = None
    """The generation that last sent a request for this run."""
    effects: list[dict[str, Any]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    done: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """For each (step, item) of a tool: how many results reached the SUT. A refusal is none."""


class Session:
    """The shared state of one running trial."""

    def __init__(
        self,
        trial: Trial,
        workflow: Workflow,
        adapter: Adapter,
        workers: Workers,
        clients: Launcher,
        history: History,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.environment = dict(environment or {})
        """What every worker is given beyond its addresses."""
        self.node_environments: dict[str, dict[str, str]] = {}
        """What the workers of a node are given in its place."""
        self.server: Server | None = None
        """The SUT's own server, if it has one."""
        self.equipment: dict[str, Any] = {}
        """What the means of this trial have brought, by their names."""
        self.links: dict[str, Link] = {}
        """The ways to the services, and to the SUT's own ``store``, on which a proxy of the trial lies."""
        self.received: dict[int, int] = defaultdict(int)
        """For each port of a door: how many bytes came over the connections to it that have ended."""
        self.provisioned: list[Callable[[], None]] = []
        """What the means do once the state is provisioned, before anything else."""
        self.afresh = False
        """Whether workers are executed afresh, as what changes a program before it begins to run needs it."""
        self.may_start = asyncio.Event()
        """Cleared while nothing can be started, since the machine is down."""
        self.may_start.set()
        self.under_way = 0
        """How many things beside the trial have to come to their end before it is over."""
        self.trial, self.workflow, self.adapter = trial, workflow, adapter
        self.model: Model = Scripted()
        """Who answers at the gateway."""
        self.workers, self.clients = workers, clients
        self.history, self.folder = history, folder
        self.identifier = Identifier(workflow)
        self.before_timer = boundaries_before_timers(workflow, trial.chain)
        self.runs = {f"r{n}": Run(f"r{n}", workflow.records(workflow_clock())) for n in range(trial.copies)}
        self.generations: dict[str, Generation] = {}
        self.cut_off: dict[str, CutOff] = {}
        """The nodes that reach none of the doors now."""
        self.urls: Mapping[str, str] = {}
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self._holders = 0
        self.in_flight = 0
        self.last_activity = asyncio.get_running_loop().time()
        self.first_end = 0.0
        """When the first end report came (event loop seconds); 0 before."""
        self.disturbed_at = 0.0
        """When the SUT was last told again what it had been told before (event loop seconds); 0 before."""
        self.closing = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listeners: list[Callable[[Run, Generation], None]] = []
        """Told of each request of a run, by whom it came."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests = 0
        self._started = asyncio.Event()

    @property
    def state_folder(self) -> Path:
        """Durable, and shared by all nodes."""
        return self.folder / "state"

    def scratch_folder(self, node: str) -> Path:
        """Lost with the node."""
        return self.folder / node

    def nodes(self) -> list[str]:
        """The nodes on which workers are started; one is enough for a SUT without fail-over."""
        return [f"node{n + 1}" for n in range(self.trial.nodes if self.adapter.fails_over else 1)]

    def new_generation(self, node: str) -> Generation:
        """The next life of a worker, with a token of its own."""
        generation = Generation(len(self.generations) + 1, node, secrets.token_urlsafe(16))
        self.generations[generation.token] = generation
        return generation

    def next_request(self) -> int:
        """A number for a request, unique in the trial."""
        self._requests += 1
        self.last_activity = asyncio.get_running_loop().time()
        return self._requests

    def payload(self) -> dict[str, Any]:
        """What is submitted for each run."""
        return {"chain": self.trial.chain, "plan": self.workflow.plan}

    def disturbed(self) -> None:
        """Note that the SUT was given cause to do something once more, and so has to have its chance to."""
        self.disturbed_at = self.last_activity = asyncio.get_running_loop().time()

    def taken_up(self, run: Run, by: Generation) -> None:
        """Note who holds a run: the worker that sent its last request."""
        run.holder = by
        for listener in list(self.listeners):
            listener(run, by)

    @contextmanager
    def holding(self, *, wanted: bool) -> Iterator[None]:
        """Hold every request of the trial meanwhile, where that is wanted: nothing happens before a death."""
        self._holders += wanted
        if wanted:
            self.open_gate.clear()
        try:
            yield
        finally:
            self._holders -= wanted
            if not self._holders:
                self.open_gate.set()

    async def kill(self, generation: Generation) -> Exit:
        """SIGKILL a worker and wait until it is reaped; how it ended, which may be by itself."""
        assert generation.process is not None
        ended = await self.workers.kill(generation.process)
        generation.dead = True
        return ended

    def let_go(self, generation: Generation, process: Process) -> None:
        """Note that a worker has its process, and is about to run."""
        generation.process = process
        generation.started_at = asyncio.get_running_loop().time()
        self._started.set()

    async def somebody(self, run: Run) -> Generation | None:
        """The living worker that has a run: who sent its last request, or since it died whoever came last.

        Where all are dead, the next one that is started; None where none comes.
        """
        try:
            async with asyncio.timeout(SUCCESSOR_SECONDS):
                while True:
                    self._started.clear()
                    living = [g for g in self.generations.values() if g.process is not None and not g.dead]
                    if run.holder in living or not (run.holder or living):
                        return run.holder
                    if living:
                        return living[-1]
                    await self._started.wait()
        except TimeoutError:
            return None

    def see_through(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the trial that has to come to its end before the trial is over."""
        self.under_way += 1

        def ended(_: object) -> None:
            self.under_way -= 1

        self.spawn(work).add_done_callback(ended)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside the trial; what it raises breaks the trial rather than passing unseen."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def end_tasks(self) -> None:
        """Cancel whatever still runs beside the trial, and what it began meanwhile, and wait for it."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        if self.broken.done() and not self.broken.cancelled():
            self.broken.exception()
        else:
            self.broken.cancel()
