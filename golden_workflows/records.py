"""What a tool does to the world's records: pure, and without any notion of HTTP or of faults."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kintsugi.golden_workflows.expressions import ExpressionError, evaluate, is_expression, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kintsugi.golden_workflows.forms import Does, Tool

__all__ = ["Answer", "Records", "Servable", "Unservable"]


class Unservable(ValueError):
    """The records don't allow the call: its HTTP status (404, 409 or 422) and a message for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """A tool's result, and the version (an ETag) of what was read or written."""

    result: Any
    version: str
    record: str
    """``collection/id`` of the record that was read or written; only the collection for a list."""


class Servable(Protocol):
    """What the world of one run acts on: our own records, or somebody else's toolkit behind the same calls."""

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Serve a read. Raises Unservable."""

    def write(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Apply a write and return its result. Raises Unservable, having changed nothing."""

    def current_tag(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The version tag of the record that an update would change; empty where there is none."""

    def version(self, record: str) -> int:
        """The version of ``collection/id``; 0 where there is no such record."""

    def change(self, record: str, values: Mapping[str, Any]) -> int:
        """Overwrite fields of a record from outside, as a drift does; returns its new version."""


@dataclass
class Records:
    """The records of one run, each with a version that moves on at every change."""

    collections: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    now: Callable[[], float] = float
    """Workflow seconds since some moment; time stands still where nobody tells it."""
    polled: Mapping[str, float] = field(default_factory=dict)
    """The workflow seconds that go by between two polls with a tool.

    What is polled has got so far by how often it was read, so that the same run polls as often on any machine.
    """
    written: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each record that the run wrote was last written."""
    polls: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often each record has been polled since then."""

    @classmethod
    def seeded(
        cls,
        world: Mapping[str, Mapping[str, Mapping[str, Any]]],
        now: Callable[[], float] = float,
        polled: Mapping[str, float] | None = None,
    ) -> Records:
        """The seed records of a workflow, every one at version 1; `now` tells workflow seconds."""
        collections = copy.deepcopy({name: dict(records) for name, records in world.items()})
        versions = {(name, key): 1 for name, records in collections.items() for key in records}
        return cls(collections, versions, now=now, polled=polled or {})  # type: ignore[arg-type]

    def version(self, record: str) -> int:
        """The version of ``collection/id``; 0 where there is no such record."""
        collection, key = record.split("/", maxsplit=1)
        return self.versions.get((collection, key), 0)

    def change(self, record: str, values: Mapping[str, Any]) -> int:
        """Overwrite fields of a record from outside (a drift); returns its new version."""
        collection, key = record.split("/", maxsplit=1)
        self.collections[collection][key].update(copy.deepcopy(dict(values)))
        self.versions[(collection, key)] = self.version(record) + 1
        return self.versions[(collection, key)]

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Serve a read. Raises Unservable."""
        does = tool.does
        records = self.collections.get(does.collection, {})
        if does.op == "get":
            key = self._key(does.id, {"args": arguments})
            if key not in records:
                raise Unservable(404, f"{does.collection} has no {key!r}")
            return Answer(
                {"id": key, **copy.deepcopy(records[key]), **self._matured(tool, key)},
                self._tag(does.collection, [key]),
                f"{does.collection}/{key}",
            )
        keys = [key for key in sorted(records) if self._holds(does.where, key, records[key], {"args": arguments})]
        place: dict[str, int] = {}
        if does.page_size is not None:
            page = arguments.get("page", 1)
            place = {"page": page, "pages": max(1, -(-len(keys) // does.page_size))}
            keys = keys[(page - 1) * does.page_size : page * does.page_size]
        found = [{"id": key, **copy.deepcopy(records[key])} for key in keys]
        return Answer({"items": found, **place}, self._tag(does.collection, keys, place), does.collection)

    def current_tag(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The version tag of the record that an update would change; empty for a create."""
        if tool.does.op != "update":
            return ""
        return self._tag(tool.does.collection, [self._key(tool.does.id, {"args": arguments})])

    def write(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Apply a write and return its result. Raises Unservable, having changed nothing."""
        does = tool.does
        n = self.created.get(does.collection, 0) + 1
        key = self._key(does.id, {"args": arguments, "n": n})
        record = self.collections.get(does.collection, {}).get(key)
        if does.op == "update" and record is None:
            raise Unservable(404, f"{does.collection} has no {key!r}")
        if does.op == "create" and record is not None:
            raise Unservable(409, f"{does.collection} has {key!r} already")
        self._refuse(does, key, arguments)
        names = {"args": arguments, "n": n, "id": key, "record": record or {}}
        try:
            written = {**(record or {}), **copy.deepcopy(resolve(does.set, names))}
            result = copy.deepcopy(resolve(does.returns, {**names, "record": written}))
        except ExpressionError as error:
            raise Unservable(422, str(error)) from error
        if does.op == "create":
            self.created[does.collection] = n
        self.collections.setdefault(does.collection, {})[key] = written
        self.versions[(does.collection, key)] = self.versions.get((does.collection, key), 0) + 1
        self.written[(does.collection, key)] = self.now()
        self.polls.pop((does.collection, key), None)
        return Answer(result, self._tag(does.collection, [key]), f"{does.collection}/{key}")

    def _matured(self, tool: Tool, key: str) -> dict[str, Any]:
        """The field of a record that has come to its value since the run wrote it; empty where none has."""
        matures, record = tool.does.matures, (tool.does.collection, key)
        if matures is None or record not in self.written:
            return {}
        gone_by = self.now() - self.written[record]
        if tool.name in self.polled:
            gone_by = self.polls.get(record, 0) * self.polled[tool.name]
            self.polls[record] = self.polls.get(record, 0) + 1
        return {matures.field: copy.deepcopy(matures.value)} if gone_by >= matures.after_seconds else {}

    def _refuse(self, does: Does, key: str, arguments: Mapping[str, Any]) -> None:
        """Raise Unservable where a record is in the way of a write."""
        if does.refuse is None:
            return
        names = {"args": arguments, **({"id": key} if does.op == "update" else {})}
        for other, record in self.collections.get(does.refuse.collection, {}).items():
            if self._holds(does.refuse.where, other, record, names):
                raise Unservable(409, does.refuse.message)

    def _tag(self, collection: str, keys: list[str], place: Mapping[str, int] | None = None) -> str:
        """The version of records that were read or written together; `place` is that of their page among others."""
        versions = {key: self.versions.get((collection, key), 0) for key in keys}
        if len(keys) == 1 and not place:
            return f'"{keys[0]}.{versions[keys[0]]}"'
        whole = [versions, place] if place else versions
        return f'"{hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]}"'

    @staticmethod
    def _key(expression: str, names: Mapping[str, Any]) -> str:
        try:
            return str(evaluate(expression, names)) if is_expression(expression) else expression
        except ExpressionError as error:
            raise Unservable(422, str(error)) from error

    @staticmethod
    def _holds(expression: str, key: str, record: Mapping[str, Any], names: Mapping[str, Any]) -> bool:
        try:
            return bool(evaluate(expression, {**names, "record": {"id": key, **record}}))
        except ExpressionError as error:
            raise Unservable(422, str(error)) from error
