"""What is acknowledged is there, what is not there was not acknowledged, and only the owner writes."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kintsugi.runtime import minimal
from kintsugi.runtime.journal import Claim, Fenced, Journal
from kintsugi.runtime.leases import Lease, claim, declare_dead
from kintsugi.runtime.store import Event, JournalUnavailable, connect, provision, read_events

PLAN = {"chain": "c", "plan": {"tools": {}}}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    provision(tmp_path)
    journal = Journal(tmp_path)
    yield journal
    await journal.close()


async def owned(journal: Journal, folder: Path, runs: int = 1) -> list[Claim]:
    """Runs that a living worker has claimed."""
    for number in range(runs):
        minimal.submit(folder, f"r{number}", PLAN)
    lease = Lease(folder, "w")
    await journal.write(lease.register)
    return await journal.write(lambda c: claim(c, [f"r{n}" for n in range(runs)], lease.incarnation))


def kinds(folder: Path, run_id: str = "r0") -> list[str]:
    with closing(connect(folder)) as connection:
        return [event.kind for event in read_events(connection, run_id)]


async def test_events_are_numbered_in_the_order_they_were_given(journal: Journal, tmp_path: Path) -> None:
    mine, other = await owned(journal, tmp_path, runs=2)
    await asyncio.gather(
        *(journal.append(mine, [Event(str(n), "x"), Event(f"{n}'", "x")]) for n in range(20)),
        *(journal.append(other, [Event(str(n), "x")]) for n in range(20)),
    )
    events = journal.events("r0")
    assert [event.seq for event in events] == list(range(1, 42))
    assert [event.kind for event in events[1::2]] == [str(n) for n in range(20)]
    assert len(journal.events("r1")) == 21


async def test_many_appends_share_few_commits(tmp_path: Path) -> None:
    commits = 0

    class Counting(Journal):
        def _commit(self, operations: list[Any]) -> list[Any]:
            nonlocal commits
            commits += bool(operations)
            return super()._commit(operations)

    journal = Counting(tmp_path)
    (mine,) = await owned(journal, tmp_path)
    before = commits
    # The writer thread is kept from starting before everything is queued.
    held = threading.Event()
    holding = asyncio.create_task(journal.write(lambda _: held.wait(10)))
    await asyncio.sleep(0)
    appends = [asyncio.create_task(journal.append(mine, [Event("x", "x")])) for _ in range(200)]
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(holding, *appends)
    assert commits - before <= 3
    assert len(journal.events("r0")) == 201
    await journal.close()


async def test_commits_are_synced_and_mere_heartbeats_are_not(tmp_path: Path) -> None:
    seen: list[int] = []
    idle = threading.Event()

    def beat(connection: sqlite3.Connection) -> None:
        seen.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        if seen[-1] == 1:
            idle.set()

    journal = Journal(tmp_path, beat, idle_seconds=0.01)
    assert await asyncio.to_thread(idle.wait, 20)
    found = await journal.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert (found, set(seen)) == (2, {1, 2})
    assert journal._reading.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await journal.close()


async def test_who_lost_the_run_is_fenced_and_the_batch_goes_on(journal: Journal, tmp_path: Path) -> None:
    mine, other = await owned(journal, tmp_path, runs=2)
    stale = Claim(mine.run_id, mine.owner, mine.epoch - 1)
    foreign = Claim(mine.run_id, "someone else", mine.epoch)
    outcomes = await asyncio.gather(
        journal.append(stale, [Event("stale", "x")]),
        journal.append(other, [Event("good", "x")]),
        journal.append(foreign, [Event("foreign", "x")]),
        journal.append(stale, []),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Fenced, type(None), Fenced, Fenced]
    assert kinds(tmp_path, "r0") == ["claimed"]
    assert kinds(tmp_path, "r1") == ["claimed", "good"]


async def test_a_worker_held_to_be_dead_is_fenced_before_anyone_takes_its_runs(
    journal: Journal, tmp_path: Path
) -> None:
    (mine,) = await owned(journal, tmp_path)
    assert await journal.write(lambda c: declare_dead(c, mine.owner, beat=0))
    with pytest.raises(Fenced):
        await journal.append(mine, [Event("late", "x")])
    with pytest.raises(Fenced, match="held to be dead"):
        await journal.write(lambda c: claim(c, ["r0"], mine.owner))


async def test_nothing_follows_the_end(journal: Journal, tmp_path: Path) -> None:
    (mine,) = await owned(journal, tmp_path)
    await journal.append(mine, [Event("ended", "")], end=True)
    with pytest.raises(Fenced):
        await journal.append(mine, [Event("more", "")])


async def test_the_journal_is_append_only(tmp_path: Path) -> None:
    provision(tmp_path)
    with closing(connect(tmp_path)) as connection:
        connection.execute("INSERT INTO events VALUES ('r', 1, 0, 'k', 'n', '{}')")
        for forbidden in ("UPDATE events SET kind = 'other'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(forbidden)


async def test_a_full_disk_is_told_and_nothing_is_lost(journal: Journal, tmp_path: Path) -> None:
    (mine,) = await owned(journal, tmp_path)
    acknowledged = []
    pages = journal._writing.execute("PRAGMA page_count").fetchone()[0]
    # SQLite's own limit stands for the disk's: the error is the same.
    journal._writing.execute(f"PRAGMA max_page_count = {pages + 4}")

    async def fill_up() -> None:
        for number in range(100):
            await journal.append(mine, [Event(str(number), "x", {"text": "x" * 1000})])
            acknowledged.append(str(number))

    with pytest.raises(JournalUnavailable, match="free some space"):
        await fill_up()
    assert acknowledged
    assert kinds(tmp_path) == ["claimed", *acknowledged]
    journal._writing.execute("PRAGMA max_page_count = 100000")
    await journal.append(mine, [Event("after", "x")])
    assert kinds(tmp_path) == ["claimed", *acknowledged, "after"]


async def test_what_is_no_json_is_the_callers_mistake(journal: Journal, tmp_path: Path) -> None:
    mine, other = await owned(journal, tmp_path, runs=2)
    bad, good = await asyncio.gather(
        journal.append(mine, [Event("x", "x", {"what": object()})]),
        journal.append(other, [Event("x", "x")]),
        return_exceptions=True,
    )
    assert isinstance(bad, TypeError)
    assert good is None
    assert kinds(tmp_path) == ["claimed"]


async def test_changes_by_others_are_noticed(journal: Journal, tmp_path: Path) -> None:
    assert journal.changed()
    assert not journal.changed()
    minimal.submit(tmp_path, "r", PLAN)
    assert journal.changed()
    assert not journal.changed()


def test_provisioning_twice_and_at_once_does_nothing_more(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    threads = [threading.Thread(target=provision, args=(folder,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    minimal.submit(folder, "r", PLAN)
    provision(folder)
    assert minimal.status(folder, "r")["state"] == "submitted"


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnavailable, match="can't set up"):
        provision(tmp_path / "file" / "state")
    with pytest.raises(JournalUnavailable, match="can't"):
        minimal.submit(tmp_path / "file" / "state", "r", PLAN)


def test_another_format_is_refused(tmp_path: Path) -> None:
    provision(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalUnavailable, match="format 99"):
        connect(tmp_path)
