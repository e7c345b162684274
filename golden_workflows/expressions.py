"""The expression language of workflow and tool files: Jinja2's expressions, sandboxed and strict.

A string that starts with ``=`` is an expression, ``"= invoice.total_cents > 0"``; any other string is itself.
``a.b`` on a mapping is always the key ``b``, never a method, so records may have fields called ``items``.
The one function is ``range(start, stop)``, for the pages of a list. A ``*`` or ``**`` that would give more than anyone
can mean has no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import GeneratorType
from typing import TYPE_CHECKING, Any, TypeAlias

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

if TYPE_CHECKING:
    from jinja2.environment import TemplateExpression
    from jinja2.runtime import Context

__all__ = ["FUNCTIONS", "ExpressionError", "Json", "evaluate", "fields_in", "is_expression", "names_in", "resolve"]


Json: TypeAlias = Any
"""A value that JSON can hold. The exact recursive type would have to be narrowed at every access."""

FUNCTIONS: Mapping[str, Any] = {"range": safe_range}
"""What an expression may call; their names are no free names."""


class ExpressionError(ValueError):
    """An expression that can't be parsed, or that has no value for the given names."""


SIZE_MAX = 1_000_000
"""How many characters or items a product may have."""

BITS_MAX = 1024
"""About how long a product or a power of whole numbers may be, which is as long as a float can be."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Json, right: Json) -> Json:
        if _too_large(operator, left, right):
            raise OverflowError(f"what {operator!r} gives would be too large")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Json, attribute: str) -> Json:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


def _too_large(operator: str, left: Json, right: Json) -> bool:
    """Whether a product or a power would be so large that computing it takes for ever, or all of the memory."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        return abs(left) > 1 and bits > BITS_MAX
    return any(
        isinstance(many, (str, list, tuple)) and isinstance(times, int) and len(many) * times > SIZE_MAX
        for many, times in ((left, right), (right, left))
    )


_ENVIRONMENT = _Environment(undefined=StrictUndefined, autoescape=False)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.globals.update(FUNCTIONS)


def is_expression(value: object) -> bool:
    """Whether a value of a workflow file is an expression (a string that starts with ``=``)."""
    return isinstance(value, str) and value.startswith("=")


@lru_cache(maxsize=4096)
def _compile(source: str) -> TemplateExpression:
    try:
        return _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise ExpressionError(f"{source.strip()!r} can't be parsed: {error.message}") from error


def _parse(source: str) -> nodes.Template:
    _compile(source)  # Refuses unknown filters, and what is a template but no expression; parsing lets both pass.
    return _ENVIRONMENT.parse("{{" + source + "}}")


@lru_cache(maxsize=4096)
def _names(source: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(_parse(source)) - FUNCTIONS.keys())


@lru_cache(maxsize=4096)
def _fields(source: str) -> frozenset[tuple[str, str | None]]:
    tree = _parse(source)
    owned: set[int] = set()
    found: set[tuple[str, str | None]] = set()
    for node in tree.find_all(nodes.Expr):
        if isinstance(node, nodes.Getattr):
            field, owner = node.attr, node.node
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            field, owner = node.arg.value, node.node
        else:
            continue
        if isinstance(owner, nodes.Name) and isinstance(field, str):
            owned.add(id(owner))
            found.add((owner.name, field))
    whole = {node.name for node in tree.find_all(nodes.Name) if id(node) not in owned} - FUNCTIONS.keys()
    return frozenset(found | {(name, None) for name in whole})


def evaluate(expression: str, names: Mapping[str, Any]) -> Json:
    """The value of ``"= …"`` where each free name is looked up in `names`.

    Raises ExpressionError where a name or a field is missing, or the operation is not possible.
    """
    source = expression[1:]
    try:
        value = _compile(source)(**names)
        # Filters are lazy, and an empty generator would count as true.
        value = list(value) if isinstance(value, GeneratorType) else value
        if isinstance(value, StrictUndefined):
            bool(value)  # Raises, and names what is missing.
    except (UndefinedError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError(f"{source.strip()!r} has no value: {error}") from error
    return value


def resolve(template: Json, names: Mapping[str, Any]) -> Json:
    """A copy of a nested value in which every expression is replaced by its value."""
    if isinstance(template, str):
        return evaluate(template, names) if is_expression(template) else template
    if isinstance(template, Mapping):
        return {key: resolve(value, names) for key, value in template.items()}
    if isinstance(template, Sequence):
        return [resolve(value, names) for value in template]
    return template


def names_in(template: Json) -> frozenset[str]:
    """The free names of every expression in a nested value."""
    if isinstance(template, str):
        return _names(template[1:]) if is_expression(template) else frozenset()
    if isinstance(template, Mapping):
        return frozenset[str]().union(*(names_in(value) for value in template.values()))
    if isinstance(template, Sequence):
        return frozenset[str]().union(*(names_in(value) for value in template))
    return frozenset()


def fields_in(template: Json) -> frozenset[tuple[str, str | None]]:
    """The (name, field) of each ``name.field`` in a value; the field of a name used whole is None."""
    if isinstance(template, str):
        return _fields(template[1:]) if is_expression(template) else frozenset()
    if isinstance(template, Mapping):
        return frozenset[tuple[str, str | None]]().union(*(fields_in(value) for value in template.values()))
    if isinstance(template, Sequence):
        return frozenset[tuple[str, str | None]]().union(*(fields_in(value) for value in template))
    return frozenset()
