"""What the documents show is there: commands, options, make targets, files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from kintsugi.faults import FAULTS
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.cli import main
from kintsugi.scenarios.suite import suite_names

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
SHOWN = [
    (path.name, command.strip())
    for path in DOCUMENTS
    for command in re.findall(r"(?:^|`)(kintsugi [a-z][^`#\n]*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
]


@pytest.mark.parametrize(("document", "shown"), SHOWN)
def test_a_command_that_is_shown_exists(document: str, shown: str) -> None:
    words = shown.split()[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        assert words, f"{document}: {shown}"
        assert words[0] in command.commands, f"{document}: {shown}"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, f"{document}: {shown}"
    for option, known in (("--suite", suite_names()), ("--sut", ADAPTERS)):
        if option in words:
            assert words[words.index(option) + 1] in known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_and_links_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / link).exists(), link


def test_the_readme_says_how_much_there_is() -> None:
    suite = tomllib.loads((ROOT / "scenarios" / "standard.toml").read_text(encoding="utf-8"))
    assert len({share["fault"] for share in suite["faults"]}) == 10  # "Ten fault classes strike …"
    assert len(suite["workflows"]) == 30  # "… thirty workflows"
    workflows = [path for path in ROOT.glob("golden_workflows/*/*.toml") if path.parent.name != "tools"]
    assert len(workflows) == 30  # "Thirty golden workflows in six classes"
    assert len({path.parent for path in workflows}) == 6


def test_every_fault_class_has_its_paragraph_and_names_its_forms() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0].strip(): part for part in text.split("\n## ")[1:]}
    assert set(sections) == set(FAULTS)
    for name, fault in FAULTS.items():
        missing = [form.name for form in fault.forms if f"`{form.name}`" not in sections[name]]
        assert missing == [], f"docs/faults.md, {name}: no word of {missing}"
