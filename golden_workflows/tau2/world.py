"""A toolkit as the world of a run: every call goes through our doors, and its writes are effects in our ledger."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from kintsugi.golden_workflows.forms import Tool
from kintsugi.golden_workflows.records import Answer, Unservable
from kintsugi.golden_workflows.tau2.checkout import Checkout
from kintsugi.runtime.rules import canonical

__all__ = ["Answers", "ToolkitRecords"]

Past = tuple[str, ...]
"""The writes that were applied so far, each as canonical JSON of its tool and arguments."""


class Answers:
    """What a toolkit answers to a call after some writes. Worked out once for each, as its tools are deterministic.

    τ²-bench itself relies on that: to reach the last state of a conversation, it makes its writes again. So does this,
    on a database of its own for each call, so that one that is refused half way has changed nothing.
    """

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._known: dict[tuple[Past, str], Answer | Unservable] = {}

    def to(self, past: Past, tool: Tool, call: str) -> Answer:
        """The answer to a call after the writes of the past. Raises Unservable where the toolkit refuses it."""
        if (past, call) not in self._known:
            self._known[past, call] = self._work_out(past, tool, call)
        known = self._known[past, call]
        if isinstance(known, Unservable):
            raise Unservable(known.status, str(known))
        return replace(known, result=copy.deepcopy(known.result))

    def _work_out(self, past: Past, tool: Tool, call: str) -> Answer | Unservable:
        mode = _Mode(writing=True)
        toolkit = self._checkout.toolkit(_copied(self._checkout.database, mode))
        for write in past:
            _call(toolkit, write)
        mode.writing = tool.effect == "write"
        try:
            result = _call(toolkit, call)
        except Exception as error:  # noqa: BLE001 - what a tool raises is its refusal, as it is in τ²-bench
            return Unservable(422, str(error) or type(error).__name__)
        digest = hashlib.sha256(canonical(result).encode()).hexdigest()[:16]
        return Answer(result, f'"{digest}"', self._checkout.domain)


def _call(toolkit: Any, call: str) -> Any:
    name, arguments = json.loads(call)
    return to_jsonable_python(toolkit.use_tool(name.partition(".")[2], **arguments))


# --- copies of a database -----------------------------------------------------------------------------------


@dataclass
class _Mode:
    """Whether what is called now may write."""

    writing: bool


if TYPE_CHECKING:
    _Rows = dict[str, Any]
else:

    class _Rows(MutableMapping, dict):
        """A dict all of whose ways to a row lead through its own ``[key]``."""


class _Table(_Rows):
    """A table with the rows of another one, each of which is copied before a write gets hold of it.

    A whole copy of a database of some megabytes would hold up every trial that is under way. What is declared to be no
    write is given the rows themselves.
    """

    def __init__(self, rows: Mapping[str, Any], mode: _Mode) -> None:
        dict.__init__(self, rows)
        self._shared, self._mode = set(rows), mode

    def __getitem__(self, key: str) -> Any:
        if self._mode.writing and key in self._shared:
            self[key] = copy.deepcopy(dict.__getitem__(self, key))
        return dict.__getitem__(self, key)

    def __setitem__(self, key: str, row: Any) -> None:
        self._shared.discard(key)
        dict.__setitem__(self, key, row)

    def __delitem__(self, key: str) -> None:
        self._shared.discard(key)
        dict.__delitem__(self, key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key)

    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)

    def __len__(self) -> int:
        return dict.__len__(self)


def _copied(database: Any, mode: _Mode) -> Any:
    """A copy of a database: of its tables row by row, as they are written to; of anything else at once."""
    parts = {name: getattr(database, name) for name in type(database).model_fields}
    return database.model_copy(
        update={
            name: _Table(part, mode) if isinstance(part, dict) else copy.deepcopy(part) for name, part in parts.items()
        }
    )


class ToolkitRecords:
    """The world of one run: the domain's database as its own writes have left it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._past: Past = ()

    def read(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Serve a read. Raises Unservable with the toolkit's own words."""
        return self._answers.to(self._past, tool, canonical([tool.name, arguments]))

    def write(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        """Apply a write and return its result. Raises Unservable with the toolkit's own words; nothing has changed."""
        call = canonical([tool.name, arguments])
        answer = self._answers.to(self._past, tool, call)
        self._past = (*self._past, call)
        return answer

    def current_tag(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """No version: a toolkit has no conditional writes."""
        return ""

    def version(self, record: str) -> int:
        """No version: records are the toolkit's own."""
        return 0

    def change(self, record: str, values: Mapping[str, Any]) -> int:
        """Nothing can drift, as no task declares what would then be right. Raises LookupError."""
        raise LookupError(f"{record} can't be set to {dict(values)}: a task of τ²-bench declares no drift")
