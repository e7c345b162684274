from pathlib import Path

import pytest

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.prices import load_prices


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="can't be read"):
        load_prices(tmp_path / "none.toml")
