"""Every form of every fault class, done for real to a real worker: what the history shows of it, and what came of it.

All trials run at once, in one event loop; each test then looks at one of them. A form that is new in ``FAULTS`` is
run and judged here without a line of its own, as long as it is composed of the actions there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults import FAULTS, actions
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import trial as trial_module
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.crew import Crew
from kintsugi.harness.crossing import Doors
from kintsugi.harness.history import Event, History, of
from kintsugi.harness.means import MEANS, make_ready
from kintsugi.harness.records import TrialResult
from kintsugi.harness.selftest import BUGS
from kintsugi.harness.session import SECONDS_PER_HOUR, Generation, Run, Session
from kintsugi.harness.supervisor import SUPERVISOR_SECONDS
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.planner import candidates
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

WORKFLOWS = load_workflows()
FAVOURITE = "finance/invoice_payment"
DEADLINE_SECONDS = 60.0
AT_ONCE = 16
COPIES_MAX = 50
"""Of a storm of more, which is the same but for its size, no more are run here."""
JUST_BEFORE = 0.9
"""A client's time-out begins a little before its request arrives."""
ROUNDED_SECONDS = 2e-6
"""By how much two times of a history may be off together, which are rounded."""

FORMS = [(fault, form.name) for fault, kind in FAULTS.items() for form in kind.forms]

NAIVE = {
    "worker_kill.at_boundary@tool:note[0]#1@before": ("corrupted", "duplicate effect of bank.pay"),
    "partial_side_effect.killed@tool:pay[0]#1@committed": ("corrupted", "duplicate effect of bank.pay"),
    "partial_side_effect.reset@tool:tell[0]#1@committed": ("corrupted", "duplicate effect of mail.send"),
    "network.limit_data@tool:tell[0]#1@before": ("corrupted", "duplicate effect of mail.send"),
    "node_loss.process@tool:note[0]#1@before": ("lost", "no worker was left"),
    "node_loss.container@tool:note[0]#1@before": ("lost", "no worker was left"),
    "partition.brief@tool:tell[0]#1@committed": ("corrupted", "duplicate effect of mail.send"),
    "partition.container@tool:tell[0]#1@committed": ("corrupted", "duplicate effect of mail.send"),
    "deploy_mid_run.step_added@tool:note[0]#1@before": ("corrupted", "duplicate effect of bank.pay"),
    "poison_workflow.one_node@tool:invoice[0]#1@before": ("lost", "4 of 5 workflows: no end report"),
    "power_loss.disk_cut@tool:note[0]#1@before": ("lost", "no worker was left"),
    "clock_jump.back_ahead@tool:note[0]#1@before": ("corrupted", "duplicate effect of bank.pay"),
    "invalid_external_data.below_zero@tool:order[0]#1@before": ("corrupted", "wrong arguments effect of erp.post_note"),
    "invalid_external_data.wrong_type@tool:order[0]#1@before": ("corrupted", "wrong arguments effect of erp.post_note"),
}
"""What the script without a durable runtime makes of a fault in the payment of an invoice."""

NAIVE_AGENT = {
    "schema_drift.loses_field@tool:order[0]#1@before": ("corrupted", "missing effect of bank.pay"),
    "schema_drift.renames_field@tool:invoice[0]#1@before": ("corrupted", "missing effect of bank.pay"),
    "hostile_output.instruction@tool:invoice[0]#1@before": ("corrupted", "unauthorised effect of bank.pay"),
    "loop.repeats_3@model:note[0]#1@during": ("corrupted", "duplicate effect of bank.pay"),
    "loop.repeats_3@model:tell[0]#1@during": ("corrupted", "duplicate effect of erp.post_note"),
}
"""And where the model itself decides every step."""

CAUGHT_ELSEWHERE = {"store_restart": "test_store_restart.py"}
"""Classes that no bug of the self-test and no script shows, with the file here in which a SUT is caught by them."""

NAIVE_RUNS = [(strike, chain, NAIVE[strike]) for strike in NAIVE for chain in ("naive", "optimized")]
NAIVE_RUNS += [(strike, "naive", NAIVE_AGENT[strike]) for strike in NAIVE_AGENT]


@dataclass
class Ran:
    """A trial that has been run, with what was seen of it from outside while it ran."""

    trial: Trial
    events: Sequence[Event] = ()
    error: BaseException | None = None
    pids_alive_when_witnessed: list[int] = field(default_factory=list)
    scratch_when_witnessed: list[bool] = field(default_factory=list)
    refused: list[bool] = field(default_factory=list)
    states: dict[str, set[str]] = field(default_factory=dict)
    """How the kernel had the threads of a worker when it was said to be stopped, and when to be continued."""
    bytes_left: dict[str, int] = field(default_factory=dict)
    """What the disk had left, in blocks, when it was said to be full, and when to be free again."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Who asked for something of a run, and how many events there were before: what is asked again may leave none."""

    @property
    def result(self) -> TrialResult:
        return judge_trial(WORKFLOWS[self.trial.workflow], self.trial, self.events, {}, 5.0)

    @property
    def form(self) -> Form:
        (strike,) = self.trial.schedule
        return FAULTS[strike.fault].form(strike.form)

    @property
    def has_a_server_of_its_own(self) -> bool:
        """Whether it disturbs what others of its SUT would share with it."""
        return FAULTS[self.trial.schedule[0].fault].scope == "server"

    @property
    def point(self) -> Point:
        return self.trial.schedule[0].point

    def saw(self, who: str, *what: str) -> list[Event]:
        return of(self.events, who, *what)

    def position(self, event: Event) -> int:
        return next(number for number, other in enumerate(self.events) if other is event)

    def about(self, request: int | None) -> list[Event]:
        """What became of a request."""
        return [event for event in self.events if request is not None and event.get("request") == request]

    def delivered(self, request: int | None) -> bool:
        return any(event["what"] == "delivered" and event["delivered"] for event in self.about(request))

    def strikes(self) -> Iterator[tuple[Event, Event]]:
        """Each witness, after the injection that it is of: that of the request it names, or else the last.

        What is done to a link is witnessed by whichever request meets it.
        """
        injected: list[Event] = []
        for event in self.saw("nemesis", "injected", "witnessed"):
            if event["what"] == "injected":
                injected.append(event)
            else:
                named = [one for one in injected if one.get("request") == event.get("request")]
                yield (named or injected)[-1], event


def sut_for(form: Form) -> str:
    """The minimal runtime; for a form that wants what that does not have, the first SUT that has it."""
    suts = ["minimal", *(name for name, adapter in ADAPTERS.items() if adapter.profile == "tuned")]
    return next(sut for sut in suts if not set(form.wants) & ADAPTERS[sut].lacks())


@cache
def lacking(sut: str, needs: str) -> str:
    """What this machine has not got of what a trial takes, and what to do about it; empty where it has it all."""
    try:
        ADAPTERS[sut].must_be_there()
        if needs:
            MEANS[needs].check()
    except Unavailable as problem:
        return str(problem)
    return ""


def must_be_runnable(trial: Trial) -> None:
    """Skip, for all to see, what can't be run on this machine."""
    for strike in trial.schedule:
        if why := lacking(trial.sut, FAULTS[strike.fault].form(strike.form).needs):
            pytest.skip(why)


def trial_of(fault: str, form: str) -> Trial:
    """A trial of a form on its SUT: where it meets a payment if it can, else where it first applies."""
    for chain in ("optimized", "naive"):
        for name in sorted(WORKFLOWS, key=lambda name: name != FAVOURITE):
            frame = candidates(WORKFLOWS[name], chain, fault, [form])
            if frame:
                best = max(frame, key=lambda candidate: candidate.site.idempotency == "key")
                strike = Strike(fault, form, best.site.point)
                found = best.form
                return Trial(
                    "fault",
                    sut_for(found),
                    chain,
                    name,
                    (strike,),
                    7,
                    copies=min(found.copies, COPIES_MAX),
                    nodes=found.nodes,
                    drift=best.drift,
                )
    raise AssertionError(f"{fault}.{form} applies nowhere")


def naive_trial(strike: str, chain: str) -> Trial:
    fault, _, rest = strike.partition(".")
    form, _, point = rest.partition("@")
    schedule = (Strike(fault, form, Point.parse(point)),)
    what = FAULTS[fault].form(form)
    return Trial("fault", "naive", chain, FAVOURITE, schedule, 7, copies=what.copies, nodes=what.nodes)


class Watched(History):
    """Looks, at the moment at which a fault is said to be witnessed, at what a test can only see then."""

    of_path: Mapping[Path, Ran] = {}

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ran, self.folder = self.of_path[path], path.with_suffix("")

    def add(self, who: str, what: str, **data: Any) -> Event:
        if (who, what) == ("nemesis", "witnessed") and "pid" in data:
            if Path(f"/proc/{data['pid']}").exists():
                self.ran.pids_alive_when_witnessed.append(data["pid"])
            node = next(e["node"] for e in self.events if e.get("pid") == data["pid"])
            self.ran.scratch_when_witnessed.append((self.folder / node).exists())
        if (who, what) in {("nemesis", "stopped"), ("nemesis", "continued")}:
            self.ran.states[what] = states(data["pid"])
        if (who, what) in {("nemesis", "filled"), ("nemesis", "freed")}:
            self.ran.bytes_left[what] = os.statvfs(self.folder / "state").f_bavail
        return super().add(who, what, **data)


def states(pid: int) -> set[str]:
    """How the kernel has the threads of a process; one that runs may end a thread at any moment."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(thread.read_text().rpartition(") ")[2][0])
    return found


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def run_all(everything: Sequence[Ran], folder: Path) -> None:
    make_ready({ran.form.needs for ran in everything} - {""})
    shared = {ran.trial.sut for ran in everything if not ran.has_a_server_of_its_own}
    crews = {name: Crew(ADAPTERS[name], folder / name) for name in sorted(shared)}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def run(ran: Ran, path: Path) -> None:
        own = Crew(ADAPTERS[ran.trial.sut], path.with_suffix(".server")) if ran.has_a_server_of_its_own else None
        async with at_once:
            try:
                if own is not None:
                    await own.start()
                ran.events = await run_trial(
                    ran.trial,
                    WORKFLOWS[ran.trial.workflow],
                    own or crews[ran.trial.sut],
                    path.with_suffix(""),
                    path,
                    DEADLINE_SECONDS,
                )
            except BaseException as error:
                ran.error = error
                raise
            finally:
                if own is not None:
                    await own.close()

    try:
        await asyncio.gather(*(crew.start() for crew in crews.values()))
        paths = [folder / f"{number}.jsonl" for number in range(len(everything))]
        Watched.of_path = dict(zip(paths, everything, strict=True))
        # Those that wait longest begin first; storms are fifty workflows each, and run at the end.
        order = sorted(
            zip(everything, paths, strict=True), key=lambda pair: (pair[0].trial.copies, not pair[0].form.may_halt)
        )
        await asyncio.gather(*(run(*pair) for pair in order if pair[0].trial.copies == 1), return_exceptions=True)
        await asyncio.gather(*(run(*pair) for pair in order if pair[0].trial.copies > 1), return_exceptions=True)
    finally:
        await asyncio.gather(*(crew.close() for crew in crews.values()))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Ran]:
    """Every trial of this module that can be run here by its id, run."""
    trials = [trial_of(*form) for form in FORMS]
    trials += [naive_trial(strike, chain) for strike, chain, _ in NAIVE_RUNS]
    everything = [one for one in map(Ran, trials) if not lacking(one.trial.sut, one.form.needs)]
    by_id = {one.trial.id: one for one in everything}
    plain_refuse = Doors.refuse

    def refuse(doors: Doors, kind: str, seconds: float) -> Any:
        down = plain_refuse(doors, kind, seconds)
        name = {"tool": "tools", "model": "model"}[kind]
        by_id[doors._session.trial.id].refused.append(refuses(doors._held[name].getsockname()[1]))
        return down

    plain_taken_up = Session.taken_up

    def taken_up(session: Session, run: Run, by: Generation) -> None:
        by_id[session.trial.id].asked.append((len(session.history.events), by.number))
        plain_taken_up(session, run, by)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "History", Watched)
        patch.setattr(Doors, "refuse", refuse)
        patch.setattr(Session, "taken_up", taken_up)
        asyncio.run(run_all(everything, tmp_path_factory.mktemp("nemesis")))
    return by_id


# --- the evidence of each action ----------------------------------------------------------------------------


def killed(ran: Ran, action: actions.Kill) -> None:
    """The launcher's wait status was signal 9, and came before the request was let go, which never was."""
    strikes = [pair for pair in ran.strikes() if "pid" in pair[1]]
    assert len(strikes) == action.times
    assert ran.pids_alive_when_witnessed == []
    # The worker may find a decision that was pushed before the client that brought it has said that it is there.
    late = {("human", "delivered")} if ADAPTERS[ran.trial.sut].decisions == "push" else set()
    for injected, witnessed in strikes:
        (exited,) = [e for e in ran.saw("runner", "exited") if e["generation"] == witnessed["generation"]]
        (started,) = [e for e in ran.saw("runner", "started") if e["generation"] == witnessed["generation"]]
        assert (exited["code"], exited["signal"], started["pid"]) == (-9, 9, witnessed["pid"])
        assert ran.delivered(injected["request"]) == (ran.point.phase == "after")
        fate = [e for e in ran.about(injected["request"]) if e["who"] != "nemesis"]
        assert all(ran.position(e) < ran.position(injected) or e["what"] == "delivered" for e in fate)
        between = ran.events[ran.position(injected) + 1 : ran.position(witnessed)]
        # While the worker dies nothing of the trial is answered, and nothing takes effect; but other nodes go on.
        dying = {None, witnessed["generation"]} if ran.trial.nodes == 1 else {witnessed["generation"]}
        seen = [e for e in between if e["who"] in {"world", "gateway", "human"} and (e["who"], e["what"]) not in late]
        assert [e["what"] for e in seen if e.get("generation") in dying and e["what"] != "drift"] == []
        later = [e for e in ran.saw("runner", "started") if ran.position(e) > ran.position(witnessed)]
        assert (started["node"] in {e["node"] for e in later}) == (action.restart == "same_node")
        if action.restart == "same_node":
            assert later[0]["t"] - exited["t"] >= SUPERVISOR_SECONDS * JUST_BEFORE
    assert ran.scratch_when_witnessed == [not action.lose_scratch] * action.times
    lost = [event for event in ran.saw("runner", "exited") if event["signal"] == 9]
    if action.others:
        # They went down at once, and nobody else did before the run had come to its end.
        (witnessed,) = ran.saw("nemesis", "witnessed")
        (end,) = ran.saw("human", "end_report")
        gone = {event["generation"] for event in lost if ran.position(event) < ran.position(end)}
        assert gone == {witnessed["generation"], *witnessed["others"]}
        assert len(gone) == 1 + action.others


def held(ran: Ran, action: actions.Hold) -> None:
    """A living client closed the connection, not we and not its death, and had heard nothing.

    How long it waited is its own affair: its clock runs from before the request was seen here.
    """
    strikes = list(ran.strikes())
    assert len(strikes) == action.times
    for injected, witnessed in strikes:
        assert witnessed["evidence"].startswith("the client gave up after")
        between = ran.events[ran.position(injected) : ran.position(witnessed)]
        assert not [e for e in between if (e["who"], e["what"]) == ("runner", "exited")]
        unanswered(ran, injected)


def poisoned(ran: Ran, action: actions.Poison) -> None:
    """Whoever brought the one run to its boundary was reaped with signal 9; no other run was struck, and all ended."""
    strikes = list(ran.strikes())
    assert len(strikes) > 1
    assert ran.pids_alive_when_witnessed == []
    ended = {event["run"] for event in ran.saw("human", "end_report")}
    assert ended == {f"r{n}" for n in range(ran.trial.copies)} - {action.run}
    for injected, witnessed in strikes:
        (exited,) = [e for e in ran.saw("runner", "exited") if e["generation"] == witnessed["generation"]]
        assert (exited["code"], exited["signal"]) == (-9, 9)
        (request,) = [e for e in ran.about(injected["request"]) if e["what"] in {"request", "ask"}]
        assert (request["run"], request["generation"]) == (action.run, witnessed["generation"])
        assert not ran.delivered(injected["request"])


def deployed(ran: Ran, action: actions.Deploy) -> None:
    """Whoever had the run after the kill executed the new release, and only its requests are of it."""
    witnessed = ran.saw("nemesis", "witnessed")[-1]
    assert witnessed["program"][-1].endswith(f"released:{action.release}")
    (started,) = [e for e in ran.saw("runner", "started") if e["generation"] == witnessed["released"]]
    assert started["pid"] == witnessed["worker"]
    later = [e for e in ran.events if e.get("generation") == witnessed["released"]]
    assert any(e["what"] == "end_report" for e in later)
    if action.release == "STEP_ADDED":
        first = next(iter(WORKFLOWS[ran.trial.workflow].steps))
        look = next(e for e in later if (e["who"], e["what"]) == ("world", "request"))
        assert (look["step"], look["occurrence"] > 1) == (first, True)


def suspended(ran: Ran, action: actions.Suspend) -> None:
    """Between the pause and its end nothing came of the run but what was in flight, whoever had it; then it went on."""
    (paused,) = ran.saw("nemesis", "paused")
    (resuming,) = ran.saw("nemesis", "resuming")
    (resumed,) = ran.saw("nemesis", "resumed")
    assert ran.position(paused) < ran.position(resuming) < ran.position(resumed)
    assert resuming["meanwhile"] == 0
    assert resuming["paused_seconds"] >= action.seconds * (1 + action.kill)
    between = ran.events[ran.position(paused) + 1 : ran.position(resuming)]
    if action.while_down:
        # Everyone who was started had ended when it was paused, and somebody else was started afterwards.
        lives = {what: {e["generation"]: e for e in ran.saw("runner", what)} for what in ("started", "exited")}
        earlier = [n for n, e in lives["started"].items() if ran.position(e) < ran.position(paused)]
        assert all(ran.position(lives["exited"][n]) < ran.position(paused) for n in earlier)
        assert len(lives["started"]) > len(earlier) > 0
    acted = [e for e in between if e["what"] in {"request", "ask", "asked", "end_report"}]
    assert acted == []
    assert {e["request"] for e in between if e["what"] in {"effect", "answer", "reply"}} <= {paused["request"]}
    killed = ran.saw("nemesis", "killed")
    assert len(killed) == action.kill
    for event in killed:
        (exited,) = [e for e in ran.saw("runner", "exited") if e["generation"] == event["generation"]]
        (successor,) = [e for e in ran.saw("runner", "started") if e["generation"] == event["generation"] + 1]
        assert exited["signal"] == 9
        # The next one had the run, and the time to go on with it, while it was paused.
        assert resuming["t"] - successor["t"] >= action.seconds * JUST_BEFORE
    (ended,) = ran.saw("human", "end_report")
    assert ran.position(ended) > ran.position(resuming)


def store_restarted(ran: Ran, action: actions.RestartStore) -> None:
    """The server that was killed is gone for good, was away for as long as it was to be, and the run ended then."""
    (killed,) = ran.saw("nemesis", "store_killed")
    back = ran.saw("nemesis", "witnessed")[-1]
    assert back["server"] == killed["server"]
    assert "reaped with signal 9, its port refused, and it answered again" in back["evidence"]
    assert not Path(f"/proc/{killed['server']}").exists()
    assert back["down_seconds"] >= action.seconds
    assert back["t"] - killed["t"] >= action.seconds * JUST_BEFORE
    (ended,) = ran.saw("human", "end_report")
    assert ran.position(ended) > ran.position(killed)


def cut(ran: Ran, action: actions.Cut) -> None:
    strikes = list(ran.strikes())
    assert len(strikes) == action.times
    for injected, witnessed in strikes:
        assert "no byte of a response" in witnessed["evidence"]
        unanswered(ran, injected)


def answered(ran: Ran, action: actions.Answer) -> None:
    strikes = list(ran.strikes())
    assert len(strikes) == action.times
    for injected, witnessed in strikes:
        assert f"answered {action.status}" in witnessed["evidence"]
        unanswered(ran, injected)


def limited(ran: Ran, action: actions.Limit) -> None:
    """The call was turned away as long as it was limited; who heeded Retry-After came once, and then got through."""
    ((injected, witnessed),) = ran.strikes()
    assert "answered 429" in witnessed["evidence"]
    assert ran.saw("nemesis", "too_soon") == []
    unanswered(ran, injected)
    kind = {"tool": ("world", "request"), "model": ("gateway", "ask")}[ran.point.kind]
    again = next(event for event in ran.saw(*kind) if event["t"] > injected["t"])
    assert again["step"] == ran.point.step
    # A date has whole seconds, and says the next one.
    assert again["t"] - injected["t"] >= action.seconds * JUST_BEFORE


def broken_off(ran: Ran, action: actions.Break) -> None:
    """A reply was generated and charged, and never arrived whole."""
    strikes = list(ran.strikes())
    assert len(strikes) == action.times
    for injected, witnessed in strikes:
        assert "half of the body was written" in witnessed["evidence"]
        assert [event["what"] for event in ran.about(injected["request"]) if event["who"] == "gateway"] == [
            "ask",
            "generated",
            "reply",
            "delivered",
        ]
        assert not ran.delivered(injected["request"])


def dripped(ran: Ran, action: actions.Drip) -> None:
    """The body took as long as it was to; or its client, and not its death, ended it half way."""
    ((injected, witnessed),) = ran.strikes()
    whole = witnessed["bytes_written"] == witnessed["bytes_whole"]
    assert ran.delivered(injected["request"]) == whole
    patience = WORKFLOWS[ran.trial.workflow].policy.model_timeout_seconds
    assert whole == (action.seconds < patience)
    assert witnessed["bytes_written"] > 0
    assert witnessed["seconds"] >= min(action.seconds, patience) * JUST_BEFORE


def tampered(ran: Ran, action: actions.Tamper) -> None:
    """What was sent is not what was found, arrived, and breaks what is declared unless it only holds more."""
    changed = ran.saw("world", "tampered")
    assert changed
    assert len(changed) == action.times or (ran.form.may_halt or action.how in {"gains_field", "instruction"})
    assert [e["request"] for e in changed] == [e["request"] for e in ran.saw("nemesis", "witnessed")]
    for event in changed:
        assert event["sent"] != event["result"]
        assert ran.delivered(event["request"])
        assert bool(event["breaks"]) == (action.how not in {"gains_field", "instruction"})
    if ran.form.may_halt:
        # Nothing of it was believed: only the answers after a person had stepped in were.
        budget = WORKFLOWS[ran.trial.workflow].policy.attempts
        assert len(changed) == (budget if "budget" in ran.result.reason else 1)


def told_again(ran: Ran, _: actions.Resubmit | actions.Redeliver) -> None:
    """It was told again, and had its chance to do something twice; the decision was asked for once."""
    ((injected, witnessed),) = ran.strikes()
    assert " again " in witnessed["evidence"]
    questions = [event["question"] for event in ran.saw("human", "asked")]
    assert len(questions) == len(set(questions))
    assert len(ran.saw("human", "end_report")) == 1
    if (ran.point.kind, ran.point.phase) == ("end", "after"):
        assert ran.events[-1]["t"] - injected["t"] >= trial_module.RESTARTED_SECONDS


def unanswered(ran: Ran, injected: Event) -> None:
    """The request's own answer was never given; its effect is in the ledger exactly if that is the phase."""
    about = ran.about(injected["request"])
    assert not ran.delivered(injected["request"])
    assert [event["what"] for event in about if event["what"] in {"answer", "reply"}] == []
    effects = [event for event in about if event["what"] == "effect"]
    assert len(effects) == (ran.point.phase == "committed")
    assert all(ran.position(effect) < ran.position(injected) for effect in effects)


def refused(ran: Ran, action: actions.Refuse) -> None:
    ((injected, witnessed),) = ran.strikes()
    assert ran.refused == [True]
    assert witnessed["t"] - injected["t"] >= action.seconds
    unanswered(ran, injected)
    # Nothing reached the service while it refused, and something did afterwards.
    kind = {"tool": ("world", "request"), "model": ("gateway", "ask")}[ran.point.kind]
    came = [event["t"] for event in ran.saw(*kind) if event["t"] > injected["t"]]
    assert came
    assert min(came) >= injected["t"] + action.seconds


def corrupted(ran: Ran, action: actions.Corrupt) -> None:
    damaged = [event for event in ran.saw("gateway", "reply") if event["damaged"]]
    assert not any(event["as_scripted"] for event in damaged)
    assert [event["request"] for event in damaged] == [event["request"] for event in ran.saw("nemesis", "injected")]
    budget = WORKFLOWS[ran.trial.workflow].policy.model_calls_max
    assert len(damaged) == action.times if action.times < budget else len(damaged) > 1
    assert ran.saw("nemesis", "witnessed")[0]["request"] == damaged[0]["request"]


def drifted(ran: Ran, _: actions.Drift) -> None:
    """The version moved on after the record was read and before the effect that rests on it."""
    drift = WORKFLOWS[ran.trial.workflow].drifts[ran.trial.drift]
    (moved,) = ran.saw("world", "drift")
    assert moved["record"] == drift.record
    collection = drift.record.split("/", maxsplit=1)[0]
    reads = [event for event in ran.saw("world", "read") if event["record"] in {drift.record, collection}]
    early = {event["version"] for event in reads if ran.position(event) < ran.position(moved)}
    late = {event["version"] for event in reads if ran.position(event) > ran.position(moved)}
    assert early
    assert late
    assert not early & late
    acted = [event for event in ran.saw("world", "effect") if event["step"] == drift.step]
    assert all(ran.position(event) > ran.position(moved) for event in acted)


def decided(ran: Ran, action: actions.Decide) -> None:
    asked = next(e for e in ran.saw("human", "asked") if (e["step"], e["item"]) == (ran.point.step, ran.point.item))
    (said,) = [event for event in ran.saw("human", "decided") if event["question"] == asked["question"]]
    delivered = [event for event in ran.saw("human", "delivered") if event["question"] == asked["question"]]
    assert said["decision"] == action.answer
    assert len(delivered) == action.deliveries
    if action.before_wait:
        # Whoever asked had heard nothing yet, and nothing else had come to pass.
        between = ran.events[ran.position(asked) + 1 : ran.position(said)]
        assert [event["what"] for event in between if event["who"] != "nemesis"] == []
    else:
        assert said["t"] - asked["t"] >= action.delay_hours * SECONDS_PER_HOUR * JUST_BEFORE
    lives = {e["generation"] for e in ran.saw("runner", "started") if asked["t"] < e["t"] < said["t"]}
    kills = sum(isinstance(other, actions.Kill) for other in ran.form.actions)
    assert len(lives) == kills
    assert f"{kills} worker(s) since" in ran.saw("nemesis", "witnessed")[-1]["evidence"]


def out_of_order(ran: Ran, action: actions.Outage) -> None:
    """The tool served nobody before the outage was over, and refused nobody who asked after it.

    It began between the arrival of its first request and the strike; each later one was refused or served between its
    own arrival and its answer.
    """
    (injected,) = ran.saw("nemesis", "injected")
    tool = WORKFLOWS[ran.trial.workflow].steps[ran.point.step].tool
    requests = {event["request"]: event["t"] for event in ran.saw("world", "request") if event["tool"] == tool}
    answers = [event for event in ran.saw("world", "answer") if event["request"] in requests]
    turned_away = [event for event in answers if action.status and event["status"] == action.status]
    served = [event for event in answers if event not in turned_away]
    assert injected["request"] not in {event["request"] for event in served}
    assert bool(turned_away) == bool(action.status)
    assert served
    over_at_least = requests[injected["request"]] + action.seconds
    assert all(event["t"] >= over_at_least - ROUNDED_SECONDS for event in served)
    over_at_most = injected["t"] + action.seconds
    assert all(requests[event["request"]] <= over_at_most + ROUNDED_SECONDS for event in turned_away)


def partitioned(ran: Ran, action: actions.Partition) -> None:
    """Nothing of the node reached a service while it was cut off; healed, it went on."""
    ((injected, witnessed),) = ran.strikes()
    (cut_off,) = ran.saw("nemesis", "cut_off")
    (healed,) = ran.saw("nemesis", "healed")
    assert cut_off["generation"] == healed["generation"] == witnessed["generation"]
    if action.side == "store":
        # Its services it reached all the while; from its store it was kept until the run had been taken over.
        assert "were ended by the proxy, new ones are refused" in cut_off["evidence"]
        assert witnessed["others"] or healed["t"] - cut_off["t"] >= action.seconds * JUST_BEFORE
        return
    # Whose lease runs out is healed as soon as another has taken its run over, and has nothing to go on with.
    taken_over = bool(witnessed["others"])
    assert taken_over or healed["t"] - cut_off["t"] >= action.seconds * JUST_BEFORE
    mine = [event for event in ran.events if event.get("generation") == witnessed["generation"]]
    served = [ran.position(event) for event in mine if event["what"] in {"request", "ask", "asked", "end_report"}]
    assert not [at for at in served if ran.position(cut_off) < at < ran.position(healed)]
    assert taken_over or [at for at in served if at > ran.position(healed)]
    struck = injected["request"] is not None
    assert witnessed["kept"] == len(ran.saw("doors", "cut_off")) + struck
    assert witnessed["kept"] > 0 or cut_off["unseen"]
    if struck:
        unanswered(ran, injected)


def paused(ran: Ran, action: actions.Pause) -> None:
    """It stood still with all its threads until another worker had taken the run over, and lived on.

    It is let go before it is seen to go on, so that it may act, or ask again, in between.
    """
    ((injected, witnessed),) = ran.strikes()
    (stopped,) = ran.saw("nemesis", "stopped")
    (continued,) = ran.saw("nemesis", "continued")
    assert ran.states["stopped"] == {"T"}
    assert ran.states["continued"].isdisjoint({"T", "Z"})
    zombie, successor = witnessed["generation"], witnessed["successor"]
    assert (stopped["generation"], continued["generation"]) == (zombie, zombie)
    assert successor != zombie
    assert witnessed["stopped_seconds"] < action.seconds_max
    between = ran.events[ran.position(stopped) : ran.position(continued)]
    acted = [event["generation"] for event in between if event["what"] in {"request", "ask", "asked", "end_report"}]
    assert acted[0] == successor
    # What it had asked for was served while it stood still.
    if injected["request"] is not None:
        assert ran.delivered(injected["request"])
        assert all(ran.position(e) < ran.position(continued) for e in ran.about(injected["request"]))
    # It was still alive when the trial was over, and had its chance to act, or took it.
    (exited,) = [event for event in ran.saw("runner", "exited") if event["generation"] == zombie]
    (status,) = ran.saw("runner", "status")
    assert (exited["signal"], ran.position(status) < ran.position(exited)) == (9, True)
    asked_again = [before for before, who in ran.asked if who == zombie and before > ran.position(stopped)]
    assert asked_again or exited["t"] - continued["t"] >= trial_module.RESTARTED_SECONDS * JUST_BEFORE


def met_a_toxic(ran: Ran, action: actions.Toxic) -> None:
    """A service's answers met the toxic, and what it does to them is what became of them."""
    ((injected, witnessed),) = ran.strikes()
    met = ran.saw("nemesis", "met")
    if action.link == "store":
        assert met == []
        assert witnessed["t"] - injected["t"] >= (witnessed["least_seconds"] if action.kind == "latency" else 0.0)
        return
    if action.kind == "down":
        unanswered(ran, injected)
        assert (witnessed["connections"] >= 1, witnessed["seconds"] >= action.seconds) == (True, True)
        came = [e["t"] for e in ran.saw("world", "request") + ran.saw("gateway", "ask") if e["t"] > injected["t"]]
        assert min(came) >= injected["t"] + action.seconds
        return
    assert {event["toxic"] for event in met} == {action.kind}
    assert 1 <= len(met) <= action.responses
    if action.kind in {"timeout", "reset_peer", "limit_data"}:
        # Written in full, and lost on the way: nobody may take it for delivered.
        assert witnessed["lost_bytes"] > 0
        assert not any(ran.delivered(event["request"]) for event in met)
        assert len(met) == action.responses or ran.form.may_halt
    elif action.kind == "slow_close":
        assert witnessed["swallowed_bytes"] > 0
    else:
        assert witnessed["seconds"] >= witnessed["least_seconds"] > 0
        # On a machine that is slow enough, a client may have given up on it.
        assert ran.delivered(witnessed["request"]) != ("gave up" in witnessed["evidence"])


def disk_filled(ran: Ran, action: actions.FillDisk) -> None:
    """Nothing was left on the disk for as long as it was to be full, with the run not yet at its end."""
    (filled,) = ran.saw("nemesis", "filled")
    (freed,) = ran.saw("nemesis", "freed")
    assert ran.bytes_left["filled"] == 0 < ran.bytes_left["freed"]
    assert freed["t"] - filled["t"] >= action.seconds * JUST_BEFORE
    (end,) = ran.saw("human", "end_report")
    assert ran.position(end) > ran.position(filled)
    killed = ran.saw("nemesis", "killed")
    assert len(killed) == bool(action.kill_after_seconds)
    for event in killed:
        assert filled["t"] < event["t"] < freed["t"]


def clock_set(ran: Ran, action: actions.JumpClock) -> None:
    """A living worker had the clock, which was off by as much as was said; the world's went on as ever."""
    told = ran.saw("nemesis", "witnessed")[-1]
    assert told["hours"] == pytest.approx(action.hours, abs=0.01)
    assert f"a clock that is {action.hours:+.2f} h off" in told["evidence"]
    lives = {event["generation"]: event for event in ran.saw("runner", "started")}
    kills = sum(isinstance(other, actions.Kill) for other in ran.form.actions)
    assert ran.position(lives[told["worker"]]) < ran.position(told)
    assert told["worker"] > kills


def power_lost(ran: Ran, _: actions.LosePower) -> None:
    """Every worker that ran was reaped, and no other was started before the disk was back with what was synced."""
    ((injected, witnessed),) = ran.strikes()
    (killed,) = ran.saw("nemesis", "killed")
    (exited,) = [e for e in ran.saw("runner", "exited") if e["generation"] == killed["generation"]]
    assert (exited["code"], exited["signal"]) == (-9, 9)
    for said in ("1 worker(s) reaped with signal 9", "without a flush", "failed with EIO", "not synced was gone"):
        assert said in witnessed["evidence"]
    assert not [e for e in ran.events[ran.position(injected) : ran.position(witnessed)] if e["what"] == "started"]
    assert [e for e in ran.saw("runner", "started") if ran.position(e) > ran.position(witnessed)]
    assert ran.delivered(injected["request"]) == (ran.point.phase == "after")


EVIDENCE: Mapping[type, Callable[[Ran, Any], None]] = {
    actions.Kill: killed,
    actions.Pause: paused,
    actions.Partition: partitioned,
    actions.Poison: poisoned,
    actions.RestartStore: store_restarted,
    actions.Suspend: suspended,
    actions.Deploy: deployed,
    actions.Hold: held,
    actions.Cut: cut,
    actions.Answer: answered,
    actions.Refuse: refused,
    actions.Corrupt: corrupted,
    actions.Drift: drifted,
    actions.Decide: decided,
    actions.Outage: out_of_order,
    actions.FillDisk: disk_filled,
    actions.JumpClock: clock_set,
    actions.LosePower: power_lost,
    actions.Toxic: met_a_toxic,
    actions.Limit: limited,
    actions.Break: broken_off,
    actions.Drip: dripped,
    actions.Tamper: tampered,
    actions.Resubmit: told_again,
    actions.Redeliver: told_again,
}
"""How the history shows each action. An action that is new has to say so here."""


# --- the tests ----------------------------------------------------------------------------------------------


def test_of_every_fault_class_it_is_shown_that_it_catches_a_sut() -> None:
    signs = [sign.strike for bug in BUGS for sign in bug.signs]
    shown = {strike.partition(".")[0] for strike in (*signs, *NAIVE, *NAIVE_AGENT)}
    assert sorted([*shown, *CAUGHT_ELSEWHERE]) == sorted(FAULTS)
    for fault, file in CAUGHT_ELSEWHERE.items():
        assert f'Strike("{fault}", ' in Path(__file__).with_name(file).read_text(encoding="utf-8")


@pytest.mark.parametrize(("fault", "form"), FORMS, ids=[f"{fault}.{form}" for fault, form in FORMS])
def test_every_form_is_witnessed_and_mended(ran: Mapping[str, Ran], fault: str, form: str) -> None:
    trial = trial_of(fault, form)
    must_be_runnable(trial)
    one = ran[trial.id]
    assert one.error is None, one.error
    result = one.result
    assert (result.injection, result.reason) == ("witnessed", result.reason), one.trial.id
    for action in one.form.actions:
        EVIDENCE[type(action)](one, action)
    if result.verdict == "correct_halt":
        # Right only where a budget is spent for good, or the tool leaves in doubt whether it has acted.
        assert one.form.may_halt or "opaque" in result.reason or "flagged" in result.reason
    elif result.verdict == "needless_halt":
        # A bystander may be killed just between recording a call that can't be repeated and making it.
        assert fault == "poison_workflow"
        assert "was never called" in result.reason
    else:
        assert result.verdict == "correct", result.reason
    assert one.events[-1]["what"] == "closed"


@pytest.mark.parametrize(("strike", "chain", "caught"), NAIVE_RUNS)
def test_a_script_without_a_durable_runtime_loses_or_duplicates(
    ran: Mapping[str, Ran], strike: str, chain: str, caught: tuple[str, str]
) -> None:
    trial = naive_trial(strike, chain)
    must_be_runnable(trial)
    one = ran[trial.id]
    assert one.error is None, one.error
    result = one.result
    assert (result.injection, result.verdict) == ("witnessed", caught[0]), result.reason
    assert caught[1] in result.reason


def test_nothing_is_left_of_the_trials(ran: Mapping[str, Ran]) -> None:
    for path in Watched.of_path:
        assert path.is_file()
        assert not path.with_suffix("").exists()
    pids = {event["pid"] for one in ran.values() for event in one.saw("runner", "started")}
    assert len(pids) > len(ran)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
