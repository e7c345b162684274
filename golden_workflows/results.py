"""What a tool's declared result is made of: the record in it, and the fields of which one can be sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["fields_of", "record_schema", "records_in"]

Json = Mapping[str, Any]


def record_schema(schema: Json) -> Json:
    """The schema of a record in a result: that of its items where it is a list of them, else its own."""
    items = _items(schema)
    return schema if items is None else items


def records_in(schema: Json, result: Any) -> list[dict[str, Any]]:
    """The records of a result, as they lie in it; none where it is not of the declared shape."""
    if _items(schema) is None:
        return [result] if isinstance(result, dict) else []
    items = result.get("items") if isinstance(result, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def fields_of(schema: Json) -> Iterator[tuple[str, Json]]:
    """The name and schema of each field that every record of a result has, numbers first, its id last."""
    record = record_schema(schema)
    properties = record.get("properties", {})

    def rank(name: str) -> tuple[bool, bool]:
        return name == "id", properties.get(name, {}).get("type") not in {"integer", "number"}

    for name in sorted(record.get("required", []), key=rank):
        yield name, properties.get(name, {})


def _items(schema: Json) -> Json | None:
    items = schema.get("properties", {}).get("items")
    return items["items"] if isinstance(items, Mapping) and isinstance(items.get("items"), Mapping) else None
