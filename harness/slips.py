"""What a value might plausibly have been instead, as a model that slips would have it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kintsugi.harness.transcript import objects_in

__all__ = ["fields_in", "is_prose", "neighbours", "slips"]


def slips(value: Any, schema: Mapping[str, Any], shown: Sequence[Any] = ()) -> list[Any]:
    """What a value might plausibly have been instead; prose is left alone.

    Another choice of an enum, else one of its neighbours that are `shown` in the request, else a made-up one: the next
    id, a factor of ten (or one more or less, where ten times is too much), or one item of a list too few or too many.
    The value itself may be among them, and what the schema forbids.
    """
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    if isinstance(value, bool):
        return [not value]
    if shown:
        return list(shown)
    if isinstance(value, (int, float)):
        tenfold = value * 10
        return [tenfold] if value and tenfold <= schema.get("maximum", tenfold) else [value - 1, value + 1]
    if isinstance(value, str) and not is_prose(value) and value[-1:].isdigit():
        return [value[:-1] + str((int(value[-1]) + 1) % 10)]
    if isinstance(value, list):
        known = (schema.get("items") or {}).get("enum") if isinstance(schema.get("items"), Mapping) else None
        shorter = [value[:-1]] if len(value) > int(schema.get("minItems", 0)) else []
        longer = [[*value, other] for other in known or [] if other not in value][:1]
        return shorter + longer
    return []


def neighbours(name: str, value: Any, seen: Sequence[tuple[str, Any]]) -> list[Any]:
    """Other values that the request shows for the same field, and other ids of the same form; sorted, each once.

    A field is the same if it has the argument's name, or holds the right value somewhere in the request.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or is_prose(value):
        return []
    same = {name} | {field for field, other in seen if _alike(other, value) and other == value}
    form = _form(value)
    found = {
        other
        for field, other in seen
        if _alike(other, value) and other != value and (field in same or (form and _form(other) == form))
    }
    return sorted(found)


def _alike(other: Any, value: Any) -> bool:
    """Whether another value might stand where this one does: a number for a number, a word for a word."""
    if isinstance(other, bool) or is_prose(other):
        return False
    return isinstance(other, str if isinstance(value, str) else (int, float))


def is_prose(value: Any) -> bool:
    """Whether a value is text of more than one word, in which there is no right and wrong."""
    return isinstance(value, str) and " " in value


def _form(value: Any) -> str:
    """What an id has in common with its neighbours: INV-# for INV-1041. Empty for what is no id."""
    return re.sub(r"\d+", "#", value) if isinstance(value, str) and re.search(r"\d", value) else ""


def fields_in(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Every value that the request's objects hold, with the name that it stands under: inputs and results alike."""
    for _, found in objects_in(messages):
        yield from _named("", found)


def _named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(name, inner)
    else:
        yield name, value
