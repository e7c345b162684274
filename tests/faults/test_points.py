"""A point is written and read back the same, and what is no point is refused."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.faults.points import KINDS, PHASES, Point

points = st.builds(
    Point,
    kind=st.sampled_from(KINDS),
    step=st.from_regex(r"[a-z0-9_]+", fullmatch=True),
    item=st.integers(0, 10**6),
    occurrence=st.integers(1, 10**6),
    phase=st.sampled_from(PHASES),
)


# The first text of a fresh machine takes its time: its table of characters has to be made.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@patient
@given(point=points)
def test_a_point_is_read_back_as_it_was_written(point: Point) -> None:
    assert Point.parse(str(point)) == point


def test_its_written_form() -> None:
    assert str(Point("tool", "pay", 0, 1, "committed")) == "tool:pay[0]#1@committed"
    assert str(Point("submit", "start")) == "submit:start[0]#1@before"
    assert Point.parse("model:step_2[13]#4@during") == Point("model", "step_2", 13, 4, "during")


@patient
@given(text=st.text() | st.from_regex(r"[a-z]+:[a-z_]+\[\d+\]#\d+@[a-z]+"))
def test_any_text_is_a_point_in_its_one_written_form_or_none(text: str) -> None:
    said = f"{text!r} is no point; its form is kind:step[item]#occurrence@phase"
    try:
        said = str(Point.parse(text))
    except ValueError as error:
        text = str(error)
    assert said == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay",
        "tool:pay",
        "tool:pay[0]@before",
        "tool:pay[0]#1",
        "tool:pay[]#1@before",
        "tool:pay[-1]#1@before",
        "tool:[0]#1@before",
        "tool:Pay[0]#1@before",
        "tool:pay.x[0]#1@before",
        "tool:pay[0]#1@ before",
        "tools:pay[0]#1@before",
        "tool:pay[0]#1@soon",
        "TOOL:pay[0]#1@before",
        " tool:pay[0]#1@before",
    ],
)
def test_what_is_no_point(text: str) -> None:
    with pytest.raises(ValueError, match="is no point; its form is"):
        Point.parse(text)


@pytest.mark.parametrize(
    "text", ["tool:pay[0]#1@before\n", "tool:pay[٣]#1@before", "tool:pay[0]#0@before", "tool:pay[00]#1@before"]
)
def test_what_was_once_a_point_in_a_second_spelling_or_one_that_is_never_reached(text: str) -> None:
    with pytest.raises(ValueError, match="is no point"):
        Point.parse(text)


def test_points_have_an_order() -> None:
    mixed = [
        Point("tool", "b"),
        Point("tool", "a", 1),
        Point("model", "z"),
        Point("tool", "a", 0, 2),
        Point("tool", "a"),
    ]
    assert [str(point) for point in sorted(mixed)] == [
        "model:z[0]#1@before",
        "tool:a[0]#1@before",
        "tool:a[0]#2@before",
        "tool:a[1]#1@before",
        "tool:b[0]#1@before",
    ]
