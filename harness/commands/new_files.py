"""Files that a command writes for a user to go on with: none is overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from kintsugi.golden_workflows.spec import FileProblem

__all__ = ["must_be_new", "write_new"]


def must_be_new(paths: Iterable[Path], remedy: str) -> None:
    """Raise FileProblem, which ends with the remedy, where one of the files is there."""
    there = next((path for path in paths if path.exists()), None)
    if there is not None:
        raise FileProblem(f"{there}: is there already; {remedy}")


def write_new(texts: Mapping[Path, str]) -> None:
    """Write each file, with the folders that it needs. Raises FileProblem."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise FileProblem(f"{path}: can't be written: {error.strerror}") from error
