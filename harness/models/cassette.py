"""A cassette: what a real model answered, so that the same trials can be run again offline, bit for bit.

A folder with ``cassette.json`` (which model, at which price) and ``answers.jsonl``, one line for each answer, in the
order in which they came. An answer is found by the trial and run that asked, the key of what the provider was asked,
and how often that run had asked the very same. Nothing that was sent along, as headers and keys, is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.history import append_line, cut_torn_line
from kintsugi.harness.results import write_atomically

__all__ = ["Outcome", "Place", "Recording", "Tape", "read_head"]

Outcome = Mapping[str, Any]
"""``{"completion": a chat completion}``, or ``{"refused": {"status", "message", "retry_after"}}``."""

HEAD, ANSWERS = "cassette.json", "answers.jsonl"
SCHEMA = 1


@dataclass(frozen=True)
class Place:
    """Where in a run something was asked."""

    trial: str
    run: str
    key: str
    n: int
    """How often the run had asked the very same, this time included."""


class Recording:
    """A cassette that is being recorded. Answers are added to it; of two at the same place the later one counts."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._path = folder / ANSWERS
        self._taken_up = False
        head = {"schema": SCHEMA, **head}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / HEAD).is_file():
                write_atomically(folder / HEAD, json.dumps(head, indent=1) + "\n")
            elif (known := read_head(folder))["model"] != head["model"]:
                raise FileProblem(f"{folder}: holds answers of {known['model']}, not of {head['model']}; take another")
            self._path.touch()
        except OSError as error:
            raise FileProblem(f"{folder}: no cassette can be written there: {error.strerror}") from error

    def add(self, place: Place, asked: str, outcome: Outcome) -> None:
        """Keep an answer; it has been handed to the operating system when this returns. Raises Unwritable."""
        if not self._taken_up:
            # Not before: until the results folder is this run's, another may be writing here.
            cut_torn_line(self._path)
            self._taken_up = True
        append_line(self._path, {**asdict(place), "asked": asked, **outcome})


class Tape:
    """A cassette that is being replayed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._answers: dict[Place, Outcome] = {}
        path = folder / ANSWERS
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise FileProblem(f"{path}: can't be read: {error.strerror}") from error
        # What stands behind the last line feed was cut short, or is nothing.
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = json.loads(line)
                place = Place(**{name: entry[name] for name in Place.__dataclass_fields__})
                self._answers[place] = {name: entry[name] for name in ("completion", "refused") if name in entry}
            except (ValueError, KeyError, TypeError) as error:
                raise FileProblem(f"{path}:{number}: is no recorded answer: {error}") from error

    def find(self, place: Place) -> Outcome | None:
        """The answer that was recorded at a place; None where there is none."""
        return self._answers.get(place) or None


def read_head(folder: Path) -> dict[str, Any]:
    """``model``, and ``price`` as of when it was recorded. Raises FileProblem where there is no cassette."""
    path = folder / HEAD
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileProblem(f"{path}: can't be read: {error.strerror}; --record makes a cassette") from error
    except ValueError as error:
        raise FileProblem(f"{path}: is no JSON: {error}") from error
    if not isinstance(head, dict) or head.get("schema") != SCHEMA or not isinstance(head.get("model"), str):
        raise FileProblem(f"{path}: is no cassette of schema {SCHEMA}; record it again")
    return head
