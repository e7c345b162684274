"""Shipped files, broken line by line: each is refused with one line that names file and key, or is right as it is.

A key that is misspelt, a value of another type and an expression that can't be, or that names a step which is not
there, have to be refused. A line that is missing may leave a right file: many keys have a default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kintsugi.golden_workflows.reference import check_truth
from kintsugi.golden_workflows.spec import HERE, FileProblem, load_tools, load_workflow

WORKFLOWS = ("finance/invoice_payment", "marketing/campaign_launch", "research/literature_review")
TOOLS = ("bank", "crm", "warehouse")
ASSIGNED = re.compile(r"(\w+) = (.+)")

SCHEMAS = ("output", "parameters", "properties", "result")

Mutation = Callable[[str, str], str | None]
"""A line's key and value, broken; None where that can't be done to it."""


def misspelt(key: str, value: str) -> str:
    return f"{key}{key[-1]} = {value}"


def missing(key: str, value: str) -> str:
    return ""


def of_another_type(key: str, value: str) -> str:
    other = "7" if value[0] in '"[{' else "[[]]"
    return f"{key} = {other}"


def no_expression(key: str, value: str) -> str | None:
    spoilt = value.replace('"= ', '"= ) ', 1)
    return f"{key} = {spoilt}" if spoilt != value else None


def of_no_step(key: str, value: str) -> str | None:
    broken = re.sub(r'"= [a-z_]+\.', '"= nobody.', value, count=1)
    return f"{key} = {broken}" if broken != value else None


MUST_BE_REFUSED = (misspelt, of_another_type, no_expression, of_no_step)


def broken(text: str, mutation: Mutation) -> Iterator[tuple[str, str]]:
    """Each key of a file, outside of records, which may hold anything, with the file in which its line is broken."""
    lines, section = text.splitlines(), ""
    for at, line in enumerate(lines):
        section = line if line.startswith("[") else section
        found = ASSIGNED.fullmatch(line)
        # What the world holds is the author's own, and a JSON schema may have keywords that nobody knows.
        own = section.startswith("[world") or section.rstrip("]").endswith(SCHEMAS)
        changed = mutation(*found.groups()) if found and not own else None
        if found and changed is not None:
            yield found[1], "\n".join([*lines[:at], changed, *lines[at + 1 :]])


def refused(path: Path, text: str, load: Callable[[], None]) -> bool:
    """Whether a file is refused; then with one line that begins with its path."""
    path.write_text(text, encoding="utf-8")
    try:
        load()
    except FileProblem as problem:
        line = str(problem)
        assert line.startswith(f"{path}: "), line
        assert "\n" not in line
        return True
    return False


def tally(cases: Iterator[tuple[str, str]], path: Path, load: Callable[[], None]) -> tuple[int, list[str]]:
    """How many cases were refused, and the keys of those that were not."""
    told = [(key, refused(path, text, load)) for key, text in cases]
    return sum(was for _, was in told), [key for key, was in told if not was]


@pytest.mark.parametrize("mutation", [*MUST_BE_REFUSED, missing])
@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_that_is_broken_in_one_line(name: str, mutation: Mutation, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.parent.mkdir()

    def load() -> None:
        check_truth(load_workflow(path))

    text = (HERE / f"{name}.toml").read_text(encoding="utf-8")
    assert not refused(path, text, load)
    refusals, passed = tally(broken(text, mutation), path, load)
    assert refusals >= 5
    if mutation in MUST_BE_REFUSED:
        assert passed == []


@pytest.mark.parametrize("mutation", [misspelt, of_another_type, no_expression, missing])
@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_file_that_is_broken_in_one_line(name: str, mutation: Mutation, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"

    def load() -> None:
        load_tools.cache_clear()
        load_tools(tmp_path)

    text = (HERE / "tools" / f"{name}.toml").read_text(encoding="utf-8")
    assert not refused(path, text, load)
    refusals, passed = tally(broken(text, mutation), path, load)
    assert refusals >= 3
    if mutation in MUST_BE_REFUSED:
        assert passed == []
