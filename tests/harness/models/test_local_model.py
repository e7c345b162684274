"""``kintsugi run --model`` with a real model on this machine (``make local-model``), and its cassette without it.

The model is far too small to be good, and nothing here rests on that: in the workflow that it is given, any answer
in the form that was asked for is right. Its server counts what it is asked, and holds every answer to that form.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import CliRunner, Result

from kintsugi.harness.cli import main
from kintsugi.harness.history import of
from kintsugi.harness.models import provider as provider_module
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results

pytestmark = [pytest.mark.models, pytest.mark.process, pytest.mark.usefixtures("litellm")]

SERVER = Path(__file__).parent / "local_model.py"
MISSING = "make local-model"
NAME = "openai/on-this-machine"
WHO_ANSWERS = "smollm2-135m-instruct"
"""As the server calls its model, whatever it is asked for."""
CONTEXT_TOKENS = "256"
"""So few that a model which talks on, instead of making a call, is soon cut short."""
SECONDS_MAX = 120
CHARACTERS = range(10, 61)
SUITE = """
name = "few"
version = 1
about = "A few trials with a small model."
suts = ["minimal+optimized", "minimal+naive"]

[[faults]]
fault = "malformed_output"
forms = ["invalid_json"]
model = 1
"""
WORKFLOW = f"""
[task]
title = "A note on an invoice"
goal = "Read invoice INV-1041 and post a note on it, with the status held."
why = "Any note will do, so that a run's end says what became of the model's words, and not how good they were."
review_minutes = 1
repair_minutes = 5

[policy]
model_timeout_seconds = 60

[world.invoices.INV-1041]
vendor_id = "V-207"
order_id = "PO-88"
amount_cents = 128400
currency = "EUR"
contact = "billing@norrland-paper.example"

[[plan]]
id = "invoice"
tool = "erp.get_invoice"
args = {{ invoice_id = "INV-1041" }}

[[plan]]
id = "word"
ask = "Write a note of one sentence on this invoice."
inputs = {{ invoice = "= invoice" }}
[plan.output]
type = "object"
additionalProperties = false
required = ["note"]
properties = {{ note = {{ type = "string", minLength = {CHARACTERS.start}, maxLength = {CHARACTERS[-1]} }} }}

[[plan]]
id = "post"
tool = "erp.post_note"
args = {{ invoice_id = "INV-1041", status = "held", text = "= word.note" }}

[script.word]
note = "~= 'An invoice over ' ~ invoice.amount_cents ~ ' cents.'"

[truth]
effects = [
    {{ step = "post", tool = "erp.post_note", args = {{ invoice_id = "INV-1041", status = "held" }} }},
]
"""


@dataclass
class Recorded:
    """A run that was recorded, and what the model's server had counted by its end. The server is gone since."""

    folder: Path
    base: str
    ended: Result
    counted: dict[str, float]

    def results(self, out: str = "out") -> Results:
        return Results.existing(self.folder / out)

    def trials(self, out: str = "out") -> list[TrialResult]:
        return list(self.results(out).trials().values())

    def completions(self) -> list[dict[str, Any]]:
        """What the model answered, as the cassette has it."""
        lines = (self.folder / "tape" / "answers.jsonl").read_text().splitlines()
        return [json.loads(line)["completion"] for line in lines]

    def said(self, out: str = "out") -> dict[str, list[Any]]:
        """For each trial how it ended, what its replies were, and what they were charged with."""
        results = self.results(out)
        return {
            name: [
                (result.verdict, result.injection),
                [(e["step"], e["message"], e["damaged"]) for e in of(results.history(name), "gateway", "reply")],
                [
                    (e["prompt_tokens"], e["completion_tokens"])
                    for e in of(results.history(name), "gateway", "generated")
                ],
            ]
            for name, result in results.trials().items()
        }


def run(folder: Path, out: str, *more: str) -> Result:
    words = ["run", "--suite", str(folder / "few.toml"), "--workflows", str(folder / "workflows")]
    return CliRunner().invoke(main, [*words, "--out", str(folder / out), "--jobs", "1", *more])


@contextmanager
def served(errors: Path) -> Iterator[str]:
    """The model's server, by its URL. Skips where the model is not there."""
    words = [sys.executable, str(SERVER), CONTEXT_TOKENS]
    with errors.open("w") as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], SECONDS_MAX)[0], errors.read_text()
            url = process.stdout.readline().strip()
            if not url and MISSING in errors.read_text():
                pytest.skip(errors.read_text().strip())
            assert url, errors.read_text()
            yield url
        finally:
            process.terminate()


def counted_at(base: str) -> dict[str, float]:
    """What the server says it has done so far, by its own counters."""
    with urlopen(f"{base.removesuffix('/v1')}/metrics", timeout=SECONDS_MAX) as answer:  # noqa: S310 - the test's own
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name.removeprefix("llamacpp:"): float(number) for name, number in map(str.split, lines)}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "few.toml").write_text(SUITE)
    (folder / "workflows" / "office").mkdir(parents=True)
    (folder / "workflows" / "office" / "note.toml").write_text(WORKFLOW)
    with served(folder / "errors") as base:
        asks = ("--model", NAME, "--model-base", base, "--spend-limit", "none")
        ended = run(folder, "out", *asks, "--record", str(folder / "tape"))
        return Recorded(folder, base, ended, counted_at(base))


def test_every_answer_is_the_model_s_own_and_so_is_every_count(recorded: Recorded) -> None:
    assert recorded.ended.exit_code == 0, recorded.ended.output
    assert {trial.chain for trial in recorded.trials()} == {"optimized", "naive"}
    answers = recorded.completions()
    assert {answer["model"] for answer in answers} == {WHO_ANSWERS}
    used = [trial.usage for trial in recorded.trials()]
    # Where its clean run failed, nobody asked it anything more.
    assert min(trial.usage.model_calls for trial in recorded.trials() if trial.injection != "baseline_failed") >= 1
    assert sum(usage.model_calls for usage in used) == len(answers)
    assert sum(usage.estimated_calls for usage in used) == 0
    cached = sum(usage.cached_prompt_tokens for usage in used)
    assert cached == recorded.counted["prompt_tokens_cached_total"]
    assert sum(usage.prompt_tokens for usage in used) - cached == recorded.counted["prompt_tokens_total"]
    assert sum(usage.completion_tokens for usage in used) == recorded.counted["tokens_predicted_total"] > 0


def test_what_the_model_says_reaches_the_sut_unless_it_is_damaged(recorded: Recorded) -> None:
    said = [reply for _, replies, _ in recorded.said().values() for reply in replies]
    texts = [answer["choices"][0]["message"]["content"] for answer in recorded.completions()]
    same = [message.get("content") == text for (_, message, _), text in zip(said, texts, strict=True)]
    assert same == [not damaged for *_, damaged in said]
    assert same.count(False) >= 1


def test_the_model_is_held_to_the_form_that_the_chain_asked_for(recorded: Recorded) -> None:
    judged = [trial for trial in recorded.trials() if trial.chain == "optimized"]
    assert [(trial.kind, trial.injection, trial.verdict, trial.usage.model_calls) for trial in judged] == [
        ("baseline", "none", "correct", 1),
        ("fault", "witnessed", "correct", 2),
    ]
    for trial in judged:
        *_, reply = of(recorded.results().history(trial.trial["id"]), "gateway", "reply")
        note = json.loads(reply["message"]["content"])
        assert note.keys() == {"note"}
        assert len(note["note"]) in CHARACTERS


def test_the_results_say_which_model_it_was(recorded: Recorded) -> None:
    assert recorded.results().run()["model"]["name"] == NAME
    assert recorded.results().run()["model"]["base"] == recorded.base
    assumed = recorded.results().summary()["assumptions"]
    assert assumed["answered_by"] == f"{NAME}, asked through litellm"
    assert assumed["token_source"] == "as the provider reports them"
    assert f"Answered by {NAME}" in (recorded.folder / "out" / "summary.md").read_text()


def test_the_cassette_gives_the_same_when_the_model_is_gone(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="refused"):
        counted_at(recorded.base)
    monkeypatch.setattr(provider_module, "load", lambda: pytest.fail("a cassette asks nobody"))
    ended = run(recorded.folder, "again", "--replay", str(recorded.folder / "tape"))
    assert ended.exit_code == 0, ended.output
    assert recorded.said("again") == recorded.said()
    assert recorded.results("again").summary()["assumptions"]["answered_by"] == f"{NAME}, from a cassette"
