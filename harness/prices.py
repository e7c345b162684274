"""The price table: what tokens, cores and people cost. From TOML; the bundled one, unless overridden."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.golden_workflows.spec import FileProblem, validation_problem

__all__ = ["ComputePrice", "HumanPrice", "ModelPrice", "Prices", "load_prices"]

BUNDLED = Path(__file__).with_name("prices.toml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPrice(_Strict):
    """Dollars per million tokens."""

    name: str
    source: str
    input_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    cached_input_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    output_usd_per_million: float = Field(ge=0, allow_inf_nan=False)


class ComputePrice(_Strict):
    """Dollars for one core for one hour."""

    usd_per_cpu_hour: float = Field(ge=0, allow_inf_nan=False)
    source: str


class HumanPrice(_Strict):
    """Dollars for one hour of a person."""

    usd_per_hour: float = Field(ge=0, allow_inf_nan=False)
    source: str


class Prices(_Strict):
    """Every price that a cost is computed with."""

    model: ModelPrice
    compute: ComputePrice
    human: HumanPrice


@cache
def load_prices(path: Path | None = None) -> Prices:
    """The bundled prices, with those of a TOML file in their place where it names them.

    A file that changes a price without saying where it is from is given itself as the source.
    Raises FileProblem, one line that names file, key and what is allowed.
    """
    bundled = _read(BUNDLED)
    if path is None:
        return Prices.model_validate(bundled)
    own = _read(path)
    for table, values in own.items():
        if isinstance(values, dict) and table in bundled:
            bundled[table] |= {"source": str(path)} | values
        else:
            bundled[table] = values
    try:
        return Prices.model_validate(bundled)
    except ValidationError as error:
        raise FileProblem(f"{path}: {validation_problem(error, Prices)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(f"{path}: not valid TOML: {error}") from error
