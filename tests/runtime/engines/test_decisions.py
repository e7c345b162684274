from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kintsugi.runtime.engines.decisions import keep, kept


def test_a_decision_is_kept_before_anyone_asks_for_it(tmp_path: Path) -> None:
    assert kept(tmp_path, "r0", "q") is None
    keep(tmp_path, "r0", "q", {"decision": "approve"})
    assert kept(tmp_path, "r0", "q") == {"decision": "approve"}


def test_the_first_decision_on_a_request_stands(tmp_path: Path) -> None:
    keep(tmp_path, "r0", "q", {"decision": "approve"})
    keep(tmp_path, "r0", "q", {"decision": "reject"})
    assert kept(tmp_path, "r0", "q") == {"decision": "approve"}
    assert len(os.listdir(tmp_path / "decisions")) == 1, "nothing partial is left"


def test_requests_and_runs_are_told_apart(tmp_path: Path) -> None:
    keep(tmp_path, "r0", "q", {"decision": "approve"})
    assert kept(tmp_path, "r0", "p") is None
    assert kept(tmp_path, "r1", "q") is None


def test_a_name_that_looks_like_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    keep(tmp_path / "state", "../../r0", "../q", {"decision": "approve"})
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert kept(tmp_path / "state", "../../r0", "../q") == {"decision": "approve"}


def test_it_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    keep(tmp_path, "r0", "q", {"decision": "approve"})
    assert synced[0].endswith(".partial")
    assert synced[1:] == [str(tmp_path / "decisions")]


def test_of_several_at_once_one_stands(tmp_path: Path) -> None:
    def deliver(number: int) -> dict[str, object] | None:
        keep(tmp_path, "r0", "q", {"decision": number})
        return kept(tmp_path, "r0", "q")

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(deliver, range(40)))
    assert all(decision == seen[0] for decision in seen)
