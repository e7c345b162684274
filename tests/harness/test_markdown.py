from collections.abc import Callable

from kintsugi.harness.gate import judge, load_thresholds
from kintsugi.harness.markdown import to_markdown
from kintsugi.harness.metrics import measure
from kintsugi.harness.records import TrialResult

MakeResult = Callable[..., TrialResult]


def test_each_class_has_its_table_and_each_fault_its_row(make_result: MakeResult) -> None:
    results = [
        make_result(),
        make_result(verdict="lost"),
        make_result(kind="clean"),
        make_result(fault="loop", workflow="data/dead_letter_replay"),
        make_result(injection="not_exposed", verdict=None),
    ]
    text = to_markdown(measure(results, suite="standard 1", seed=7))
    lines = text.splitlines()
    assert lines[0] == "## Kintsugi: suite standard 1, seed 7"
    assert lines[2] == "5 trials, 3 with a witnessed fault; counted apart: 1 not exposed."
    assert [line for line in lines if line.startswith("### ")] == [
        "### data",
        "### finance",
        "### Recovery by fault",
    ]
    assert "| minimal | worker_kill | – | 1/2 |" in lines
    assert "| minimal | loop | 1/1 | – |" in lines
    row = next(line for line in lines[lines.index("### finance") :] if line.startswith("| minimal"))
    assert "50.0% (1/2; 1.3–98.7)" in row
    assert "100.0% (1/1; 2.5–100.0)" in row


def test_the_gates_word_comes_first_with_what_did_not_pass(make_result: MakeResult) -> None:
    summary = measure([make_result(verdict="corrupted")])
    text = to_markdown(summary, judge(summary, load_thresholds()))
    assert "**Gate: fail** (0 of 11 lines pass)" in text
    assert text.index("**Gate") < text.index("### finance")
    assert "| fail | finance | corruption_rate | 100.0% (1/1; 95%: 2.5% to 100.0%) | 0 |" in text


def test_names_can_not_break_a_table(make_result: MakeResult) -> None:
    text = to_markdown(measure([make_result(sut="a|b\n<img>", chain="own")]))
    assert "| a\\|b &lt;img> |" in text


def test_a_summary_of_nothing() -> None:
    assert "0 trials, 0 with a witnessed fault." in to_markdown(measure([]))
