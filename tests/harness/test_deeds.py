"""What a deed says was done where things turn out otherwise than on a healthy SUT."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults.actions import FillDisk, Kill, LosePower, Resubmit, Suspend
from kintsugi.faults.points import Point
from kintsugi.harness import session as session_module
from kintsugi.harness.deeds import DEEDS, disk, operator
from kintsugi.harness.deeds.blow import Armed, Blow
from kintsugi.harness.processes import Exit, VerbFailed, VerbSilent
from kintsugi.scenarios.trial import Strike

pytestmark = pytest.mark.process

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]

STRIKE = Strike("worker_kill", "at_boundary", Point.parse("tool:pay[0]#1@before"))
"""Any: what is done is said by the action of the blow."""


class Clients:
    """A client's verbs, each of which does, or raises, what a test has it do."""

    def __init__(self) -> None:
        self.verbs: dict[str, Callable[[], None]] = {}
        self.called: list[str] = []

    async def call(self, verb: str, *_: Any) -> None:
        self.called.append(verb)
        self.verbs.get(verb, lambda: None)()


class Scene:
    """A trial's doors with one worker, and what becomes of a blow there."""

    def __init__(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.session, self.clients = world, world.session, Clients()
        monkeypatch.setattr(self.session, "clients", self.clients)
        self.armed = Armed(self.session, 0, STRIKE)
        self.session.state_folder.mkdir()

    async def strike(self, action: Any) -> None:
        """Do it, and wait for what it has begun beside the trial."""
        run = self.session.runs["r0"]
        await DEEDS[type(action)](Blow(self.session, self.armed, action, run, None, self.world.doors.refuse))
        while self.session.under_way:
            await asyncio.sleep(0)

    def said(self, *what: str) -> list[str]:
        """The names of the nemesis's events of these kinds, in their order."""
        return [str(event["what"]) for event in self.world.saw("nemesis", *what)]

    @property
    def outcome(self) -> list[str]:
        return self.said("witnessed", "missed")


@pytest.fixture
async def scene(open_doors: NewDoors, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(session_module, "SUCCESSOR_SECONDS", 0.0)
    monkeypatch.setattr(operator, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(operator, "RETRY_SECONDS", 0.0)
    async with open_doors() as world:
        world.workers.reaped.set()
        yield Scene(world, monkeypatch)


def fails(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


# --- a full disk, and one without power ---------------------------------------------------------------------

KILLED_WHILE_FULL = FillDisk(0.0, kill_after_seconds=1e-6)


@pytest.fixture
def small(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene whose disk can be filled, as is said, with nothing."""
    (scene.session.state_folder / "journal").write_bytes(b"x")
    monkeypatch.setattr(disk, "fill", lambda _: True)
    return scene


async def test_it_is_who_lives_then_that_is_killed_on_a_full_disk(small: Scene) -> None:
    small.session.runs["r0"].holder = small.world.worker
    small.world.worker.dead = True
    successor = small.world.new_worker()
    await small.strike(KILLED_WHILE_FULL)
    assert successor.dead
    assert small.said("filled", "killed", "witnessed", "missed", "freed") == ["filled", "killed", "witnessed", "freed"]


async def test_a_full_disk_under_a_worker_that_is_not_there_to_be_killed_is_no_such_fault(small: Scene) -> None:
    small.session.runs["r0"].holder = small.world.worker
    small.world.worker.dead = True
    await small.strike(KILLED_WHILE_FULL)
    assert small.said("filled", "witnessed", "missed", "freed") == ["filled", "missed", "freed"]


async def test_a_worker_that_ends_by_itself_on_a_full_disk_was_not_killed(
    small: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small.world.workers, "kill", by_itself)
    await small.strike(KILLED_WHILE_FULL)
    assert small.outcome == ["missed"]


async def by_itself(_: object) -> Exit:
    return Exit(1, 0, 0.0)


async def test_a_full_disk_alone_is_witnessed_as_it_is_filled(small: Scene) -> None:
    await small.strike(FillDisk(0.0))
    assert small.said("filled", "witnessed", "freed") == ["filled", "witnessed", "freed"]


def test_a_file_that_vanishes_while_a_folder_is_looked_through_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "walk", lambda _: iter([(str(tmp_path), [], ["gone", "there"])]))
    assert not disk.holds_anything(tmp_path)
    (tmp_path / "there").touch()
    assert not disk.holds_anything(tmp_path)
    (tmp_path / "there").write_bytes(b"x")
    assert disk.holds_anything(tmp_path)


async def test_a_disk_that_keeps_its_power_is_no_harness_s_error(scene: Scene) -> None:
    class Stubborn:
        def cut(self) -> str:
            raise OSError("it still takes writes")

    scene.session.equipment["loop_disk"] = Stubborn()
    await scene.strike(LosePower())
    assert scene.outcome == ["missed"]
    assert scene.session.may_start.is_set()


# --- what is told again -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(lambda: None, "witnessed"), (fails(VerbFailed("known")), "witnessed"), (fails(VerbSilent("late")), "missed")],
    ids=["taken", "turned_down", "silence"],
)
async def test_only_an_answer_shows_that_it_was_told_again(
    scene: Scene, answer: Callable[[], None], outcome: str
) -> None:
    scene.clients.verbs["submit"] = answer
    await scene.strike(Resubmit())
    assert scene.outcome == [outcome]


# --- an operator --------------------------------------------------------------------------------------------


async def test_a_run_that_is_never_resumed_was_paused_all_the_same(scene: Scene) -> None:
    def refuse() -> None:
        if scene.clients.called.count("resume") == 3:
            scene.session.closing = True
        raise VerbFailed("not today")

    scene.clients.verbs["resume"] = refuse
    await scene.strike(Suspend(0.0))
    assert scene.said("paused", "witnessed", "missed", "resuming", "not_resumed", "resumed") == [
        "paused",
        "witnessed",
        "resuming",
        *["not_resumed"] * 3,
    ]


async def test_a_run_may_go_on_while_its_resumption_is_not_yet_acknowledged(scene: Scene) -> None:
    """Its request came after the verb took effect, and before the operator had heard so."""
    run = scene.session.runs["r0"]
    scene.clients.verbs["resume"] = lambda: scene.session.taken_up(run, scene.world.worker)
    await scene.strike(Suspend(0.0))
    (resuming,) = scene.world.saw("nemesis", "resuming")
    assert resuming["meanwhile"] == 0
    assert scene.said("resuming", "resumed") == ["resuming", "resumed"]


@pytest.mark.parametrize("how", ["nobody", "by_itself"])
async def test_a_run_whose_worker_could_not_be_killed_is_resumed_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(scene.world.workers, "kill", by_itself)
    if how == "nobody":
        scene.session.runs["r0"].holder = scene.world.worker
        scene.world.worker.dead = True
    await scene.strike(Suspend(0.0, kill=True))
    assert scene.outcome == ["missed"]
    assert scene.said("resumed") == ["resumed"]


async def test_a_pause_whose_worker_is_killed_is_witnessed_with_its_death(scene: Scene) -> None:
    await scene.strike(Suspend(0.0, kill=True))
    assert scene.said("paused", "killed", "witnessed", "resuming") == ["paused", "killed", "witnessed", "resuming"]


async def test_nothing_is_started_before_a_pause_while_the_worker_is_down_is_acknowledged(scene: Scene) -> None:
    could_start: list[bool] = []
    scene.clients.verbs["pause"] = lambda: could_start.append(scene.session.may_start.is_set())
    scene.session.runs["r0"].holder = scene.world.worker
    await scene.strike(Kill())
    await scene.strike(Suspend(0.0, while_down=True))
    assert could_start == [False]
    assert scene.session.may_start.is_set()
    assert scene.outcome == ["witnessed", "witnessed"]


async def test_a_pause_that_finds_a_worker_again_is_none_while_it_is_down(scene: Scene) -> None:
    await scene.strike(Suspend(0.0, while_down=True))
    assert scene.outcome == ["missed"]
    assert scene.session.may_start.is_set()
    assert scene.clients.called == []
