"""``kintsugi run`` with a real model, at a server of the test's own: recorded, replayed, paid for, kept secret."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from kintsugi.harness.cli import main
from kintsugi.harness.history import of
from kintsugi.harness.models import provider as provider_module
from kintsugi.harness.models.spend import spent_so_far
from kintsugi.harness.results import Results
from kintsugi.harness.script import wanted_by
from kintsugi.harness.session import TIME_SCALE

if TYPE_CHECKING:
    from tests.harness.models.conftest import FakeProvider

pytestmark = [pytest.mark.models, pytest.mark.process, pytest.mark.usefixtures("litellm")]

NAME = "openai/fake"
KEY = "sk-planted-0123456789"
SECONDS_MAX = 120
SUITE = """
name = "few"
version = 1
about = "A few trials with a real model."
workflows = ["finance/invoice_payment"]
suts = ["minimal+optimized", "naive+naive"]
clean_seeds = 1

[[faults]]
fault = "malformed_output"
forms = ["invalid_json"]
model = 1

[[faults]]
fault = "worker_kill"
forms = ["at_boundary"]
shared = 1
"""
POLLED = "operations/incident_response"
POLLING = f"""
name = "polling"
version = 1
about = "Trials that wait for a slow job, with a real model."
workflows = ["{POLLED}"]
suts = ["minimal+optimized", "naive+naive"]
clean_seeds = 1
"""
PRICES = """
[model]
input_usd_per_million = 1.0
cached_input_usd_per_million = 0.5
output_usd_per_million = 10.0
"""


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        yield


@dataclass
class Folder:
    """A folder with a suite, a price table, and what runs are to write."""

    path: Path
    suite: str = SUITE

    def words(self, out: str, *more: str) -> list[str]:
        (self.path / "few.toml").write_text(self.suite)
        (self.path / "prices.toml").write_text(PRICES)
        return ["run", "--suite", str(self.path / "few.toml"), "--out", str(self.path / out), "--jobs", "4", *more]

    def run(self, out: str, *more: str) -> Result:
        return CliRunner().invoke(main, self.words(out, *more))

    def asks(self, provider: FakeProvider, out: str, *more: str) -> Result:
        """Run with a model that a provider has."""
        return CliRunner().invoke(main, self.asking(provider, out, *more))

    def asking(self, provider: FakeProvider, out: str, *more: str) -> list[str]:
        priced = ("--prices", str(self.path / "prices.toml"))
        return self.words(out, "--model", NAME, "--model-base", provider.url, *priced, *more)

    def results(self, out: str) -> Results:
        return Results.existing(self.path / out)

    def said(self, out: str) -> dict[str, list[Any]]:
        """For each trial what the model said, in order, and how it ended."""
        results = self.results(out)
        return {
            name: [
                result.verdict,
                result.injection,
                *((e["step"], e["message"], e["finish_reason"]) for e in of(results.history(name), "gateway", "reply")),
            ]
            for name, result in results.trials().items()
        }

    def asked(self, out: str) -> dict[str, list[Any]]:
        """For each trial what was asked of the model, in order."""
        results = self.results(out)
        named = ("run", "step", "item", "n", "wants", "prompt_tokens")
        return {
            name: [[event[key] for key in named] for event in of(results.history(name), "gateway", "ask")]
            for name in results.trials()
        }

    def holding(self, text: str) -> list[Path]:
        """The files in which a text stands."""
        return [path for path in self.path.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@dataclass
class Recorded:
    """A run that was recorded."""

    folder: Folder
    provider: FakeProvider
    ended: Result
    tape: Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, new_provider: Callable[[], FakeProvider]) -> Recorded:
    folder, provider = Folder(tmp_path_factory.mktemp("recorded")), new_provider()
    tape = folder.path / "cassette"
    ended = folder.asks(provider, "out", "--record", str(tape), "--yes")
    return Recorded(folder, provider, ended, tape)


def failing(request: Mapping[str, Any], _: web.Request) -> web.Response:
    """A provider that tells the key in its error."""
    return web.json_response({"error": {"message": f"too long for {KEY}"}}, status=400)


# --- with a model -------------------------------------------------------------------------------------------


def test_a_model_that_is_right_ends_every_trial_correct_with_both_chains(recorded: Recorded) -> None:
    assert recorded.ended.exit_code == 0, recorded.ended.output
    results = recorded.folder.results("out").trials()
    calm = [result for result in results.values() if not result.fault]
    assert {result.chain for result in calm} == {"optimized", "naive"}
    assert {result.verdict for result in calm} == {"correct"}
    assert {result.variance for result in results.values()} == {"real"}
    struck = [result for result in results.values() if result.fault and result.sut == "minimal"]
    assert [(result.injection, result.verdict) for result in struck] == [("witnessed", "correct")] * len(struck)
    assert len(struck) == 2


def test_the_scorecard_says_who_answered_at_which_price_and_who_counted(recorded: Recorded) -> None:
    assumed = recorded.folder.results("out").summary()["assumptions"]
    assert assumed["answered_by"] == "openai/fake, asked through litellm"
    assert assumed["token_source"] == "as the provider reports them"
    assert (assumed["model"]["name"], assumed["model"]["input_usd_per_million"]) == (NAME, 1.0)
    assert assumed["model"]["source"].endswith("prices.toml")
    page = (recorded.folder.path / "out" / "scorecard.html").read_text()
    assert "asked through litellm" in page
    assert "as the provider reports them" in (recorded.folder.path / "out" / "summary.md").read_text()


def test_what_was_spent_is_what_the_provider_counted(recorded: Recorded) -> None:
    lines = (recorded.folder.path / "out" / "spend.jsonl").read_text().splitlines()
    results = recorded.folder.results("out").trials().values()
    used = [result.usage for result in results]
    charged = sum(u.prompt_tokens - u.cached_prompt_tokens / 2 + 10 * u.completion_tokens for u in used) / 1e6
    # A worker that is killed may leave an answer behind that no trial was charged with.
    assert sum(json.loads(line)["usd"] for line in lines) >= charged * 0.999
    assert recorded.provider.asked


def test_no_key_is_in_anything_that_is_written_or_said(
    recorded: Recorded, folder: Folder, new_provider: Callable[[], FakeProvider]
) -> None:
    assert recorded.provider.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert recorded.folder.holding(KEY) == []
    assert KEY not in recorded.ended.output
    telling = new_provider()
    telling.answers = failing
    ended = folder.asks(telling, "out", "--record", str(folder.path / "cassette"), "--yes", "--sut", "naive")
    assert ended.exit_code == 0, ended.output
    assert telling.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert folder.holding("too long for [OPENAI_API_KEY]") != []
    assert folder.holding(KEY) == []
    assert KEY not in ended.output


def test_stored_histories_are_judged_as_they_were(recorded: Recorded) -> None:
    ended = CliRunner().invoke(main, ["check", str(recorded.folder.path / "out")])
    assert (ended.exit_code, "0 verdicts differ" in ended.output) == (0, True), ended.output
    before = recorded.folder.results("out").summary()
    assert CliRunner().invoke(main, ["report", str(recorded.folder.path / "out")]).exit_code == 0
    assert recorded.folder.results("out").summary()["suts"] == before["suts"]


# --- from a cassette ----------------------------------------------------------------------------------------


def test_a_cassette_answers_twice_as_the_model_did_once(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> None:
        raise AssertionError("a cassette asks nobody")

    monkeypatch.setattr(provider_module, "load", loaded)
    monkeypatch.delenv("OPENAI_API_KEY")
    asked = len(recorded.provider.asked)
    for out in ("again", "once_more"):
        ended = recorded.folder.run(out, "--replay", str(recorded.tape))
        assert ended.exit_code == 0, ended.output
        assert recorded.folder.said(out) == recorded.folder.said("out")
    assert len(recorded.provider.asked) == asked
    assumed = recorded.folder.results("again").summary()["assumptions"]
    assert assumed["answered_by"] == "openai/fake, from a cassette"
    assert assumed["model"]["input_usd_per_million"] == 1.0
    assert not (recorded.folder.path / "again" / "spend.jsonl").exists()


def test_a_cassette_needs_no_litellm(recorded: Recorded) -> None:
    program = "import sys; sys.modules['litellm'] = None; from kintsugi.harness.cli import main; main()"
    words = recorded.folder.words("without", "--replay", str(recorded.tape), "--sut", "minimal", "--workflow", "fin*")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    assert ended.returncode == 0, ended.stderr


def test_what_is_not_on_the_cassette_is_an_error_that_says_what_was_asked(recorded: Recorded, folder: Folder) -> None:
    tape = folder.path / "cassette"
    tape.mkdir()
    (tape / "cassette.json").write_bytes((recorded.tape / "cassette.json").read_bytes())
    lines = (recorded.tape / "answers.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not (json.loads(line)["asked"].startswith("call mail__send at step tell"))]
    assert len(kept) < len(lines)
    (tape / "answers.jsonl").write_text("".join(kept))
    ended = folder.run("out", "--replay", str(tape), "--sut", "naive", "--fault", "worker_kill")
    assert ended.exit_code == 4, ended.output
    broken = [r for r in folder.results("out").trials().values() if r.verdict == "harness_error"]
    assert broken
    for result in broken:
        assert "holds no answer to call mail__send at step tell[0] in run r0" in result.reason
        assert "\n" not in result.reason


def test_a_trial_of_a_real_model_is_replayed_from_its_cassette_or_not_at_all(recorded: Recorded) -> None:
    trial = next(name for name in recorded.folder.results("out").trials() if "malformed" in name and "minimal" in name)
    words = ["replay", str(recorded.folder.path / "out"), "--trial", trial]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 2
    assert "a real model answered in this trial; give its cassette with --replay DIR" in ended.output
    assert len(ended.output.splitlines()) == 1
    assert CliRunner().invoke(main, [*words, "--stored"]).exit_code == 0
    ended = CliRunner().invoke(main, [*words, "--replay", str(recorded.tape)])
    assert ended.exit_code == 0, ended.output
    assert CliRunner().invoke(main, [*words, "--replay", str(recorded.tape), "--times", "2"]).exit_code == 2


def test_a_job_is_polled_as_often_from_a_cassette_as_with_a_model_that_is_slower_than_the_job(
    tmp_path: Path, new_provider: Callable[..., FakeProvider]
) -> None:
    provider = new_provider(POLLED)
    step = provider.workflow.steps["boot"]
    matures = provider.workflow.tools[str(step.tool)].does.matures
    assert matures is not None
    assert step.every_seconds is not None
    polls = 1 + math.ceil(matures.after_seconds / step.every_seconds)

    async def slowly(request: Mapping[str, Any]) -> Any:
        if wanted_by(provider.workflow, request).step == step.id:
            # By the clock, the job that was begun before the first poll is done before it is answered.
            await asyncio.sleep(matures.after_seconds * TIME_SCALE)
        return provider.by_script(request)

    provider.answers = lambda request, _: slowly(request)
    folder, tape = Folder(tmp_path, POLLING), tmp_path / "cassette"
    ended = folder.asks(provider, "out", "--record", str(tape), "--yes")
    assert ended.exit_code == 0, ended.output
    asked = len(provider.asked)
    ended = folder.run("again", "--replay", str(tape))
    assert ended.exit_code == 0, ended.output
    assert len(provider.asked) == asked
    assert folder.asked("again") == folder.asked("out")
    assert folder.said("again") == folder.said("out")
    for out in ("out", "again"):
        results = folder.results(out)
        ended_so = {(result.chain, result.verdict) for result in results.trials().values()}
        assert ended_so == {("optimized", "correct"), ("naive", "correct")}
        for name in results.trials():
            reads = [event for event in of(results.history(name), "world", "read") if event["step"] == step.id]
            assert len(reads) == polls, name


# --- with a model that is not there ---------------------------------------------------------------------------

FEW = ("--fault", "malformed_output", "--yes")


def ends_unanswered(folder: Folder, ended: Result, why: str) -> None:
    """A run has ended without an answer of its model, and no SUT was charged with that."""
    assert ended.exit_code == 4, ended.output
    trials = folder.results("out").trials().values()
    assert {result.verdict for result in trials} == {"harness_error"}
    for result in trials:
        assert f"has answered nothing in this run: {why}" in result.reason
        assert "\n" not in result.reason


def test_a_model_that_can_t_be_reached_ends_the_run_and_not_the_sut(folder: Folder, refusing: str) -> None:
    ended = folder.run("out", "--model", NAME, "--model-base", refusing, "--spend-limit", "none", *FEW)
    ends_unanswered(folder, ended, "no connection can be made: ")
    (line,) = [line for line in ended.output.splitlines() if line.startswith("stopped: ")]
    assert line.startswith(f"stopped: {NAME} at {refusing} has answered nothing in this run")
    assert line.endswith(f"; go on with the same command and --resume --out {folder.path / 'out'}")
    assert len(folder.results("out").trials()) < folder.results("out").run()["planned"]


def test_a_model_that_fails_on_every_request_ends_the_run_until_it_is_mended(
    folder: Folder, provider: FakeProvider
) -> None:
    provider.answers = lambda _, __: web.Response(status=500, text="out of memory")
    ended = folder.asks(provider, "out", *FEW)
    ends_unanswered(folder, ended, "status 500: ")
    assert spent_so_far(folder.path / "out" / "spend.jsonl") == 0
    first = len(provider.asked)
    assert folder.asks(provider, "out", *FEW, "--resume").exit_code == 4
    assert len(provider.asked) > first, "a run that is gone on with asks for itself"
    provider.answers = lambda request, _: provider.by_script(request)
    ended = folder.asks(provider, "out", *FEW, "--resume")
    assert ended.exit_code == 0, ended.output
    trials = folder.results("out").trials().values()
    assert len(trials) == folder.results("out").run()["planned"]
    assert {result.verdict for result in trials if not result.fault} == {"correct"}


def test_a_model_that_is_too_slow_for_all_says_nothing_of_a_sut(folder: Folder, provider: FakeProvider) -> None:
    # As a time-out, and at once.
    provider.answers = lambda _, __: web.Response(status=504)
    ended = folder.asks(provider, "out", *FEW, "--sut", "naive", "--spend-limit", "none")
    ends_unanswered(folder, ended, "no answer within 4.")
    assert len(folder.results("out").trials()) == folder.results("out").run()["planned"]
    assert "stopped: " not in ended.output, "a later one may be fast enough"


# --- money --------------------------------------------------------------------------------------------------


def test_at_the_limit_no_further_call_is_made_and_a_higher_one_goes_on(folder: Folder, provider: FakeProvider) -> None:
    # Each call may cost 0.041 + 0.002 or so, and costs 0.0015 or so.
    few = ("--sut", "naive", "--yes", "--jobs", "1")
    ended = folder.asks(provider, "out", *few, "--spend-limit", "0.06")
    assert ended.exit_code == 4, ended.output
    assert "stopped: the spend limit of $0.06 is reached" in ended.output
    first = len(provider.asked)
    assert 0 < first < 30
    results = folder.results("out").trials().values()
    assert [r.verdict for r in results].count("harness_error") == 1
    assert next(r for r in results if r.verdict == "harness_error").reason.startswith("the spend limit of $0.06")
    spent = sum(json.loads(line)["usd"] for line in (folder.path / "out" / "spend.jsonl").read_text().splitlines())
    assert 0 < spent <= 0.06
    assert folder.asks(provider, "out", *few, "--spend-limit", "0.06", "--resume").exit_code == 4
    assert len(provider.asked) - first <= 2, "what was spent before counts; a shorter prompt may still fit"
    ended = folder.asks(provider, "out", *few, "--spend-limit", "5", "--resume")
    assert ended.exit_code == 0, ended.output
    assert len(folder.results("out").trials()) == folder.results("out").run()["planned"]


def test_what_a_killed_run_may_have_spent_counts_when_it_is_gone_on_with(
    folder: Folder, provider: FakeProvider
) -> None:
    begun: Future[None] = Future()

    async def never() -> Any:
        if not begun.done():
            begun.set_result(None)
        await asyncio.Event().wait()

    provider.answers = lambda _, __: never()
    few = ("--sut", "naive", "--yes", "--jobs", "1", "--model-timeout", str(SECONDS_MAX))
    program = "from kintsugi.harness.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *folder.asking(provider, "out", *few, "--spend-limit", "0.06")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        stderr=subprocess.PIPE,
    )
    with ThreadPoolExecutor() as reading:
        reaped = reading.submit(process.communicate)
        try:
            either: list[Future[Any]] = [begun, reaped]
            wait(either, SECONDS_MAX, FIRST_COMPLETED)
        finally:
            process.kill()
        _, said = reaped.result(SECONDS_MAX)
    assert begun.done(), said
    assert process.returncode == -signal.SIGKILL, said
    ledger = folder.path / "out" / "spend.jsonl"
    (line,) = ledger.read_text().splitlines()
    worst = json.loads(line)["usd"]
    assert 0.04 < worst < 0.05, "an answer of 4,096 tokens, and a prompt"
    provider.answers = lambda request, _: provider.by_script(request)
    ended = folder.asks(provider, "out", *few, "--spend-limit", "0.06", "--resume")
    assert ended.exit_code == 4, ended.output
    assert f"the spend limit of $0.06 is reached: ${worst:.4f} are spent" in ended.output
    assert len(provider.asked) == 1, "a second call might pass the limit"
    ended = folder.asks(provider, "out", *few, "--spend-limit", "5", "--resume")
    assert ended.exit_code == 0, ended.output
    assert spent_so_far(ledger) > worst
    assert {result.verdict for result in folder.results("out").trials().values()}.isdisjoint({"harness_error"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "Spend up to $"),
        (("--spend-limit", "3"), "Spend up to $3.00? Nobody is there to say so; --yes does"),
        (("--spend-limit", "none"), "Spend without a limit? Nobody is there"),
    ],
)
def test_nobody_spends_without_having_been_asked(
    folder: Folder, provider: FakeProvider, options: tuple[str, ...], says: str
) -> None:
    ended = folder.asks(provider, "out", *options)
    assert ended.exit_code == 2
    assert says in ended.output
    assert "about $0." in ended.output
    assert provider.asked == []
    assert not (folder.path / "out").exists()


@pytest.mark.parametrize(("word", "code"), [("n", 2), ("y", 0)])
def test_on_a_terminal_the_answer_decides(
    folder: Folder, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, word: str, code: int
) -> None:
    asked = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return word == "y"

    monkeypatch.setattr("kintsugi.harness.commands.real_model.on_a_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", confirm)
    ended = folder.asks(provider, "out", "--spend-limit", "3", "--sut", "minimal", "--fault", "worker_kill")
    assert ended.exit_code == code, ended.output
    assert asked == ["Spend up to $3.00?"]
    assert bool(provider.asked) == (word == "y")


# --- what is asked wrongly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model-base", "http://127.0.0.1:9/v1"), "--model-base needs --model"),
        (("--record", "tape"), "--record needs --model"),
        (("--model", "openai/gpt-5.4-mini", "--spend-limit", "much"), "--spend-limit 'much': an amount in US dollars"),
        (("--model", "openai/gpt-5.4-mini", "--spend-limit", "-1"), "--spend-limit '-1': an amount in US dollars"),
        (("--model", "openai/nobody-knows-it"), "no price is known for openai/nobody-knows-it"),
        (("--replay", "nowhere"), "nowhere/cassette.json: can't be read"),
        (("--replay", "nowhere", "--record", "tape"), "--replay asks nobody"),
        (("--model", "nobody/nothing", "--spend-limit", "none"), "--model 'nobody/nothing': PROVIDER/NAME"),
    ],
)
def test_what_can_t_be_is_one_line(folder: Folder, options: tuple[str, ...], says: str) -> None:
    ended = folder.run("out", *options)
    assert ended.exit_code == 2
    assert says in ended.output
    assert len(ended.output.splitlines()) == 1
    assert not (folder.path / "out").exists()


def test_a_missing_key_is_one_line(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ended = folder.run("out", "--model", "openai/gpt-5.4-mini", "--yes")
    assert ended.exit_code == 2
    assert "kintsugi: OPENAI_API_KEY: not in the environment" in ended.output


def test_a_key_that_is_blank_is_one_line(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    ended = folder.run("out", "--model", "openai/gpt-5.4-mini", "--yes")
    assert ended.exit_code == 2
    assert ended.output.startswith("kintsugi: OPENAI_API_KEY: not in the environment, or blank")
    assert len(ended.output.splitlines()) == 1
    assert not (folder.path / "out").exists()


def test_a_run_that_is_refused_beside_another_leaves_its_lines_alone(folder: Folder, provider: FakeProvider) -> None:
    out, tape = folder.path / "out", folder.path / "cassette"
    lines = {out / "spend.jsonl": '{"trial": "t", "what": "rese', tape / "answers.jsonl": '{"trial": "t", "ru'}
    for path, line in lines.items():
        path.parent.mkdir()
        path.write_text(line)
    (tape / "cassette.json").write_text(json.dumps({"schema": 1, "model": NAME}))
    writing = Results(out)
    writing.begin({"suite": "another"}, resume=False)
    try:
        ended = folder.asks(provider, "out", "--record", str(tape), "--yes", "--resume")
    finally:
        writing.end()
    assert ended.exit_code == 2
    assert "another run is writing there" in ended.output
    assert {path: path.read_text() for path in lines} == lines
    assert provider.asked == []


def test_without_litellm_one_line_says_what_to_install(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "find_spec", lambda _: None)
    ended = folder.run("out", "--model", "openai/gpt-5.4-mini", "--yes")
    assert ended.exit_code == 2
    assert ended.output == "kintsugi: a real model needs litellm: pip install 'kintsugi-bench[models]'\n"


def test_a_cassette_whose_price_is_none_is_one_line(folder: Folder) -> None:
    head = {"schema": 1, "model": NAME, "price": {"name": NAME}}
    (folder.path / "cassette.json").write_text(json.dumps(head))
    ended = folder.run("out", "--replay", str(folder.path))
    assert ended.exit_code == 2
    assert f"{folder.path / 'cassette.json'}: price: " in ended.output
    assert len(ended.output.splitlines()) == 1


def test_a_price_for_another_model_is_not_taken(folder: Folder) -> None:
    path = folder.path / "other.toml"
    path.write_text('[model]\nname = "openai/other"\n')
    ended = folder.run("out", "--model", "openai/gpt-5.4-mini", "--prices", str(path))
    assert ended.exit_code == 2
    assert "other.toml: model.name: is 'openai/other', and the model that is asked is" in ended.output
