"""The history of one trial: append-only, timestamped events from every party, on disk before anyone is answered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

__all__ = [
    "Event",
    "History",
    "Unwritable",
    "append_line",
    "arrived",
    "by_run",
    "cut_torn_line",
    "of",
    "read_history",
]

Event = Mapping[str, Any]
"""``{"t": monotonic seconds since the trial began, "who": party, "what": event, …data}``"""


class Unwritable(OSError):
    """Results can't be written (a full disk, a read-only folder); nothing may go on that would not be recorded."""


class History:
    """Events are written to the file as they happen and kept in memory for the judging that follows."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self._started = time.monotonic()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise Unwritable(f"{path}: can't be written: {error.strerror}") from error

    def add(self, who: str, what: str, **data: Any) -> Event:
        """Record an event and return it; it has been handed to the operating system when this returns."""
        event = {"t": round(time.monotonic() - self._started, 6), "who": who, "what": what, **data}
        self.events.append(event)
        _write_line(self._file, self._path, event)
        return event

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        self._file.close()


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished; what is written next would be joined to it."""
    if path.is_file():
        # Cut in place: written anew, a crash on the way would lose everything.
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _write_line(file: FileIO, path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as one line, all of it. Raises Unwritable, and has then written a part of the line at most.

    In ASCII: what a SUT sends may hold anything, even halves of characters that no encoding can write.
    """
    left = memoryview(json.dumps(value).encode() + b"\n")
    try:
        while left:
            # A disk that fills up first takes a part, and refuses only the rest.
            left = left[file.write(left) :]
    except OSError as error:
        raise Unwritable(f"{path}: can't be written: {error.strerror}") from error


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add a JSON object to a file of lines, all of it or nothing, for good when this returns. Raises Unwritable."""
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise Unwritable(f"{path}: can't be written: {error.strerror}") from error
    with file:
        begins = file.seek(0, os.SEEK_END)
        try:
            _write_line(file, path, value)
        except Unwritable:
            # Half a line would spoil the next one, where some room is found again.
            file.truncate(begins)
            raise


def read_history(path: Path) -> list[Event]:
    """The events of a stored history. A last line that was cut short by a crash is left out."""
    events: list[Event] = []
    with path.open(encoding="utf-8") as lines:
        events.extend(json.loads(line) for line in lines if line.endswith("\n"))
    return events


def by_run(events: Iterable[Event], runs: Iterable[str]) -> dict[str, list[Event]]:
    """For each run the events that are its own, and those that are no run's, in order."""
    found: dict[str, list[Event]] = {run: [] for run in runs}
    for event in events:
        if "run" not in event:
            for mine in found.values():
                mine.append(event)
        elif event["run"] in found:
            found[event["run"]].append(event)
    return found


def arrived(events: Iterable[Event], who: str) -> set[int]:
    """The requests of a service whose answer reached a worker."""
    return {event["request"] for event in of(events, who, "delivered") if event["delivered"]}


def of(events: Iterable[Event], who: str, *what: str) -> list[Event]:
    """The events of one party, in order; only the named kinds where any are named."""
    return [event for event in events if event["who"] == who and (not what or event["what"] in what)]
