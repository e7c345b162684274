"""Files that can't be used: each is refused with one line that says which file, which key, and what to do.

The cases stand in ``broken/``: what is changed in a right file, and what the line then says.
"""

import os
import shutil
import tomllib
from pathlib import Path

import pytest

from kintsugi.golden_workflows.reference import check_truth
from kintsugi.golden_workflows.spec import FileProblem, load_tools, load_workflow, load_workflows

HERE = Path(__file__).parent / "broken"
WORKFLOW = Path("shop/restock.toml")
TOOLS = Path("tools/stock.toml")


def cases(name: str) -> list[object]:
    """The changes of each case of a file, and the line that is expected."""
    read = tomllib.loads((HERE / name).read_text(encoding="utf-8"))
    return [pytest.param(case["change"], case["says"], id=key) for key, case in read.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right workflow with a right tool file, to be broken."""
    return Path(shutil.copytree(HERE / "base", tmp_path / "golden"))


def break_file(path: Path, changes: list[dict[str, str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for change in changes:
        assert change["old"] in text, "the case changes nothing"
        text = text.replace(change["old"], change["new"], 1)
    path.write_text(text, encoding="utf-8")


def refused(caught: pytest.ExceptionInfo[FileProblem], path: Path, says: str) -> None:
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert says in line


def test_the_files_are_right_before_they_are_broken(folder: Path) -> None:
    workflows = load_workflows(folder)
    assert list(workflows) == ["shop/restock"]
    check_truth(workflows["shop/restock"])


@pytest.mark.parametrize(("changes", "says"), cases("workflows.toml"))
def test_a_broken_workflow_is_refused_with_one_line(changes: list[dict[str, str]], says: str, folder: Path) -> None:
    break_file(folder / WORKFLOW, changes)
    with pytest.raises(FileProblem) as caught:
        load_workflow(folder / WORKFLOW, folder / "tools")
    refused(caught, folder / WORKFLOW, says)


@pytest.mark.parametrize(("changes", "says"), cases("unproven.toml"))
def test_a_workflow_that_contradicts_itself_is_refused_with_one_line(
    changes: list[dict[str, str]], says: str, folder: Path
) -> None:
    break_file(folder / WORKFLOW, changes)
    workflow = load_workflow(folder / WORKFLOW, folder / "tools")
    with pytest.raises(FileProblem) as caught:
        check_truth(workflow)
    refused(caught, folder / WORKFLOW, says)


@pytest.mark.parametrize(("changes", "says"), cases("tools.toml"))
def test_a_broken_tool_file_is_refused_with_one_line(changes: list[dict[str, str]], says: str, folder: Path) -> None:
    break_file(folder / TOOLS, changes)
    with pytest.raises(FileProblem) as caught:
        load_workflows(folder)
    refused(caught, folder / TOOLS, says)


@pytest.mark.parametrize(
    "where",
    [
        "record.room == args.room and record.left < 5",
        "record.left != 8 and args.room in record.room and record.room >= args.room",
        "record.left < args.room | length",
    ],
)
def test_a_record_that_some_arguments_bring_into_a_list_has_to_fit_it(where: str, folder: Path) -> None:
    break_file(folder / TOOLS, [{"old": "record.room == args.room", "new": where}])
    break_file(folder / WORKFLOW, [{"old": "left = 3", "new": "left = 3\nnote = 5"}])
    with pytest.raises(FileProblem) as caught:
        load_workflow(folder / WORKFLOW, folder / "tools")
    refused(caught, folder / WORKFLOW, "world.shelves.S-1.note: 5 is not of type 'string'")


def test_a_record_that_no_arguments_bring_into_a_list_need_not_fit_it(folder: Path) -> None:
    break_file(folder / TOOLS, [{"old": "record.room ==", "new": "record.left > 5 and record.room =="}])
    break_file(folder / WORKFLOW, [{"old": "left = 3", "new": "left = 3\nnote = 5"}])
    assert load_workflow(folder / WORKFLOW, folder / "tools").world["shelves"]["S-1"]["note"] == 5


def test_a_file_that_is_not_there_or_no_text_is_refused(folder: Path) -> None:
    path = folder / WORKFLOW
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(FileProblem, match="can't be read: byte 9 is not UTF-8"):
        load_workflow(path, folder / "tools")
    path.write_text(f"left = {'1' * 5000}", encoding="utf-8")
    with pytest.raises(FileProblem, match="not valid TOML: Exceeds the limit"):
        load_workflow(path, folder / "tools")
    path.unlink()
    with pytest.raises(FileProblem, match="can't be read: No such file or directory"):
        load_workflow(path, folder / "tools")


def test_a_name_that_two_tool_files_give_is_refused(folder: Path) -> None:
    shutil.copy(folder / TOOLS, folder / "tools" / "copy.toml")
    with pytest.raises(FileProblem, match=r"stock\.toml: tools\.stock\.get: another tool has this name"):
        load_tools(folder / "tools")


def test_a_dollar_in_a_name_or_in_data_is_no_reference(folder: Path) -> None:
    shown = (
        '"$ref" = { enum = [{ "$ref" = "#/x" }] }, "$comment" = { "$comment" = "Mine.", type = "string" }, any = true'
    )
    break_file(folder / TOOLS, [{"old": "properties = { left", "new": f"properties = {{ {shown}, left"}])
    assert "$ref" in load_tools(folder / "tools")["stock.get"].result["properties"]


MARK = b"\xef\xbb\xbf"
"""What some editors put at the beginning of a file: a byte order mark."""


def test_a_byte_order_mark_was_once_an_invalid_statement(folder: Path) -> None:
    for path in (folder / WORKFLOW, folder / TOOLS):
        path.write_bytes(MARK + path.read_bytes())
    assert list(load_workflows(folder)) == ["shop/restock"]


@pytest.mark.parametrize("start", [".", "shop", ".."])
def test_a_problem_of_a_tool_file_was_once_named_by_its_whole_path(
    start: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_file(folder / TOOLS, [{"old": "price_usd", "new": "price_eur"}])
    monkeypatch.chdir(folder / start)
    with pytest.raises(FileProblem) as caught:
        load_workflow(Path(os.path.relpath(folder / WORKFLOW)))
    assert str(caught.value).startswith(f"{os.path.relpath(folder / TOOLS)}: tools.stock.get.price_eur: unknown key")
