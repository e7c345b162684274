"""One trial as a whole: what is left of it however it ends, and when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import crossing, supervisor, trial
from kintsugi.harness.adapters import ADAPTERS, Adapter
from kintsugi.harness.crew import Crew
from kintsugi.harness.history import Event, History, Unwritable, of, read_history
from kintsugi.harness.processes import LauncherGone
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.trial import Trial

pytestmark = pytest.mark.process

MakeTrial = Callable[..., Trial]

WORKFLOW = load_workflows()["finance/invoice_payment"]
DEADLINE_SECONDS = 30.0


class Told(History):
    """A history that tells of each event at the moment it happens."""

    tell: Callable[[Event], None] = staticmethod(lambda _: None)

    def add(self, who: str, what: str, **data: Any) -> Event:
        event = super().add(who, what, **data)
        type(self).tell(event)
        return event


class Stage:
    """Runs trials of one SUT, and knows what must not be left of them."""

    def __init__(self, crew: Crew, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.crew, self.folder, self.monkeypatch = crew, folder, monkeypatch
        self.ports: list[int] = []
        self.before = asyncio.all_tasks()
        self.sockets = sockets()
        bound = crossing._bound

        def noted(port: int) -> Any:
            found = bound(port)
            self.ports.append(found.getsockname()[1])
            return found

        monkeypatch.setattr(crossing, "_bound", noted)
        monkeypatch.setattr(trial, "History", Told)

    def tell(self, listener: Callable[[Event], None]) -> None:
        """Have every event told to a listener."""
        self.monkeypatch.setattr(Told, "tell", staticmethod(listener))

    async def run(self, what: Trial, deadline_seconds: float = DEADLINE_SECONDS) -> list[Event]:
        path = self.folder / "history.jsonl"
        return list(await run_trial(what, WORKFLOW, self.crew, self.folder / "t", path, deadline_seconds))

    def history(self) -> list[Event]:
        return read_history(self.folder / "history.jsonl")

    def left(self) -> list[str]:
        """Everything that the trial has left behind."""
        tasks = [repr(task) for task in asyncio.all_tasks() - self.before if task is not asyncio.current_task()]
        folders = [str(path) for path in (self.folder / "t").rglob("*")]
        for launcher in (self.crew.workers, self.crew.clients):
            process = launcher._process
            if process is not None and process.returncode is None:
                workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                tasks += [f"process {pid}" for pid in workers]
        return [*tasks, *folders, *(sockets() - self.sockets)]


def sockets() -> set[str]:
    """The sockets that this process holds, those included that are bound and do not listen."""
    held = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(descriptor))
    return {target for target in held if target.startswith("socket:")}


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    crew = Crew(ADAPTERS["minimal"], tmp_path)
    await crew.start()
    yield Stage(crew, tmp_path, monkeypatch)
    await crew.close()


MOMENTS = [
    ("runner", "trial"),
    ("runner", "started"),
    ("runner", "submitted"),
    ("world", "request"),
    ("nemesis", "injected"),
    ("nemesis", "witnessed"),
    ("human", "asked"),
    ("human", "decided"),
    ("human", "end_report"),
    ("runner", "status"),
    ("runner", "exited"),
    ("runner", "used"),
]


async def test_cancelled_at_any_moment_a_trial_leaves_nothing(stage: Stage, make_trial: MakeTrial) -> None:
    """The last two moments are in the clearing up itself, which was left half done."""
    what = make_trial(WORKFLOW.name, "worker_kill.at_boundary@tool:order[0]#1@before")
    for moment in MOMENTS:
        running = asyncio.ensure_future(stage.run(what))

        def strike(event: Event, moment: tuple[str, str] = moment, running: asyncio.Future[Any] = running) -> None:
            last = [e["generation"] for e in of(stage.history(), "runner", "started")][-1:]
            # The worker that is killed by the fault is not the one that is killed in the clearing up.
            if (event["who"], event["what"]) == moment and (
                moment[1] != "exited" or last == [event["generation"]] == [2]
            ):
                running.cancel()

        stage.tell(strike)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert stage.left() == [], moment
        assert stage.history()[-1]["what"] == "closed", moment


async def test_cancelled_again_and_again_a_trial_still_clears_up(stage: Stage, make_trial: MakeTrial) -> None:
    running = asyncio.ensure_future(stage.run(make_trial(WORKFLOW.name)))

    async def insist() -> None:
        while not running.done():
            running.cancel()
            await asyncio.sleep(0)

    begun = asyncio.Event()
    stage.tell(lambda event: begun.set() if event["what"] == "asked" else None)
    await begun.wait()
    await insist()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stage.left() == []


async def test_cancelled_while_a_worker_is_started_again_a_trial_leaves_no_worker(
    stage: Stage, make_trial: MakeTrial
) -> None:
    """The launcher is halted, so that the start is under way, neither done nor undone, when the trial is cancelled."""
    launcher = stage.crew.workers._process
    assert launcher is not None
    spawn, starting = stage.crew.workers.spawn, asyncio.Event()
    lives = 0

    async def halted(*arguments: Any, **named: Any) -> Any:
        nonlocal lives
        lives += 1
        if lives == 2:
            os.kill(launcher.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_soon(starting.set)
        return await spawn(*arguments, **named)

    stage.monkeypatch.setattr(stage.crew.workers, "spawn", halted)
    what = make_trial(WORKFLOW.name, "worker_kill.at_boundary@tool:order[0]#1@before")
    running = asyncio.ensure_future(stage.run(what))
    await starting.wait()
    running.cancel()
    await asyncio.sleep(0)
    os.kill(launcher.pid, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stage.left() == []


async def test_a_service_that_breaks_breaks_the_trial_and_leaves_nothing(stage: Stage, make_trial: MakeTrial) -> None:
    async def broken(_: object) -> None:
        raise ZeroDivisionError("a bug of the harness")

    stage.monkeypatch.setattr(trial, "serve_model", broken)
    what = make_trial(WORKFLOW.name)
    events = await stage.run(what)
    assert "a bug of the harness" in of(events, "runner", "broken")[0]["error"]
    assert judge_trial(WORKFLOW, what, events, {}, 5.0).verdict == "harness_error"
    assert stage.left() == []


async def test_ports_that_run_out_break_the_trial_and_leave_nothing(stage: Stage, make_trial: MakeTrial) -> None:
    noted, bound = crossing._bound, iter(range(10))

    def exhausted(port: int) -> Any:
        if next(bound) == 4:
            raise OSError(24, "Too many open files")
        return noted(port)

    stage.monkeypatch.setattr(crossing, "_bound", exhausted)
    what = make_trial(WORKFLOW.name)
    events = await stage.run(what)
    assert "Too many open files" in of(events, "runner", "broken")[0]["error"]
    assert len(stage.ports) == 4
    assert stage.left() == []


async def test_a_history_that_can_t_be_written_ends_the_trial_and_leaves_nothing(
    stage: Stage, make_trial: MakeTrial
) -> None:
    def full(event: Event) -> None:
        if event["who"] == "world":
            raise Unwritable("no space left")

    stage.tell(full)
    with pytest.raises(Unwritable):
        await stage.run(make_trial(WORKFLOW.name))
    assert stage.left() == []


async def test_a_launcher_that_dies_ends_the_trial_and_leaves_nothing(stage: Stage, make_trial: MakeTrial) -> None:
    launcher = stage.crew.workers._process
    assert launcher is not None

    def strike(event: Event) -> None:
        if event["what"] == "asked":
            os.kill(launcher.pid, signal.SIGKILL)

    stage.tell(strike)
    with pytest.raises(LauncherGone):
        await stage.run(make_trial(WORKFLOW.name))
    assert [one for one in stage.left() if "_read" not in one] == []


@pytest.mark.parametrize("phase", ["before", "committed"])
async def test_a_trial_is_not_over_before_a_killed_worker_had_its_chance_to_act_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial, phase: str
) -> None:
    """However slowly it is started again: the verdict must not depend on the load of the machine."""
    monkeypatch.setattr(supervisor, "SUPERVISOR_SECONDS", 3 * trial.QUIET_SECONDS)
    crew = Crew(ADAPTERS["naive"], tmp_path)
    await crew.start()
    what = make_trial(WORKFLOW.name, f"worker_kill.at_boundary@end:end[0]#1@{phase}")
    events = await run_trial(what, WORKFLOW, crew, tmp_path / "t", tmp_path / "h", DEADLINE_SECONDS)
    await crew.close()
    result = judge_trial(WORKFLOW, what, events, {}, 5.0)
    assert (result.verdict, result.injection) == ("corrupted", "witnessed"), result.reason
    assert "duplicate" in result.reason


async def test_a_trial_is_not_over_while_a_decision_is_being_delivered_again(
    stage: Stage, make_trial: MakeTrial
) -> None:
    """However slow its client is: what comes of it is what the trial is about."""
    ended = asyncio.Event()
    stage.tell(lambda event: ended.set() if event["what"] == "end_report" else None)
    call, decided = stage.crew.clients.call, 0

    async def slowly(verb: str, *arguments: Any) -> Any:
        nonlocal decided
        decided += verb == "decide"
        if (verb, decided) == ("decide", 2):
            await ended.wait()
            await asyncio.sleep(3 * trial.QUIET_SECONDS)
        return await call(verb, *arguments)

    stage.monkeypatch.setattr(stage.crew.clients, "call", slowly)
    events = await stage.run(make_trial(WORKFLOW.name, "approval_delay.delivered_twice@human:pay[0]#1@waiting"))
    told = of(events, "human", "delivered")
    assert len(told) == 2
    # And the SUT then had its chance to act on it.
    assert of(events, "runner", "status")[0]["t"] - told[1]["t"] >= trial.RESTARTED_SECONDS
    assert stage.left() == []


# --- SUTs that do not do what they should -------------------------------------------------------------------

BAD_SIDE = """
import asyncio, json, os, sys, urllib.request

CHAINS = {}

def provision(state_dir): pass
def decide(state_dir, run_id, request_id, decision): pass

def submit(state_dir, run_id, payload):
    if os.path.exists(os.path.join(state_dir, "..", "..", "stall")):
        raise TimeoutError("the store is locked")

def status(state_dir, run_id):
    if os.path.exists(os.path.join(state_dir, "..", "..", "stall")):
        raise TimeoutError("the store is locked")
    return {"state": "running"}

async def work(environment, chains):
    if os.path.exists(os.path.join(environment["KINTSUGI_STATE_DIR"], "..", "..", "crash")):
        sys.exit("no licence for this engine")
    for mode in ("hangs", "exits", "gives_up"):
        if os.path.exists(os.path.join(environment["KINTSUGI_STATE_DIR"], "..", "..", mode)):
            await ask_and(mode, environment)
            return
    await asyncio.Event().wait()

async def ask_and(mode, environment):
    def post(path, body):
        headers = {"Authorization": "Bearer " + environment["KINTSUGI_TOKEN"], "Content-Type": "application/json"}
        url = environment["KINTSUGI_HUMAN_URL"] + path
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).close()

    pay = {"vendor_id": "V-207", "amount_cents": 128400, "currency": "EUR", "reference": "INV-1041"}
    post("/requests", {"kind": "approval", "request_id": "q1", "tool": "bank.pay", "arguments": pay})
    await asyncio.sleep(3 * 3600 * float(environment["KINTSUGI_TIME_SCALE"]))
    while not os.path.exists(os.path.join(environment["KINTSUGI_STATE_DIR"], "..", "..", "waited")):
        await asyncio.sleep(0.01)
    if mode == "gives_up":
        post("/end", {"status": "failed", "detail": "nobody answered"})
    if mode != "exits":
        await asyncio.Event().wait()
"""


@pytest.fixture
async def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async with _bad("push", tmp_path, monkeypatch) as stage:
        yield stage


@pytest.fixture
async def polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """The same, which would fetch its decisions."""
    async with _bad("poll", tmp_path, monkeypatch) as stage:
        yield stage


@contextlib.asynccontextmanager
async def _bad(
    decisions: Literal["push", "poll"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    side = tmp_path / "side"
    side.mkdir()
    (side / "bad_side.py").write_text(BAD_SIDE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(side), *sys.path[1:]]))
    crew = Crew(Adapter("bad", "", "bad_side", decisions, fails_over=False, chains="bad_side:CHAINS"), tmp_path)
    await crew.start()
    yield Stage(crew, tmp_path, monkeypatch)
    await crew.close()


async def test_a_sut_that_hangs_is_lost_at_the_deadline(bad: Stage, make_trial: MakeTrial) -> None:
    what = make_trial(WORKFLOW.name)
    events = await bad.run(what, deadline_seconds=0.2)
    assert len(of(events, "runner", "deadline")) == 1
    result = judge_trial(WORKFLOW, what, events, {}, 5.0)
    assert (result.verdict, "its own status says 'running'" in result.reason) == ("lost", True)
    assert bad.left() == []


async def test_a_sut_whose_clients_get_no_answer_is_lost_and_the_harness_is_not_broken(
    bad: Stage, make_trial: MakeTrial
) -> None:
    (bad.folder / "stall").touch()
    what = make_trial(WORKFLOW.name)
    stages: list[trial._Stage] = []
    play = trial._Stage.play

    async def played(stage: trial._Stage, deadline_seconds: float) -> None:
        stages.append(stage)
        await play(stage, deadline_seconds)

    def submitted_again(event: Event) -> None:
        if event["what"] == "not_submitted" and len(of(bad.history(), "runner", "not_submitted")) > 1:
            stages[0].deadline = 0.0

    bad.monkeypatch.setattr(trial._Stage, "play", played)
    bad.tell(submitted_again)
    events = await bad.run(what)
    assert len(of(events, "runner", "not_submitted")) == 2
    assert len(of(events, "runner", "deadline")) == 1
    assert of(events, "runner", "status")[0]["error"] == "TimeoutError: the store is locked"
    result = judge_trial(WORKFLOW, what, events, {}, 5.0)
    assert (result.verdict, "its own status says 'unknown'" in result.reason) == ("lost", True)
    assert bad.left() == []


async def test_a_sut_that_crashes_at_every_start_is_given_up(bad: Stage, make_trial: MakeTrial) -> None:
    bad.monkeypatch.setattr(supervisor, "SUPERVISOR_SECONDS", 0.0)
    (bad.folder / "crash").touch()
    what = make_trial(WORKFLOW.name)
    events = await bad.run(what)
    assert len(of(events, "runner", "started")) == supervisor.STARTS_MAX
    assert len(of(events, "runner", "extinct")) == 1
    result = judge_trial(WORKFLOW, what, events, {}, 5.0)
    assert (result.verdict, "no licence for this engine" in result.reason) == ("lost", True)
    assert bad.left() == []


@pytest.mark.parametrize(
    ("mode", "form", "verdict"),
    [
        ("hangs", "late", "lost"),
        ("hangs", "rejected", "lost"),
        ("exits", "late", "lost"),
        ("exits", "never", "lost"),
        ("gives_up", "late", "failed"),
        ("gives_up", "rejected", "failed"),
    ],
)
async def test_a_sut_that_did_not_get_over_the_wait_for_a_decision_once_had_no_verdict(
    mode: str, form: str, verdict: str, polls: Stage, make_trial: MakeTrial
) -> None:
    """The SUT waits for three hours, and where the person takes less than that, until the decision is made."""
    (polls.folder / mode).touch()
    heard_of = "decided" if form == "rejected" else "asked"
    polls.tell(lambda event: (polls.folder / "waited").touch() if event["what"] == heard_of else None)
    what = make_trial(WORKFLOW.name, f"approval_delay.{form}@human:pay[0]#1@waiting")
    events = await polls.run(what, deadline_seconds=3.0)
    result = judge_trial(WORKFLOW, what, events, {}, 5.0)
    assert (result.injection, result.verdict) == ("witnessed", verdict), result.reason
    assert of(events, "nemesis", "missed") == []
