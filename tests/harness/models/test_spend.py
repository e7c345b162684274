"""Money: estimated before, limited while, and counted after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.models.answers import NoneAtAll
from kintsugi.harness.models.request import ANSWER_TOKENS_MAX
from kintsugi.harness.models.spend import TROUBLE_FACTOR, Meter, estimate, spent_so_far
from kintsugi.harness.prices import ModelPrice
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


def test_what_the_provider_counts_is_what_is_charged(tmp_path: Path) -> None:
    meter = Meter(PRICE, None, tmp_path / "spend.jsonl")
    with meter.call("t1", REQUEST) as call:
        call.ended(completion(1000, 600, 100))
    assert meter.spent == pytest.approx((400 * 1.0 + 600 * 0.5 + 100 * 10.0) / 1e6)
    assert spent_so_far(tmp_path / "spend.jsonl") == pytest.approx(meter.spent)


@pytest.mark.parametrize(("status", "charged"), [(429, False), (500, False), (502, True), (504, True)])
def test_an_error_costs_nothing_and_a_time_out_may_have_cost_all(tmp_path: Path, status: int, charged: bool) -> None:
    meter = Meter(PRICE, None, tmp_path / "spend.jsonl")
    with meter.call("t1", REQUEST) as call:
        call.ended({"refused": {"status": status, "message": "", "retry_after": ""}})
    assert meter.spent == pytest.approx(WORST if charged else 0.0, rel=0.05)


def test_a_call_that_was_given_up_may_have_cost_all(tmp_path: Path) -> None:
    meter = Meter(PRICE, None, tmp_path / "spend.jsonl")
    with pytest.raises(KeyboardInterrupt), meter.call("t1", REQUEST):
        raise KeyboardInterrupt
    assert meter.spent == pytest.approx(WORST, rel=0.05)


def test_no_call_is_made_that_might_pass_the_limit(tmp_path: Path) -> None:
    meter = Meter(PRICE, 2.5 * WORST, tmp_path / "spend.jsonl")
    with meter.call("t1", REQUEST) as one, meter.call("t2", REQUEST) as two:
        with pytest.raises(NoneAtAll, match=r"the spend limit of \$0.03 is reached"), meter.call("t3", REQUEST):
            raise AssertionError("a third one may cost more than is left")
        one.ended(completion(1000, 0, 10))
        two.ended(completion(1000, 0, 10))
    with meter.call("t3", REQUEST) as three:
        three.ended(completion(1000, 0, 10))
    assert meter.spent == pytest.approx(3 * 0.0011)


def test_what_was_spent_before_a_crash_counts(tmp_path: Path) -> None:
    path = tmp_path / "spend.jsonl"
    path.write_text('{"trial": "t1", "usd": 0.25}\n{"trial": "t2", "usd": 0.5}\n{"trial": "t3", "us')
    meter = Meter(PRICE, 0.76, path)
    assert meter.spent == 0.75
    with pytest.raises(NoneAtAll, match=r"\$0.7500 are spent"), meter.call("t3", REQUEST):
        raise AssertionError


def test_what_is_spent_after_a_crash_is_not_joined_to_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "spend.jsonl"
    path.write_text('{"trial": "t1", "usd": 0.25}\n{"trial": "t2", "us')
    meter = Meter(PRICE, None, path)
    with meter.call("t2", REQUEST) as call:
        call.ended(completion(1000, 0, 10))
    assert spent_so_far(path) == pytest.approx(0.25 + 0.0011)
