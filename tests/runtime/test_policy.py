"""What a plan may say, and what its runs' clocks show."""

import time

import pytest

from kintsugi.runtime.clock import Moment, RunClock, moment
from kintsugi.runtime.policy import Policy


def test_everything_has_a_default() -> None:
    assert Policy.from_plan({}) == Policy()
    assert Policy.from_plan({"policy": {"on_reject": "stop"}}) == Policy()


def test_what_is_said_counts() -> None:
    policy = Policy.from_plan({"policy": {"attempts": 2, "backoff_base_seconds": 0, "repeat_writes": "allow"}})
    assert (policy.attempts, policy.repeat_writes) == (2, "allow")
    assert (policy.budget.attempts, policy.budget.base_seconds, policy.budget.cap_seconds) == (2, 0, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("attempts", 0, "a whole number from 1"),
        ("attempts", 1.5, "a whole number from 1"),
        ("attempts", True, "a whole number from 1"),
        ("tool_timeout_seconds", 0, "a number above 0"),
        ("model_timeout_seconds", "5", "a number above 0"),
        ("backoff_cap_seconds", -1, "a number from 0"),
        ("repeat_writes", "maybe", "refuse or allow"),
    ],
)
def test_what_cannot_be_used_is_named(key: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"policy.{key} is .*; allowed: {allowed}"):
        Policy.from_plan({"policy": {key: value}})


def test_a_wall_clock_that_jumps_moves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    born = moment()
    run = RunClock(born, floor=born.wall + 1e6)
    monkeypatch.setattr(time, "time", lambda: born.wall + 7200.0)
    assert born.wall <= run.now() < born.wall + 5
    monkeypatch.setattr(time, "time", lambda: born.wall - 7200.0)
    assert born.wall <= RunClock(born).now() < born.wall + 5


def test_after_a_reboot_the_wall_clock_counts_from_the_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunClock(Moment(1000.0, "another boot", 50.0), floor=2000.0)
    monkeypatch.setattr(time, "time", lambda: 1500.0)
    assert run.now() == 2000.0
    monkeypatch.setattr(time, "time", lambda: 3000.0)
    assert run.now() == 3000.0
    monkeypatch.setattr(time, "time", lambda: 2500.0)
    assert run.now() == 3000.0
