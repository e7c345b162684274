"""The price table: what tokens, cores and people cost. From TOML; the bundled one, unless overridden."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.golden_workflows.problems import FileProblem, read_toml, validation_problem

__all__ = [
    "ComputePrice",
    "HumanPrice",
    "ModelPrice",
    "NoPrice",
    "Prices",
    "litellm_price",
    "load_prices",
    "no_price",
]

BUNDLED = Path(__file__).with_name("prices.toml")
LITELLM_MAP = "model_prices_and_context_window_backup.json"


class NoPrice(FileProblem):
    """Nothing says what a model costs."""


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
def load_prices(path: Path | None = None, real: str = "", known: ModelPrice | None = None) -> Prices:
    """The bundled prices, with those of a TOML file in their place where it names them.

    A file that changes a price without saying where it is from is given itself as the source. `real` names the model
    that is asked, where it is a real one: its price is `known`, or else litellm's, or the file's.
    Raises FileProblem, one line that names file, key and what is allowed; NoPrice where nothing says what `real` costs.
    """
    bundled = read_toml(BUNDLED)
    if real:
        found = known or litellm_price(real)
        bundled["model"] = found.model_dump() if found else {}
    if path is None:
        own, where = {}, BUNDLED
    else:
        own, where = read_toml(path), path
    for table, values in own.items():
        if isinstance(values, dict) and table in bundled:
            if table == "model" and real and values.get("name", real) != real:
                raise FileProblem(f"{path}: model.name: is {values['name']!r}, and the model that is asked is {real!r}")
            bundled[table] |= ({"name": real} if table == "model" and real else {}) | {"source": str(path)} | values
        else:
            bundled[table] = values
    if not bundled["model"]:
        raise NoPrice(
            f"no price is known for {real}: give one in a file ([model], 0 for a server of your own) with --prices, "
            "or --spend-limit none to count it as 0"
        )
    try:
        return Prices.model_validate(bundled)
    except ValidationError as error:
        raise FileProblem(f"{where}: {validation_problem(error, Prices)}") from error


def litellm_price(name: str) -> ModelPrice | None:
    """What litellm's bundled price map says of a model, read as a file; None where it or litellm is not there.

    The map names some models with their provider and some without.
    """
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(LITELLM_MAP)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    provider, _, short = name.partition("/")
    entry = table.get(name)
    if entry is None and str((table.get(short) or {}).get("litellm_provider", "")).startswith(provider):
        entry = table[short]
    if not isinstance(entry, dict) or not {"input_cost_per_token", "output_cost_per_token"} <= entry.keys():
        return None
    whole: float = entry["input_cost_per_token"]
    return ModelPrice(
        name=name,
        source=f"litellm {version('litellm')} price map, standard tier",
        input_usd_per_million=_per_million(whole),
        cached_input_usd_per_million=_per_million(entry.get("cache_read_input_token_cost", whole)),
        output_usd_per_million=_per_million(entry["output_cost_per_token"]),
    )


def no_price(name: str) -> ModelPrice:
    """The price of a model of which nobody knows any, and which a user has run all the same."""
    nothing = {f"{kind}_usd_per_million": 0.0 for kind in ("input", "cached_input", "output")}
    return ModelPrice(name=name, source="no price is known; counted as 0", **nothing)


def _per_million(usd: Any) -> float:
    return round(float(usd) * 1_000_000, 6)
