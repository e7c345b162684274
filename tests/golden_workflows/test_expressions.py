import re

import pytest

from kintsugi.golden_workflows.expressions import (
    ExpressionError,
    evaluate,
    fields_in,
    is_expression,
    names_in,
    resolve,
)


@pytest.mark.parametrize(
    ("expression", "names", "value"),
    [
        ("= a.b", {"a": {"b": 3}}, 3),
        ("= a['b'] + 1", {"a": {"b": 3}}, 4),
        ("= a.items", {"a": {"items": [1, 2]}}, [1, 2]),
        ("= a.keys", {"a": {"keys": "k"}}, "k"),
        ("= 'N-' ~ n", {"n": 7}, "N-7"),
        ("= 'x' if a else 'y'", {"a": False}, "y"),
        ("= a | map(attribute='id') | list", {"a": [{"id": 1}, {"id": 2}]}, [1, 2]),
        ("= a | sum(attribute='n')", {"a": [{"n": 1}, {"n": 2}]}, 3),
        ("= {'a': {'b': n}}", {"n": 1}, {"a": {"b": 1}}),
        ("= none", {}, None),
        ("= a * 12 * 1.5", {"a": 100}, 1800.0),
        ("= 2 ** 10 + 2 ** -1", {}, 1024.5),
        ("= (1 ** n) + (0 ** n)", {"n": 9**9}, 1),
        ("= '-' * 3", {}, "---"),
        ("= 2 * a", {"a": [1]}, [1, 1]),
        ("= range(2, p.pages + 1) | list", {"p": {"pages": 4}}, [2, 3, 4]),
        ("= range(2, p.pages + 1) | list", {"p": {"pages": 1}}, []),
        ("= a | map(attribute='items') | sum(start=[])", {"a": [{"items": [1]}, {"items": [2, 3]}]}, [1, 2, 3]),
    ],
)
def test_an_expression_has_its_value(expression: str, names: dict[str, object], value: object) -> None:
    assert evaluate(expression, names) == value


def test_a_lazy_filter_gives_a_list_so_that_an_empty_one_counts_as_false() -> None:
    assert evaluate("= a | selectattr('on')", {"a": [{"on": False}]}) == []
    assert evaluate("= a | map(attribute='id')", {"a": [{"id": 1}]}) == [1]


@pytest.mark.parametrize(
    ("expression", "names", "message"),
    [
        ("= a.c", {"a": {"b": 3}}, "has no attribute 'c'"),
        ("= missing", {}, "'missing' is undefined"),
        ("= a.b.c", {"a": {}}, "has no attribute 'b'"),
        ("= a + 'x'", {"a": 1}, "has no value"),
        ("= 1 // 0", {}, "has no value"),
        ("= a.__class__.__mro__", {"a": 1}, "has no value"),
        ("= a |", {"a": 1}, "can't be parsed"),
        ("= a | nofilter", {"a": 1}, "No filter named 'nofilter'"),
        ("= a }} {{ b", {"a": 1, "b": 1}, "can't be parsed"),
        ("=", {}, "can't be parsed"),
        ("= range(1000000000) | list", {}, "has no value: Range too big"),
        ("= 9**(9**9)", {}, "has no value: what '**' gives would be too large"),
        ("= (-9)**n", {"n": 9**9}, "has no value: what '**' gives would be too large"),
        ("= n * n", {"n": 2**600}, "has no value: what '*' gives would be too large"),
        ("= 'x' * 3000000000", {}, "has no value: what '*' gives would be too large"),
        ("= 3000000000 * a", {"a": [1]}, "has no value: what '*' gives would be too large"),
        ("= 2.5 ** 99999", {}, "has no value"),
    ],
)
def test_an_expression_without_a_value_says_why(expression: str, names: dict[str, object], message: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(message)):
        evaluate(expression, names)


def test_no_expression_reaches_the_machine() -> None:
    for name in ("dict", "cycler", "lipsum", "namespace"):
        with pytest.raises(ExpressionError, match="undefined"):
            evaluate(f"= {name}", {})


def test_resolving_copies_a_nested_value_and_leaves_other_strings_alone() -> None:
    template = {"a": ["= n + 1", "n + 1"], "b": {"c": "= n"}, "d": 2.5, "e": None}
    assert resolve(template, {"n": 1}) == {"a": [2, "n + 1"], "b": {"c": 1}, "d": 2.5, "e": None}
    assert is_expression("= n")
    assert not is_expression(" = n")
    assert not is_expression(3)


def test_names_and_fields_of_a_nested_value() -> None:
    template = {"a": "= x.one ~ y", "b": ["= z['two'].three", "x.no"], "c": "= items | selectattr('q')"}
    assert names_in(template) == {"x", "y", "z", "items"}
    assert fields_in(template) == {("x", "one"), ("y", None), ("z", "two"), ("items", None)}
    assert names_in("= range(2, x.pages)") == {"x"}, "a function is no name of a value"
    assert fields_in("= range(2, x.pages)") == {("x", "pages")}


@pytest.mark.parametrize("broken", ["= a |", "= a }} {{ b", "= a | nofilter", "="])
def test_names_of_what_is_no_expression_are_refused(broken: str) -> None:
    for find in (names_in, fields_in):
        with pytest.raises(ExpressionError):
            find({"deep": [broken]})
