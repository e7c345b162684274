from __future__ import annotations

import pytest

from kintsugi.reports.numbers import Rate, hours, number, percent, pick, rate, seconds, usd, usd_interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.99996, "99.9%"),
        (0.00001, "0.1%"),
        (0.9872, "98.7%"),
        (1.25, "125.0%"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "–"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(value: object, shown: str) -> None:
    assert percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "$0"),
        (0.0707, "$0.0707"),
        (0.00441, "$0.00441"),
        (0.000001, "< $0.00001"),
        (1.836, "$1.84"),
        (1250.4, "$1,250"),
        (25.0, "$25"),
        (-0.00155, "−$0.00155"),
        ("1", "–"),
    ],
)
def test_money_has_the_digits_that_matter(value: object, shown: str) -> None:
    assert usd(value) == shown


def test_times_are_in_the_unit_that_is_read() -> None:
    assert [seconds(value) for value in (0.612, 12.34, 185.0, 16_200.0, None)] == [
        "0.61 s",
        "12.3 s",
        "3 min 5 s",
        "4.5 h",
        "–",
    ]
    assert seconds(7199.9) == "2.0 h"
    assert hours(26.0) == "26.0 h"


def test_a_rate_shows_its_counts_and_its_interval() -> None:
    found = rate({"k": 76, "n": 77, "rate": 76 / 77, "ci95": [0.9298, 0.9997], "basis": "sampled"})
    assert found
    assert (found.counts, found.text, found.interval) == ("76/77", "98.7%", "93.0–99.9%")
    exhaustive = rate({"k": 5, "n": 5, "rate": 1.0, "ci95": None, "basis": "exhaustive"})
    assert exhaustive
    assert exhaustive.interval == "exhaustive"


@pytest.mark.parametrize("value", [None, {}, "junk", [], {"k": 0, "n": 0}, {"k": "1", "n": 2}, {"k": 1}])
def test_what_is_no_rate_is_none(value: object) -> None:
    assert rate(value) is None


def test_a_rate_without_its_share_has_the_share_of_its_counts() -> None:
    assert rate({"k": 1, "n": 4}) == Rate(1, 4, 0.25, trials=4)


def test_an_interval_of_one_amount_is_not_repeated() -> None:
    assert usd_interval([0.02, 0.03]) == "$0.0200–$0.0300"
    assert not usd_interval([0.02, 0.02])
    assert not usd_interval([0.02, None])
    assert not usd_interval(None)


def test_picking_where_nothing_is_gives_none() -> None:
    assert pick({"a": {"b": 1}}, "a", "b") == 1
    assert pick({"a": 1}, "a", "b") is None
    assert number("1") is None
