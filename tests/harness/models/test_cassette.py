"""Cassettes: what is kept, what is found again, and what is no cassette."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.models.cassette import Place, Recording, Tape, read_head

PLACE = Place("minimal+naive~finance/invoice_payment~baseline~s7", "r0", "k" * 64, 1)
SAID = {"completion": {"choices": [{"message": {"role": "assistant", "content": "é\u2028\ud83d"}}]}}
REFUSED = {"refused": {"status": 429, "message": "slow down", "retry_after": "2"}}


def recorded(folder: Path, *outcomes: tuple[Place, Mapping[str, Any]]) -> Tape:
    recording = Recording(folder, {"model": "openai/m", "price": None})
    for place, outcome in outcomes:
        recording.add(place, "call of f at step s[0]", outcome)
    return Tape(folder)


def test_an_answer_is_found_where_it_was_recorded_and_nowhere_else(tmp_path: Path) -> None:
    again = Place(PLACE.trial, PLACE.run, PLACE.key, 2)
    tape = recorded(tmp_path, (PLACE, SAID), (again, REFUSED))
    assert tape.find(PLACE) == SAID
    assert tape.find(again) == REFUSED
    for other in (
        Place("another", "r0", PLACE.key, 1),
        Place(PLACE.trial, "r1", PLACE.key, 1),
        Place(PLACE.trial, "r0", "l" * 64, 1),
        Place(PLACE.trial, "r0", PLACE.key, 3),
    ):
        assert tape.find(other) is None


def test_a_trial_that_was_run_again_counts_as_it_was_run_last(tmp_path: Path) -> None:
    recorded(tmp_path, (PLACE, REFUSED))
    assert recorded(tmp_path, (PLACE, SAID)).find(PLACE) == SAID


def test_an_answer_that_was_cut_short_is_none(tmp_path: Path) -> None:
    recorded(tmp_path, (PLACE, SAID))
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert Tape(tmp_path).find(PLACE) is None


def test_what_is_recorded_after_a_crash_is_not_joined_to_the_torn_line(tmp_path: Path) -> None:
    recorded(tmp_path, (PLACE, SAID))
    path = tmp_path / "answers.jsonl"
    torn = path.read_bytes() + b'{"trial": "'
    path.write_bytes(torn)
    recording = Recording(tmp_path, {"model": "openai/m"})
    assert path.read_bytes() == torn, "until there is an answer, another run may be writing there"
    again = Place(PLACE.trial, PLACE.run, PLACE.key, 2)
    recording.add(again, "call of f at step s[0]", REFUSED)
    recording.add(Place(PLACE.trial, PLACE.run, PLACE.key, 3), "call of f at step s[0]", SAID)
    assert [Tape(tmp_path).find(place) for place in (PLACE, again)] == [SAID, REFUSED]
    assert len(path.read_text().splitlines()) == 3


def test_a_cassette_holds_one_model(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(FileProblem, match="holds answers of openai/m, not of openai/other"):
        Recording(tmp_path, {"model": "openai/other"})


def test_what_is_no_cassette_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"cassette\.json: can't be read.*--record makes"):
        read_head(tmp_path)
    (tmp_path / "cassette.json").write_text("{")
    with pytest.raises(FileProblem, match=r"cassette\.json: is no JSON"):
        read_head(tmp_path)
    (tmp_path / "cassette.json").write_text(json.dumps({"schema": 2, "model": "m"}))
    with pytest.raises(FileProblem, match="is no cassette of schema 1"):
        read_head(tmp_path)
    (tmp_path / "answers.jsonl").write_text('{"trial": "x"}\n')
    with pytest.raises(FileProblem, match=r"answers\.jsonl:1: is no recorded answer"):
        Tape(tmp_path)
    with pytest.raises(FileProblem, match="no cassette can be written there"):
        Recording(tmp_path / "cassette.json" / "below", {"model": "m"})
