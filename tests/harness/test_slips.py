"""What a value might have been instead: nothing that is far-fetched, and no other words for prose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kintsugi.harness.slips import fields_in, is_prose, neighbours, slips


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        (12, {}, [120]),
        (12, {"maximum": 100}, [11, 13]),
        (0, {}, [-1, 1]),
        (1.5, {}, [15.0]),
        (True, {}, [False]),
        ("INV-1049", {}, ["INV-1040"]),
        ("pay", {"enum": ["pay", "hold"]}, ["pay", "hold"]),
        (["H-1", "H-2"], {}, [["H-1"]]),
        (["H-1"], {"minItems": 1}, []),
        (["H-1"], {"items": {"enum": ["H-1", "H-2"]}}, [[], ["H-1", "H-2"]]),
        ("some prose 1", {}, []),
        ("EUR", {}, []),
        (None, {}, []),
        ({"a": 1}, {}, []),
    ],
)
def test_what_is_made_up(value: object, schema: dict[str, object], expected: list[object]) -> None:
    assert slips(value, schema) == expected


def test_what_is_shown_comes_before_what_is_made_up_and_after_the_choices_of_the_schema() -> None:
    assert slips("INV-1", {}, ["INV-7"]) == ["INV-7"]
    assert slips("pay", {"enum": ["pay", "hold"]}, ["stop"]) == ["pay", "hold"]


SEEN = [
    ("id", "L-1"),
    ("id", "L-2"),
    ("owner", "anna"),
    ("owner", "bo"),
    ("owner", "the head of sales"),
    ("amount_cents", 500),
    ("amount_cents", 700),
    ("amount_cents", True),
    ("count", 3),
    ("place", "L-1 of 2"),
]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("lead_id", "L-1", ["L-2"]),
        ("lead_id", "L-9", ["L-1", "L-2"]),
        ("to", "anna", ["bo"]),
        ("owner", "carl", ["anna", "bo"]),
        ("amount_cents", 500, [700]),
        ("price_cents", 700, [500]),
        ("price_cents", 800, []),
        ("owner", 3, []),
        ("text", "a few words", []),
        ("owner", True, []),
        ("ids", ["L-1"], []),
    ],
)
def test_a_neighbour_is_of_the_same_field_or_an_id_of_the_same_form(name: str, value: Any, found: list[Any]) -> None:
    assert neighbours(name, value, SEEN) == found


def test_the_fields_of_a_request_are_those_of_every_object_in_it() -> None:
    inputs = json.dumps({"inputs": {"lead": {"id": "L-1", "tags": ["new", "hot"]}, "count": 2}})
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"Decide.\n{inputs}"},
        {"role": "assistant", "content": None},
    ]
    assert list(fields_in(messages)) == [("id", "L-1"), ("tags", "new"), ("tags", "hot"), ("count", 2)]


@pytest.mark.parametrize(("value", "prose"), [("two words", True), ("word", False), (3, False), (["a b"], False)])
def test_prose_is_more_than_one_word(value: object, prose: bool) -> None:
    assert is_prose(value) is prose
