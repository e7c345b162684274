"""Reads a results folder and writes into it. The only place of the reports that touches files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from kintsugi.harness.records import TrialResult

__all__ = ["read_object", "read_trials", "replace_file"]


def read_trials(path: Path) -> list[TrialResult]:
    """The trials of a run. A last line that was cut short when the run stopped is left out.

    FileNotFoundError, or ValueError with the number of a line that is no trial's result.
    """
    *lines, last = path.read_text(encoding="utf-8").split("\n")
    results = []
    for number, line in enumerate([*lines, last], start=1):
        try:
            if line.strip():
                results.append(TrialResult.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number > len(lines):
                break
            raise ValueError(f"{path}, line {number}: no trial's result ({type(error).__name__}: {error})") from error
    return results


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. FileNotFoundError, or ValueError where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")  # noqa: TRY004 - a file's fault
    return data


def replace_file(path: Path, text: str) -> Path:
    """Writes beside `path` and renames, so that a reader or a crash never sees half a page."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
