"""A person's decisions, kept in files until a run asks for them: for engines that have no inbox of their own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

__all__ = ["keep", "kept"]


def _path(state_dir: str | os.PathLike[str], run_id: str, request_id: str) -> Path:
    name = hashlib.sha256(f"{run_id}\n{request_id}".encode()).hexdigest()[:32]
    return Path(state_dir, "decisions", f"{name}.json")


def keep(state_dir: str | os.PathLike[str], run_id: str, request_id: str, decision: Mapping[str, Any]) -> None:
    """Keep a decision, whether it is waited for yet or not. The first on a request stands; it is on disk on return."""
    path = _path(state_dir, run_id, request_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".partial") as file:
        json.dump(dict(decision), file)
        file.flush()
        os.fsync(file.fileno())
        # A link comes into being whole, and only where there is none yet.
        with suppress(FileExistsError):
            os.link(file.name, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def kept(state_dir: str | os.PathLike[str], run_id: str, request_id: str) -> dict[str, Any] | None:
    """The decision on a request; None while there is none."""
    try:
        decision: dict[str, Any] = json.loads(_path(state_dir, run_id, request_id).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return decision
