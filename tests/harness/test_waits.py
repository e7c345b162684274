"""A decision that nobody fetched: whether the wait for it was met, on hand-written histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import Decide
from kintsugi.faults.points import Point
from kintsugi.harness.history import of
from kintsugi.harness.session import SECONDS_PER_HOUR
from kintsugi.harness.waits import did_not_survive

if TYPE_CHECKING:
    from tests.harness.conftest import HandWritten, WriteHistory

INVOICE = "finance/invoice_payment"
PAY = Point("human", "pay", 0, 1, "waiting")


def found(run: HandWritten, form: str = "late") -> str:
    (decide,) = [a for a in FAULTS["approval_delay"].form(form).actions if isinstance(a, Decide)]
    return did_not_survive(run.events, decide, PAY)


@pytest.fixture
def asks(write_history: WriteHistory) -> HandWritten:
    """A run that has asked for the approval of its payment."""
    run = write_history(INVOICE).starts().goes_on(until="pay")
    run.halts("approval", "pay")
    return run


def waits(run: HandWritten, hours: float) -> HandWritten:
    """Nothing happens for some hours, but that workers come and go."""
    for _ in range(round(hours * SECONDS_PER_HOUR / 0.01)):
        run.add("runner", "started", generation=1, node="node1", pid=41)
    return run


def decides(run: HandWritten, decision: str) -> HandWritten:
    """The person decides, and nobody fetches it."""
    run.decides(of(run.events, "human", "asked")[-1]["question"], decision)
    del run.events[-1]
    return run


@pytest.mark.parametrize(
    ("form", "decision", "when"),
    [
        ("late", "approve", "after 24 h"),
        ("rejected", "reject", "after 1 h"),
        ("never", "expire", "after 48 h"),
        ("before_wait", "approve", "before the wait"),
    ],
)
@pytest.mark.parametrize("ends", ["failed", "hangs", "extinct"])
def test_it_was_made_and_nobody_fetched_it(form: str, decision: str, when: str, ends: str, asks: HandWritten) -> None:
    decides(asks, decision)
    if ends == "failed":
        asks.ends("failed", "gave up")
    elif ends == "extinct":
        asks.add("runner", "extinct")
    assert found(asks, form) == f"decision {decision} was made {when}, and nobody fetched it before the end"


@pytest.mark.parametrize("ends", ["failed", "extinct"])
def test_who_ends_when_anybody_else_would_have_answered_did_not_wait(ends: str, asks: HandWritten) -> None:
    waits(asks, 5)
    if ends == "failed":
        asks.ends("failed", "gave up")
    else:
        asks.add("runner", "extinct")
    # What the harness does afterwards is no part of the wait.
    decides(waits(asks, 2), "approve") if ends == "failed" else waits(asks, 2)
    assert found(asks) == "the run ended 5.1 h into a wait of 24 h for decision approve"
    assert found(asks, "rejected") == ""


def test_who_ends_before_that_has_met_nothing(asks: HandWritten) -> None:
    asks.ends("failed", "no good")
    assert found(waits(asks, 5)) == ""


def test_a_run_that_completed_needed_it_only_for_what_it_left_out(asks: HandWritten) -> None:
    decides(asks, "approve").ends()
    assert found(asks) != ""
    assert found(asks, "rejected") == ""
    assert found(asks.does("pay")) == ""


def test_another_question_is_not_meant(write_history: WriteHistory) -> None:
    run = write_history(INVOICE).starts().goes_on(until="tell")
    run.halts("verify", "pay")
    assert found(decides(waits(run, 30), "continue").ends("failed")).startswith("decision approve")
    run.events = [e for e in run.events if e.get("kind") != "approval"]
    assert found(run) == ""
