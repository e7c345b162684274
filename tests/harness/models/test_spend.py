"""Money: estimated before, limited while, and counted after."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.history import Unwritable
from kintsugi.harness.models.answers import NoneAtAll
from kintsugi.harness.models.request import ANSWER_TOKENS_MAX
from kintsugi.harness.models.spend import TROUBLE_FACTOR, Meter, estimate, spent_so_far
from kintsugi.harness.prices import ModelPrice, no_price
from kintsugi.scenarios.trial import Trial

PRICE = ModelPrice(
    name="m", source="", input_usd_per_million=1.0, cached_input_usd_per_million=0.5, output_usd_per_million=10.0
)
REQUEST: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 2000}], "max_tokens": 1000}
WORST = 0.012
"""A thousand tokens of an answer, and one for each byte of the prompt: two thousand or a little more."""


def completion(prompt: int, cached: int, answer: int) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"completion": {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer, **details}}}


# --- before -------------------------------------------------------------------------------------------------


def test_an_estimate_grows_with_trials_calls_and_prices() -> None:
    workflows = load_workflows()
    optimized, naive = (
        Trial("clean", "minimal", chain, "finance/invoice_payment", seed=7) for chain in ("optimized", "naive")
    )
    one, other = (estimate([trial], workflows, PRICE, at_once=0) for trial in (optimized, naive))
    assert (one.calls, other.calls) == (1, 7)
    assert 0 < one.low < other.low
    assert one.high == pytest.approx(TROUBLE_FACTOR * one.low)
    both = estimate([optimized, naive], workflows, PRICE, at_once=0)
    assert (both.trials, both.calls) == (2, 8)
    assert both.low == pytest.approx(one.low + other.low)
    storm = Trial("clean", "minimal", "optimized", "finance/invoice_payment", seed=7, copies=50)
    assert estimate([storm], workflows, PRICE, at_once=0).low == pytest.approx(50 * one.low)
    assert estimate([], workflows, PRICE, at_once=0).high == 0
    room = estimate([optimized], workflows, PRICE, at_once=4).high - one.high
    assert room > 4 * ANSWER_TOKENS_MAX * 10 / 1e6, "for the longest answers that four calls under way may have"


# --- while --------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[tuple[str, float]]:
    """What the lines of a ledger are for, and their dollars, rounded."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["what"], round(line["usd"], 4)) for line in found]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "spend.jsonl"


async def test_what_the_provider_counts_is_what_is_charged(ledger: Path) -> None:
    meter = Meter(PRICE, None, ledger)
    async with meter.call("t1", REQUEST) as call:
        call.ended(completion(1000, 600, 100))
    assert meter.spent == pytest.approx((400 * 1.0 + 600 * 0.5 + 100 * 10.0) / 1e6)
    assert spent_so_far(ledger) == pytest.approx(meter.spent)


@pytest.mark.parametrize(("status", "charged"), [(429, False), (500, False), (502, True), (504, True)])
async def test_an_error_costs_nothing_and_a_time_out_may_have_cost_all(
    ledger: Path, status: int, charged: bool
) -> None:
    meter = Meter(PRICE, None, ledger)
    async with meter.call("t1", REQUEST) as call:
        call.ended({"refused": {"status": status, "message": "", "retry_after": ""}})
    assert meter.spent == pytest.approx(WORST if charged else 0.0, rel=0.05)
    assert spent_so_far(ledger) == pytest.approx(meter.spent)


async def test_a_call_that_was_given_up_may_have_cost_all(ledger: Path) -> None:
    meter = Meter(PRICE, None, ledger)
    with pytest.raises(KeyboardInterrupt):
        async with meter.call("t1", REQUEST):
            raise KeyboardInterrupt
    assert meter.spent == pytest.approx(WORST, rel=0.05)
    assert spent_so_far(ledger) == pytest.approx(meter.spent)


async def test_a_key_that_is_refused_costs_nothing(ledger: Path) -> None:
    meter = Meter(PRICE, None, ledger)
    with pytest.raises(NoneAtAll, match="does not take the key"):
        async with meter.call("t1", REQUEST):
            raise NoneAtAll("does not take the key")
    assert meter.spent == spent_so_far(ledger) == 0


async def test_no_call_is_made_that_might_pass_the_limit(ledger: Path) -> None:
    meter = Meter(PRICE, 2.5 * WORST, ledger)
    async with meter.call("t1", REQUEST) as one, meter.call("t2", REQUEST) as two:
        with pytest.raises(NoneAtAll, match=r"the spend limit of \$0.03 is reached"):
            async with meter.call("t3", REQUEST):
                raise AssertionError("a third one may cost more than is left")
        one.ended(completion(1000, 0, 10))
        two.ended(completion(1000, 0, 10))
    async with meter.call("t3", REQUEST) as three:
        three.ended(completion(1000, 0, 10))
    assert meter.spent == pytest.approx(3 * 0.0011)


# --- over a crash -------------------------------------------------------------------------------------------


async def test_the_worst_of_a_call_is_on_the_disk_before_it_is_made(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[bytes] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: on_disk.append(os.pread(descriptor, 2**16, 0)))
    meter = Meter(PRICE, None, ledger)
    async with meter.call("t1", REQUEST) as call:
        assert on_disk == [ledger.read_bytes()]
        assert [what for what, _ in lines(ledger)] == ["reserved"]
        call.ended(completion(1000, 0, 10))
    worst, more = lines(ledger)
    assert (worst[0], more[0]) == ("reserved", "settled")
    assert worst[1] == pytest.approx(WORST, rel=0.05)
    assert worst[1] + more[1] == pytest.approx(0.0011)


async def test_a_call_whose_end_nobody_saw_counts_as_the_worst_in_what_is_gone_on_with(ledger: Path) -> None:
    before = Meter(PRICE, None, ledger)
    async with before.call("t1", REQUEST) as one:
        one.ended(completion(1000, 0, 10))
    async with before.call("t2", REQUEST):
        at_the_crash = ledger.read_text()
    ledger.write_text(at_the_crash)
    after = Meter(PRICE, 2.05 * WORST, ledger)
    with pytest.raises(NoneAtAll, match=r"\$0.0132 are spent"):
        async with after.call("t2", REQUEST):
            raise AssertionError("with what the one under way may have cost, it may pass the limit")
    assert ledger.read_text() == at_the_crash, "what was not called is not reserved"


@pytest.mark.parametrize(("torn", "spent"), [("reserved", 0.0), ("settled", WORST)])
async def test_what_is_spent_after_a_crash_is_not_joined_to_the_torn_line(
    ledger: Path, torn: str, spent: float
) -> None:
    async with Meter(PRICE, None, ledger).call("t1", REQUEST) as call:
        call.ended(completion(1000, 0, 10))
    text = ledger.read_text()
    ledger.write_text(text[: text.index(torn)])
    assert spent_so_far(ledger) == pytest.approx(spent, rel=0.05)
    meter = Meter(PRICE, None, ledger)
    async with meter.call("t1", REQUEST) as call:
        call.ended(completion(1000, 0, 10))
    assert spent_so_far(ledger) == pytest.approx(spent + 0.0011, rel=0.05)


async def test_a_ledger_is_another_run_s_until_the_first_call(ledger: Path) -> None:
    other = Meter(PRICE, None, ledger)
    async with other.call("t1", REQUEST) as call:
        whole = ledger.read_bytes()
        ledger.write_bytes(whole[:-3])
        meter = Meter(PRICE, None, ledger)
        assert ledger.read_bytes() == whole[:-3], "it is just being written"
        ledger.write_bytes(whole)
        call.ended(completion(1000, 0, 10))
    async with meter.call("t2", REQUEST) as call:
        call.ended(completion(1000, 0, 10))
    assert meter.spent == pytest.approx(spent_so_far(ledger)) == pytest.approx(2 * 0.0011)


async def test_a_call_whose_worst_can_t_be_written_is_not_made(tmp_path: Path) -> None:
    meter = Meter(PRICE, None, tmp_path / "nowhere" / "spend.jsonl")
    with pytest.raises(Unwritable, match=r"spend\.jsonl: can't be written"):
        async with meter.call("t1", REQUEST):
            raise AssertionError


async def test_a_call_that_costs_nothing_waits_for_no_disk(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flushed(_: int) -> None:
        raise AssertionError

    monkeypatch.setattr("os.fsync", flushed)
    async with Meter(no_price("m"), 0.0, ledger).call("t1", REQUEST) as call:
        call.ended(completion(1000, 0, 10))
    assert not ledger.exists()
