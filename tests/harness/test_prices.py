import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.prices import NoPrice, load_prices, no_price


def test_the_bundled_prices_are_those_of_the_model_that_they_name() -> None:
    model = load_prices().model
    assert model.name == "gpt-5.4-mini"
    assert (
        model.input_usd_per_million,
        model.cached_input_usd_per_million,
        model.output_usd_per_million,
    ) == (
        0.75,
        0.075,
        4.5,
    )


def test_a_file_overrides_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[human]\nusd_per_hour = 80\n")
    prices = load_prices(path)
    assert (prices.human.usd_per_hour, prices.human.source) == (80.0, str(path))
    assert prices.model == load_prices().model


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[human]\nusd_per_hours = 80\n", "human.usd_per_hours: unknown key; did you mean 'usd_per_hour'?"),
        ("[humans]\nusd_per_hour = 80\n", "humans: unknown key; did you mean 'human'?"),
        ("[human]\nusd_per_hour = -1\n", "human.usd_per_hour: "),
        ("[human]\nusd_per_hour = nan\n", "human.usd_per_hour: "),
        ("human = 3\n", "human: "),
        ("[human\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FileProblem) as caught:
        load_prices(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("\ufeff[human]\nusd_per_hour = 3.5\n", encoding="utf-8")
    assert load_prices(path).human.usd_per_hour == 3.5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"none\.toml: can't be read: No such file or directory"):
        load_prices(tmp_path / "none.toml")


# --- of a real model ----------------------------------------------------------------------------------------


def litellm_s_map(monkeypatch: pytest.MonkeyPatch, folder: Path, table: dict[str, object]) -> None:
    """A package called litellm with a price map and nothing else: whoever imports it gets nowhere."""
    package = folder / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it is to be read as a file')")
    (package / "model_prices_and_context_window_backup.json").write_text(json.dumps(table))
    spec = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr("kintsugi.harness.prices.find_spec", lambda _: spec)
    monkeypatch.setattr("kintsugi.harness.prices.version", lambda _: "1.2.3")
    load_prices.cache_clear()


PAID = {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6}


def test_a_real_model_s_price_is_litellm_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table: dict[str, object] = {
        "m": {**PAID, "cache_read_input_token_cost": 5e-7, "litellm_provider": "openai"},
        "other/m": {**PAID, "input_cost_per_token": 3e-6, "litellm_provider": "other"},
        "half": {"input_cost_per_token": 1e-6, "litellm_provider": "openai"},
    }
    litellm_s_map(monkeypatch, tmp_path, table)
    model = load_prices(None, "openai/m").model
    assert (model.name, model.source) == ("openai/m", "litellm 1.2.3 price map, standard tier")
    assert (model.input_usd_per_million, model.output_usd_per_million) == (2, 8)
    assert model.cached_input_usd_per_million == 0.5
    other = load_prices(None, "other/m").model
    assert (other.input_usd_per_million, other.cached_input_usd_per_million) == (3, 3), "no discount"
    assert load_prices().model.name == "gpt-5.4-mini"
    for unknown in ("openai/half", "openai/none", "elsewhere/m"):
        with pytest.raises(NoPrice, match=f"no price is known for {unknown}: give one in a file"):
            load_prices(None, unknown)


def test_a_file_says_what_a_real_model_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    litellm_s_map(monkeypatch, tmp_path, {"m": {**PAID, "litellm_provider": "openai"}})
    path = tmp_path / "own.toml"
    path.write_text("[model]\ninput_usd_per_million = 1.5\n[human]\nusd_per_hour = 80\n")
    prices = load_prices(path, "openai/m")
    assert (prices.model.input_usd_per_million, prices.model.output_usd_per_million) == (1.5, 8)
    assert (prices.model.name, prices.model.source, prices.human.usd_per_hour) == ("openai/m", str(path), 80)
    with pytest.raises(FileProblem, match=r"own.toml: model.*cached_input_usd_per_million"):
        load_prices(path, "openai/unknown")
    path.write_text("[human]\nusd_per_hour = 80\n")
    with pytest.raises(NoPrice, match="no price is known"):
        load_prices(path, "openai/unknown")


def test_without_litellm_there_is_no_price_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kintsugi.harness.prices.find_spec", lambda _: None)
    load_prices.cache_clear()
    with pytest.raises(NoPrice):
        load_prices(None, "openai/m")
    free = load_prices(None, "openai/m", no_price("openai/m")).model
    assert (free.input_usd_per_million, free.source) == (0, "no price is known; counted as 0")
