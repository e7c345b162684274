"""docs/PROTOCOL.md against the code: names and statuses both ways, examples that load, and its curl walk for real."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness import human
from kintsugi.harness.adapters.command import KEPT, AdapterFile, load_adapter
from kintsugi.harness.crew import Crew
from kintsugi.harness.history import of
from kintsugi.harness.processes import worker_environment
from kintsugi.harness.supervisor import STARTS_MAX, TAIL_BYTES
from kintsugi.harness.trial import run_trial
from kintsugi.harness.verdicts import judge_trial
from kintsugi.runtime.engines.command import PLACEHOLDERS, VERB_SECONDS
from kintsugi.runtime.rules import schema_problem
from kintsugi.scenarios.trial import Trial

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
PROSE = " ".join(TEXT.split())
SERVERS = [ROOT / "harness" / f"{name}.py" for name in ("crossing", "world", "gateway", "human")]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SERVERS)

WORKFLOW = load_workflows()["finance/invoice_payment"]
DRAWN = {"id", "decision_id", "token", "expires_at", "content", "prompt_tokens", "completion_tokens", "total_tokens"}
"""What differs from run to run; of these the type is compared."""


def blocks() -> list[tuple[str, str, int, int]]:
    """Language, content, start and end of every fenced block."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [(block[1], block[2], block.start(), block.end()) for block in found]


def shown(language: str) -> list[str]:
    return [content for name, content, *_ in blocks() if name == language]


def first_column(heading: str) -> list[str]:
    """The names in the first column of the table under a heading cell."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE)
    assert table is not None, heading
    cells = [row.split("|")[1] for row in table[1].splitlines()]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell) or re.findall(r"\w+", cell)]


def test_the_environment_is_the_one_that_a_worker_is_given() -> None:
    urls = dict.fromkeys(("tools", "model", "human"), "")
    told = worker_environment(urls, "", ROOT, ROOT, "", time_scale=1.0, cold=False)
    given = {name for name in told if name.startswith("KINTSUGI_")}
    assert set(first_column("variable")) == given
    assert set(re.findall(r"KINTSUGI_[A-Z_]*[A-Z]", TEXT)) <= given
    assert f"with PATH, {', '.join(KEPT[:-1])} and {KEPT[-1]} as they are" in PROSE


def test_the_headers_are_those_that_the_services_read_and_send() -> None:
    read = re.findall(r'(?:header|headers\.get)\("([A-Z][\w-]+)"\)', CODE)
    sent = re.findall(r'\{"([A-Z][\w-]+)": (?:found|done|version|f")', CODE)
    assert set(first_column("header")) == {*read, *sent}


def test_the_endpoints_are_those_that_are_served() -> None:
    served = re.findall(r"``(?:POST )?(/(?:tools|v1|human)/[\w/]+)``", CODE)
    assert set(first_column("endpoint")) == {f"POST {path}" for path in served}


def test_the_statuses_are_those_that_are_answered() -> None:
    sources = [*SERVERS, ROOT / "golden_workflows" / "records.py", *(ROOT / "faults").glob("*.py")]
    answered = {status for path in sources for status in re.findall(r"\b[45]\d\d\b", path.read_text(encoding="utf-8"))}
    assert set(first_column("status")) == {"200", *answered}


def test_the_questions_and_answers_are_those_of_the_person() -> None:
    halts = {"approval", *first_column("`?kind`?")}
    assert halts == set(human.QUESTION["properties"]["kind"]["enum"])  # type: ignore[index]
    source = (ROOT / "harness" / "human.py").read_text(encoding="utf-8")
    actions = (ROOT / "faults" / "actions.py").read_text(encoding="utf-8")
    answers = re.search(r"answer: Literal\[(.*?)\]", actions)
    assert answers is not None
    assert set(first_column("`?decision`?")) == set(re.findall(r'"(\w+)"', answers[1]))
    assert set(re.findall(r'decision\["decision"\] = "(\w+)"', source)) <= set(re.findall(r"`(\w+)`", TEXT))


def test_the_verdicts_are_those_that_are_given() -> None:
    records = (ROOT / "harness" / "records.py").read_text(encoding="utf-8")
    names = re.search(r"VerdictName = Literal\[(.*?)\]", records, flags=re.DOTALL)
    assert names is not None
    assert {*first_column("verdict"), "harness_error"} == set(re.findall(r'"(\w+)"', names[1]))


def test_the_adapter_file_that_is_shown_holds_every_key_and_only_those_that_there_are() -> None:
    (text,) = shown("toml")
    file = AdapterFile.model_validate(tomllib.loads(text))
    keys = set(AdapterFile.model_fields)
    assert keys - set(tomllib.loads(text)) == {"decide"}  # It goes with "push" only, and is told of below.
    assert file.verbs().keys() | {"decide"} == set(PLACEHOLDERS) - {"worker"}
    named = {name.strip("{}") for name in first_column("in braces")}
    assert named == set().union(*PLACEHOLDERS.values())


def test_the_numbers_are_those_of_the_harness() -> None:
    assert f"may take {VERB_SECONDS:g} seconds" in PROSE
    assert f"{STARTS_MAX} times at the most" in PROSE
    assert f"The last {TAIL_BYTES:,} bytes" in PROSE


def part_of(part: Any, whole: Any) -> bool:
    """Whether everything in an example stands in the real thing."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and part_of(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(part_of(one, other) for other in whole) for one in part)
    return bool(part == whole)


def test_the_plan_that_is_shown_is_a_part_of_the_real_one() -> None:
    payload = json.loads(shown("json")[0])
    assert part_of(payload, {"chain": "own", "plan": WORKFLOW.plan})


def test_the_halt_that_is_shown_is_a_question_that_is_taken() -> None:
    (halt,) = [value for value in map(json.loads, shown("json")) if value.get("kind") == "in_doubt"]
    assert not schema_problem(halt, human.QUESTION)
    assert set(halt) <= set(human.QUESTION["properties"])


# --- the walk -----------------------------------------------------------------------------------------------


def like(expected: Any, got: Any, key: str = "") -> bool:
    """Whether an answer is what is shown, but for what is drawn anew each time."""
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and set(expected) == set(got)
            and all(like(expected[name], got[name], name) for name in expected)
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(expected) == len(got) and all(map(like, expected, got))
    return type(expected) is type(got) if key in DRAWN else bool(expected == got)


@pytest.mark.process
async def test_the_curl_examples_are_a_worker_that_carries_a_run_to_its_right_end(tmp_path: Path) -> None:
    for program in ("bash", "curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    every = blocks()
    script = ["set -euo pipefail"]
    answers: dict[Path, Any] = {}
    for (language, content, _, end), (follows, answer, start, _) in zip(
        every, [*every[1:], ("", "", 0, 0)], strict=True
    ):
        if language != "sh":
            continue
        out = tmp_path / f"{len(script)}.json"
        script.append(f"{{\n{content}}} > {out}")
        if follows == "json" and not TEXT[end:start].strip():
            answers[out] = json.loads(answer)
    (tmp_path / "walk.sh").write_text("\n".join(script))
    (tmp_path / "walk.toml").write_text(
        'name = "walk"\nabout = "The page."\nsubmit_first = true\n[worker]\nargv = ["bash", "{here}/walk.sh"]\n'
    )
    crew = Crew(load_adapter(tmp_path / "walk.toml"), tmp_path)
    await crew.start()
    try:
        trial = Trial("baseline", "walk", "own", WORKFLOW.name, seed=1)
        events = await run_trial(trial, WORKFLOW, crew, tmp_path / "t", tmp_path / "history.jsonl", 180.0)
    finally:
        await crew.close()
    result = judge_trial(WORKFLOW, trial, events, None, 5.0)
    assert result.verdict == "correct", (result.reason, of(events, "runner", "exited"))
    assert len(answers) == 11
    for out, expected in answers.items():
        got = json.loads(out.read_text())
        assert like(expected, got), f"shown is {expected}, answered was {got}"
