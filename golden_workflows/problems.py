"""What is wrong with a file, in one line: which file, which key, what was found, what is allowed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileProblem", "nearest", "read_toml", "validation_problem"]

KNOWN_MAX = 12
"""How many known names are listed where none is near: a line stays readable."""


class FileProblem(ValueError):
    """A file can't be used; the message is one line that names file, key and remedy."""


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds; a byte order mark, which some editors write, is passed over. Raises FileProblem."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileProblem(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileProblem(f"{path}: can't be read: byte {error.start} is not UTF-8") from error
    except ValueError as error:
        raise FileProblem(f"{path}: not valid TOML: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, or the known names where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" and {len(names) - KNOWN_MAX} more" if len(names) > KNOWN_MAX else ""
    return f"; known: {', '.join(names[:KNOWN_MAX]) or 'none'}{more}"


def validation_problem(error: ValidationError, form: type[BaseModel], data: object = None) -> str:
    """The first problem of a pydantic error as ``key: what was found, what is allowed``.

    A misspelt key goes first, because it explains the key that is missing. With `data`, the parsed file, the
    entries of a list are named by their own ``id`` or ``name``.
    """
    errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = _place(first["loc"], data)
    if first["type"] == "extra_forbidden":
        known = _fields_at(form, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), known) if known else ""
        return f"{place}: unknown key{hint}"
    if first["type"] == "missing":
        return f"{place}: this key is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if isinstance(first["input"], (dict, list)):
        return f"{place}: {message}"
    return f"{place}: {message}, found {first['input']!r}"


def _place(location: Sequence[int | str], data: object) -> str:
    """A location as ``plan.pay.args``; an entry without a name of its own as ``plan[2]``."""
    place = ""
    for part in location:
        if isinstance(data, Mapping):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = None
        own = data.get("id", data.get("name")) if isinstance(part, int) and isinstance(data, Mapping) else None
        if isinstance(part, int) and not isinstance(own, str):
            place += f"[{part}]"
        else:
            place += f".{own if isinstance(own, str) else part}"
    return place.removeprefix(".") or "the file"


def _fields_at(form: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The field names of the model at a location of a parsed file; empty where that is no model."""
    current: Any = form
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                return []
            current = _there(current.model_fields[str(part)].annotation)
        else:
            arguments = [argument for argument in getattr(current, "__args__", ()) if argument is not str]
            current = arguments[-1] if arguments else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _there(annotation: Any) -> Any:
    """``X`` for an annotation ``X | None``; any other as it is."""
    arguments = [argument for argument in getattr(annotation, "__args__", ()) if argument is not NoneType]
    optional = len(arguments) == 1 and NoneType in annotation.__args__
    return arguments[0] if optional else annotation
