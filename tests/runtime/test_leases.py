"""Who is held to be alive, with time in the test's hands."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from kintsugi.runtime import minimal
from kintsugi.runtime.journal import Fenced
from kintsugi.runtime.leases import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    Lease,
    Watch,
    claim,
    declare_dead,
    lock_path,
)
from kintsugi.runtime.store import connect, provision

PLAN = {"chain": "c", "plan": {"tools": {}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    provision(tmp_path)
    return tmp_path


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_process_that_is_gone_is_dead_at_once(folder: Path) -> None:
    lease = Lease(folder, "w")
    watch = Watch(folder)
    assert watch.dead([(lease.incarnation, 1)]) == []
    # What the end of a process does: the descriptor goes, the file stays.
    os.close(lease._descriptor)
    assert lock_path(folder, lease.incarnation).exists()
    assert watch.dead([(lease.incarnation, 1)]) == [(lease.incarnation, 1)]


def test_a_worker_without_its_file_is_gone(folder: Path) -> None:
    """The row survives a power cut, the file need not."""
    assert Watch(folder).dead([("w.gone", 1)]) == [("w.gone", 1)]


def test_a_silent_worker_is_dead_after_a_lease(folder: Path) -> None:
    lease, clock = Lease(folder, "w"), Clock()
    watch = Watch(folder, time_source=clock)
    assert watch.dead([(lease.incarnation, 1)]) == []
    for _ in range(int(LEASE_SECONDS / 0.1) - 1):
        clock.now += 0.1
        assert watch.dead([(lease.incarnation, 1)]) == []
    clock.now += 0.11
    assert watch.dead([(lease.incarnation, 1)]) == [(lease.incarnation, 1)]
    assert watch.dead([(lease.incarnation, 2)]) == []
    lease.close()


def test_a_watcher_that_was_paused_itself_convicts_nobody(folder: Path) -> None:
    lease, clock = Lease(folder, "w"), Clock()
    watch = Watch(folder, time_source=clock)
    watch.dead([(lease.incarnation, 1)])
    clock.now += 3600.0
    assert watch.dead([(lease.incarnation, 1)]) == []
    clock.now += LEASE_SECONDS - HEARTBEAT_SECONDS - 0.01
    assert watch.dead([(lease.incarnation, 1)]) == []
    lease.close()


def test_a_restarted_worker_is_another_incarnation(folder: Path) -> None:
    first, second = Lease(folder, "same/id"), Lease(folder, "same/id")
    assert first.incarnation != second.incarnation
    first.close()
    assert Watch(folder).dead([(second.incarnation, 0)]) == []
    second.close()


def test_only_one_of_two_takes_a_run(folder: Path) -> None:
    minimal.submit(folder, "r", PLAN)
    first, second = Lease(folder, "a"), Lease(folder, "b")
    with closing(connect(folder)) as connection:
        first.register(connection)
        second.register(connection)
        (taken,) = claim(connection, ["r"], first.incarnation)
        assert claim(connection, ["r"], second.incarnation) == []
        # A beat in between is a sign of life.
        first.beat(connection)
        assert not declare_dead(connection, first.incarnation, beat=0)
        assert declare_dead(connection, first.incarnation, beat=1)
        (again,) = claim(connection, ["r"], second.incarnation)
        assert (taken.epoch, again.epoch) == (1, 2)
        first.beat(connection)
        assert first.evicted
        assert not second.evicted
        with pytest.raises(Fenced):
            claim(connection, ["r"], first.incarnation)
    first.close()
    second.close()
