"""When a provider counts as not there, however many ask at once. Pure."""

from __future__ import annotations

from contextlib import ExitStack

from kintsugi.harness.models.reach import FAILURES_MAX, Reach


def failed(reach: Reach, times: int) -> None:
    """So many calls, one after the other, each of which fails."""
    for _ in range(times):
        with reach.call():
            reach.fails("status 500")


def test_a_provider_is_gone_once_enough_calls_have_failed() -> None:
    reach = Reach()
    failed(reach, FAILURES_MAX - 1)
    assert not reach.gone
    failed(reach, 1)
    assert reach.gone
    assert reach.last == "status 500"


def test_a_provider_that_nobody_can_reach_is_gone_at_once() -> None:
    reach = Reach()
    with reach.call():
        reach.fails("refused", counts=FAILURES_MAX)
    assert reach.gone


def test_one_that_has_answered_once_is_never_gone() -> None:
    reach = Reach()
    failed(reach, FAILURES_MAX - 1)
    with reach.call():
        reach.answers()
    failed(reach, 2 * FAILURES_MAX)
    with reach.call():
        reach.fails("refused", counts=FAILURES_MAX)
    assert not reach.gone


def test_a_time_out_neither_counts_nor_clears() -> None:
    reach = Reach()
    for _ in range(2 * FAILURES_MAX):
        with reach.call():
            reach.fails("no answer", counts=0)
    assert not reach.gone
    failed(reach, FAILURES_MAX - 1)
    with reach.call():
        reach.fails("no answer", counts=0)
    assert not reach.gone
    failed(reach, 1)
    assert reach.gone


def test_one_that_turns_some_away_while_it_answers_others_is_not_gone() -> None:
    reach = Reach()
    with reach.call():
        failed(reach, FAILURES_MAX)
        assert not reach.gone, "one that was asked before may be answered"
        reach.answers()
    assert not reach.gone


def test_calls_that_began_after_enough_had_failed_are_not_waited_for() -> None:
    reach = Reach()
    with ExitStack() as earlier, reach.call():
        earlier.enter_context(reach.call())
        failed(reach, FAILURES_MAX)
        with reach.call():
            failed(reach, 1)
            assert not reach.gone
            earlier.close()
            assert not reach.gone, "the first of both is still under way"
    assert reach.gone
    with reach.call():
        assert reach.gone
