"""How a tool's result is changed on its way out: pure functions of the result and of what its tool declares."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from kintsugi.golden_workflows.results import fields_of, records_in

__all__ = ["tampered"]

Json = Mapping[str, Any]
Change = Callable[[list[dict[str, Any]], Json, str], None]
"""Changes the records of a result, given its schema and the text that is to lie in it."""

GAINED = "remarks"
"""The field that a result gains."""


def tampered(how: str, result: Any, schema: Json, text: str = "") -> Any:
    """The result changed in a named way; the same where there is nothing to change. KeyError for unknown names.

    `text` is what an ``instruction`` says.
    """
    if how == "empty_record":
        return {}
    changed = copy.deepcopy(result)
    _CHANGES[how](records_in(schema, changed), schema, text)
    return changed


def _gains(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del schema
    for record in records:
        record[GAINED] = text or {"since": "2.1", "internal": True}


def _loses(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del text
    name, _ = next(fields_of(schema), ("", {}))
    for record in records:
        record.pop(name, None)


def _renames(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del text
    name, _ = next(fields_of(schema), ("", {}))
    first, *rest = f"{name}_value".split("_")
    for record in records:
        if name in record:
            record[first + "".join(word.title() for word in rest)] = record.pop(name)


def _mistypes(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del text
    name, _ = next(fields_of(schema), ("", {}))
    for record in records[:1]:
        value = record.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        record[name] = str(value) if number else [value]


def _goes_below_zero(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del text
    name = next((name for name, field in fields_of(schema) if "minimum" in field), "")
    for record in records[:1] if name else ():
        record[name] = -abs(record[name]) - 1


def _chooses_wrongly(records: list[dict[str, Any]], schema: Json, text: str) -> None:
    del text
    name = next((name for name, field in fields_of(schema) if "enum" in field), "")
    for record in records[:1] if name else ():
        record[name] = "XXX"


_CHANGES: Mapping[str, Change] = {
    "gains_field": _gains,
    "loses_field": _loses,
    "renames_field": _renames,
    "wrong_type": _mistypes,
    "below_zero": _goes_below_zero,
    "unknown_choice": _chooses_wrongly,
    "instruction": _gains,
}
