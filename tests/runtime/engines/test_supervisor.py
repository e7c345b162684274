from __future__ import annotations

import os
from pathlib import Path

import pytest

from kintsugi.runtime.engines import supervisor
from kintsugi.runtime.engines.supervisor import Supervisor, leave, submitted


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


def test_a_run_is_left_whole_and_found(tmp_path: Path) -> None:
    leave(tmp_path, "r0", {"chain": "naive"})
    leave(tmp_path, "r0", {"chain": "naive"})
    assert list(submitted(tmp_path)) == ["r0"]
    assert submitted(tmp_path)["r0"].read_text() == '{"chain": "naive"}'


def test_a_claim_is_on_the_disk_before_it_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power loss one without a name on it was once nobody's: the run had no worker for ever."""
    leave(tmp_path, "r0", {})
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        done.append(f"synced {os.pread(descriptor, 100, 0).decode()}")
        fsync(descriptor)

    def linked(source: str, target: Path) -> None:
        done.append(f"linked {target.name}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    assert Supervisor(tmp_path, "node1").claim("r0")
    assert done == ["synced node1", "linked r0.1"]


def test_a_run_has_one_worker_which_keeps_it_over_its_own_restart(tmp_path: Path) -> None:
    leave(tmp_path, "r0", {})
    one, two = Supervisor(tmp_path, "node1"), Supervisor(tmp_path, "node2")
    assert one.due().keys() == {"r0"}
    assert two.due() == {}
    assert Supervisor(tmp_path, "node1").due().keys() == {"r0"}


def test_a_silent_worker_is_held_to_be_dead_only_after_the_budget(tmp_path: Path, clock: Clock) -> None:
    leave(tmp_path, "r0", {})
    one, two = Supervisor(tmp_path, "node1"), Supervisor(tmp_path, "node2")
    assert one.due().keys() == {"r0"}
    assert two.lost() == []
    clock.now += supervisor.DETECTION_SECONDS
    assert two.due() == {}
    clock.now += 0.1
    assert two.lost() == ["node1"]
    assert two.due().keys() == {"r0"}
    assert one.claim("r0") is False


def test_a_worker_that_beats_is_never_lost(tmp_path: Path, clock: Clock) -> None:
    one, two = Supervisor(tmp_path, "node1"), Supervisor(tmp_path, "node2")
    for _ in range(10):
        clock.now += 1.0
        one.beat()
        assert two.lost() == []


def test_silence_is_counted_from_when_it_was_first_seen(tmp_path: Path, clock: Clock) -> None:
    Supervisor(tmp_path, "node1")
    clock.now += 1_000.0
    two = Supervisor(tmp_path, "node2")
    assert two.lost() == []


def test_what_a_lost_node_had_goes_to_one_of_those_that_try(tmp_path: Path) -> None:
    leave(tmp_path, "r0", {})
    leave(tmp_path, "r1", {})
    one, two, three = (Supervisor(tmp_path, f"node{n}") for n in (1, 2, 3))
    assert one.due().keys() == {"r0", "r1"}
    assert two.adopt("node1") == ["r0", "r1"]
    assert three.adopt("node1") == []
    assert one.adopt("node2") == ["r0", "r1"]


def test_each_claim_is_a_file_of_its_own(tmp_path: Path) -> None:
    """One that was shared was written to by the next claim, and a kill in between lost all of them."""
    one = Supervisor(tmp_path, "node1")
    assert one.claim("r0")
    assert one.claim("r1")
    claims = [path.stat() for path in (tmp_path / "claims").glob("r*")]
    assert [claim.st_nlink for claim in claims] == [1, 1]
    assert len({claim.st_ino for claim in claims}) == 2


def test_what_is_carried_already_is_not_due_again(tmp_path: Path) -> None:
    leave(tmp_path, "r0", {})
    one = Supervisor(tmp_path, "node1")
    assert one.due().keys() == {"r0"}
    assert one.due({"r0"}) == {}
