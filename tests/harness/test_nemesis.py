"""Every form of every fault class, done for real to a real worker: what the history shows of it, and what came of it.

All trials run at once, in one event loop; each test then looks at one of them. A form that is new in ``FAULTS`` is
run and judged here without a line of its own, as long as it is composed of the actions there are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults import FAULTS, actions
from kintsugi.faults.fault import Form
from kintsugi.faults.points import Point
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import trial as trial_module
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.crossing import Doors
from kintsugi.harness.history import Event, History, of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.session import SECONDS_PER_HOUR
from kintsugi.harness.trial import Crew, run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.scenarios.planner import candidates
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.process

WORKFLOWS = load_workflows()
FAVOURITE = "finance/invoice_payment"
DEADLINE_SECONDS = 60.0
AT_ONCE = 16
JUST_BEFORE = 0.9
"""A client's time-out begins a little before its request arrives."""

FORMS = [(fault, form.name) for fault, kind in FAULTS.items() for form in kind.forms]

NAIVE = {
    "worker_kill.at_boundary@tool:note[0]#1@before": ("corrupted", "duplicate effect of bank.pay"),
    "partial_side_effect.killed@tool:pay[0]#1@committed": ("corrupted", "duplicate effect of bank.pay"),
    "partial_side_effect.reset@tool:tell[0]#1@committed": ("corrupted", "duplicate effect of mail.send"),
    "node_loss.process@tool:note[0]#1@before": ("lost", "no worker was left"),
}
"""What the script without a durable runtime makes of a fault in the payment of an invoice."""


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

    @property
    def result(self) -> TrialResult:
        return judge_trial(WORKFLOWS[self.trial.workflow], self.trial, self.events, {}, 5.0)

    @property
    def form(self) -> Form:
        (strike,) = self.trial.schedule
        return FAULTS[strike.fault].form(strike.form)

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
        """Each witness, after the injection that it is of."""
        injected = None
        for event in self.saw("nemesis", "injected", "witnessed"):
            if event["what"] == "injected":
                injected = event
            else:
                assert injected is not None
                yield injected, event


def trial_of(fault: str, form: str) -> Trial:
    """A trial of a form on the minimal runtime: where it meets a payment if it can, else where it first applies."""
    for chain in ("optimized", "naive"):
        for name in sorted(WORKFLOWS, key=lambda name: name != FAVOURITE):
            frame = candidates(WORKFLOWS[name], chain, fault, [form])
            if frame:
                best = max(frame, key=lambda candidate: candidate.site.idempotency == "key")
                strike = Strike(fault, form, best.site.point)
                found = best.form
                return Trial(
                    "fault",
                    "minimal",
                    chain,
                    name,
                    (strike,),
                    7,
                    copies=found.copies,
                    nodes=found.nodes,
                    drift=best.drift,
                )
    raise AssertionError(f"{fault}.{form} applies nowhere")


def naive_trial(strike: str, chain: str) -> Trial:
    fault, _, rest = strike.partition(".")
    form, _, point = rest.partition("@")
    schedule = (Strike(fault, form, Point.parse(point)),)
    return Trial("fault", "naive", chain, FAVOURITE, schedule, 7, nodes=FAULTS[fault].form(form).nodes)


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
            threads = Path(f"/proc/{data['pid']}/task").glob("*/stat")
            self.ran.states[what] = {thread.read_text().rpartition(") ")[2][0] for thread in threads}
        return super().add(who, what, **data)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def run_all(everything: Sequence[Ran], folder: Path) -> None:
    crews = {name: Crew(ADAPTERS[name], folder) for name in ("minimal", "naive")}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def run(ran: Ran, path: Path) -> None:
        async with at_once:
            try:
                ran.events = await run_trial(
                    ran.trial,
                    WORKFLOWS[ran.trial.workflow],
                    crews[ran.trial.sut],
                    path.with_suffix(""),
                    path,
                    DEADLINE_SECONDS,
                )
            except BaseException as error:
                ran.error = error
                raise

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
    """Every trial of this module by its id, run."""
    everything = [Ran(trial_of(*form)) for form in FORMS]
    everything += [Ran(naive_trial(strike, chain)) for strike in NAIVE for chain in ("naive", "optimized")]
    by_id = {one.trial.id: one for one in everything}
    plain_refuse = Doors.refuse

    def refuse(doors: Doors, kind: str, seconds: float) -> Any:
        down = plain_refuse(doors, kind, seconds)
        name = {"tool": "tools", "model": "model"}[kind]
        by_id[doors._session.trial.id].refused.append(refuses(doors._held[name].getsockname()[1]))
        return down

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "History", Watched)
        patch.setattr(Doors, "refuse", refuse)
        asyncio.run(run_all(everything, tmp_path_factory.mktemp("nemesis")))
    return by_id


# --- the evidence of each action ----------------------------------------------------------------------------


def killed(ran: Ran, action: actions.Kill) -> None:
    """The launcher's wait status was signal 9, and came before the request was let go, which never was."""
    strikes = [pair for pair in ran.strikes() if "pid" in pair[1]]
    assert len(strikes) == action.times
    assert ran.pids_alive_when_witnessed == []
    for injected, witnessed in strikes:
        (exited,) = [e for e in ran.saw("runner", "exited") if e["generation"] == witnessed["generation"]]
        (started,) = [e for e in ran.saw("runner", "started") if e["generation"] == witnessed["generation"]]
        assert (exited["code"], exited["signal"], started["pid"]) == (-9, 9, witnessed["pid"])
        assert ran.delivered(injected["request"]) == (ran.point.phase == "after")
        fate = [e for e in ran.about(injected["request"]) if e["who"] != "nemesis"]
        assert all(ran.position(e) < ran.position(injected) or e["what"] == "delivered" for e in fate)
        between = ran.events[ran.position(injected) + 1 : ran.position(witnessed)]
        # While the worker dies nothing of the trial is answered, and nothing takes effect.
        assert [e["what"] for e in between if e["who"] in {"world", "gateway", "human"}] == []
        later = [e for e in ran.saw("runner", "started") if ran.position(e) > ran.position(witnessed)]
        assert (started["node"] in {e["node"] for e in later}) == (action.restart == "same_node")
        if action.restart == "same_node":
            assert later[0]["t"] - exited["t"] >= trial_module.SUPERVISOR_SECONDS * JUST_BEFORE
    assert ran.scratch_when_witnessed == [not action.lose_scratch] * action.times


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


def cut(ran: Ran, action: actions.Cut) -> None:
    strikes = list(ran.strikes())
    assert len(strikes) == action.times
    for injected, witnessed in strikes:
        assert "no byte of a response" in witnessed["evidence"]
        unanswered(ran, injected)


def answered(ran: Ran, action: actions.Answer) -> None:
    ((injected, witnessed),) = ran.strikes()
    assert f"answered {action.status}" in witnessed["evidence"]
    unanswered(ran, injected)


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
    waited = said["t"] - asked["t"]
    if action.before_wait:
        assert waited < SECONDS_PER_HOUR * 0.4
    else:
        assert waited >= action.delay_hours * SECONDS_PER_HOUR * JUST_BEFORE
    lives = {e["generation"] for e in ran.saw("runner", "started") if asked["t"] < e["t"] < said["t"]}
    kills = sum(isinstance(other, actions.Kill) for other in ran.form.actions)
    assert len(lives) == kills
    assert f"{kills} worker(s) since" in ran.saw("nemesis", "witnessed")[-1]["evidence"]


def out_of_order(ran: Ran, action: actions.Outage) -> None:
    """The tool refused whoever asked during the outage, and nobody after it."""
    (injected,) = ran.saw("nemesis", "injected")
    tool = WORKFLOWS[ran.trial.workflow].steps[ran.point.step].tool
    requests = {event["request"]: event["t"] for event in ran.saw("world", "request") if event["tool"] == tool}
    answers = [event for event in ran.saw("world", "answer") if event["request"] in requests]
    turned_away = [event for event in answers if event["status"] == action.status]
    assert turned_away
    until = injected["t"] + action.seconds
    for event in answers:
        came = requests[event["request"]]
        # At the edge the clock of the outage and that of the history may differ by a moment.
        if abs(came - until) > 0.02:
            assert (event["status"] == action.status) == (came < until)


def paused(ran: Ran, action: actions.Pause) -> None:
    """It stood still with all its threads until another worker had taken the run over, and lived on."""
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
    assert set(acted) == {successor}
    # What it had asked for was served while it stood still.
    if injected["request"] is not None:
        assert ran.delivered(injected["request"])
        assert all(ran.position(e) < ran.position(continued) for e in ran.about(injected["request"]))
    # It was still alive when the trial was over, and had its chance to act.
    (exited,) = [event for event in ran.saw("runner", "exited") if event["generation"] == zombie]
    assert exited["t"] - continued["t"] >= trial_module.RESTARTED_SECONDS * JUST_BEFORE


EVIDENCE: Mapping[type, Callable[[Ran, Any], None]] = {
    actions.Kill: killed,
    actions.Pause: paused,
    actions.Hold: held,
    actions.Cut: cut,
    actions.Answer: answered,
    actions.Refuse: refused,
    actions.Corrupt: corrupted,
    actions.Drift: drifted,
    actions.Decide: decided,
    actions.Outage: out_of_order,
}
"""How the history shows each action. An action that is new has to say so here."""


# --- the tests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "form"), FORMS, ids=[f"{fault}.{form}" for fault, form in FORMS])
def test_every_form_is_witnessed_and_mended(ran: Mapping[str, Ran], fault: str, form: str) -> None:
    one = ran[trial_of(fault, form).id]
    assert one.error is None, one.error
    result = one.result
    assert (result.injection, result.reason) == ("witnessed", result.reason), one.trial.id
    for action in one.form.actions:
        EVIDENCE[type(action)](one, action)
    if result.verdict == "correct_halt":
        # Right only where a budget is spent for good, or the tool leaves in doubt whether it has acted.
        assert one.form.may_halt or "opaque" in result.reason or "flagged" in result.reason
    else:
        assert result.verdict == "correct", result.reason
    assert one.events[-1]["what"] == "closed"


@pytest.mark.parametrize("chain", ["naive", "optimized"])
@pytest.mark.parametrize("strike", NAIVE)
def test_a_script_without_a_durable_runtime_loses_or_duplicates(
    ran: Mapping[str, Ran], strike: str, chain: str
) -> None:
    one = ran[naive_trial(strike, chain).id]
    assert one.error is None, one.error
    result = one.result
    assert (result.injection, result.verdict) == ("witnessed", NAIVE[strike][0]), result.reason
    assert NAIVE[strike][1] in result.reason


def test_nothing_is_left_of_the_trials(ran: Mapping[str, Ran]) -> None:
    for path in Watched.of_path:
        assert path.is_file()
        assert not path.with_suffix("").exists()
    pids = {event["pid"] for one in ran.values() for event in one.saw("runner", "started")}
    assert len(pids) > len(ran)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
