"""Histories are on disk as they happen, and are read back as far as they were written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kintsugi.harness.history import History, Unwritable, of, read_history

if TYPE_CHECKING:
    from pathlib import Path


def test_an_event_is_on_disk_when_it_has_been_added(tmp_path: Path) -> None:
    history = History(tmp_path / "histories" / "t.jsonl")
    first = history.add("world", "request", tool="bank.pay", arguments={"to": "Zoë\u2028"})
    assert read_history(tmp_path / "histories" / "t.jsonl") == [first]
    history.add("world", "effect", request=1)
    history.close()
    history.close()
    assert read_history(tmp_path / "histories" / "t.jsonl") == history.events
    assert [event["who"] for event in history.events] == ["world", "world"]


def test_time_never_runs_backwards(tmp_path: Path) -> None:
    history = History(tmp_path / "t.jsonl")
    times = [history.add("runner", "tick")["t"] for _ in range(50)]
    assert times == sorted(times)
    assert times[0] >= 0


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    whole = json.dumps({"t": 1.0, "who": "runner", "what": "closed"})
    for half in ("", "{", whole):
        path.write_text(f"{whole}\n{half}")
        assert read_history(path) == [json.loads(whole)]


def test_a_line_in_the_middle_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"t": 1.0\n{"t": 2.0}\n')
    with pytest.raises(ValueError, match="delimiter"):
        read_history(path)


def test_what_can_not_be_written_stops_the_trial(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unwritable, match=r"t.jsonl: can't be written: "):
        History(tmp_path / "file" / "t.jsonl")


def test_events_of_one_party_of_some_kinds_in_order() -> None:
    said = [("a", "b"), ("c", "b"), ("a", "a"), ("a", "b")]
    events = [{"t": n, "who": who, "what": what} for n, (who, what) in enumerate(said)]
    assert [event["t"] for event in of(events, "a")] == [0, 2, 3]
    assert [event["t"] for event in of(events, "a", "b")] == [0, 3]
    assert [event["t"] for event in of(events, "a", "a", "b")] == [0, 2, 3]
    assert of(events, "c", "a") == []
