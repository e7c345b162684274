"""Results as a table for other tools: one row for each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kintsugi.reports.files import read_trials, replace_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["export_csv"]


def export_csv(folder: Path) -> Path:
    """Writes ``trials.csv`` into a results folder, whole or not at all, and returns its path.

    A row for each line of ``trials.jsonl``, in order of id; a column for each figure, named by its path
    (``usage.prompt_tokens``). Lists are joined by semicolons; halts and the trial itself are JSON. Errors are
    those of `read_trials`.
    """
    import pandas as pd

    results = sorted(read_trials(folder / "trials.jsonl"), key=lambda r: r.id)
    rows = [_flat(result.to_json()) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame(rows, columns=columns)
    return replace_file(folder / "trials.csv", frame.to_csv(index=False, lineterminator="\n"))


def _flat(data: Mapping[str, Any], above: str = "") -> dict[str, object]:
    """Nested mappings as one level of dotted names."""
    row: dict[str, object] = {}
    for name, value in data.items():
        path = f"{above}{name}"
        if path in {"trial", "human.halts"}:
            row[path] = json.dumps(value, sort_keys=True)
        elif isinstance(value, Mapping):
            row |= _flat(value, f"{path}.")
        elif isinstance(value, list | tuple):
            row[path] = ";".join(map(str, value))
        else:
            row[path] = value
    return row
