from __future__ import annotations

import csv
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from kintsugi.reports.export import export_csv
from kintsugi.reports.files import read_trials, replace_file
from kintsugi.reports.scorecard import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reports.conftest import Run


def test_a_results_folder_becomes_a_scorecard(small_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "standard-7"
    folder.mkdir(parents=True)
    path = write(small_run.write(folder), small_run.fault_texts)
    page = path.read_text(encoding="utf-8")
    assert path == folder / "scorecard.html"
    assert "kintsugi replay results/standard-7 --trial " in page
    assert "What worker_kill does." in page
    assert str(tmp_path) not in page
    assert {entry.name for entry in folder.iterdir()} == {
        "scorecard.html",
        "trials.jsonl",
        "summary.json",
        "environment.json",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_texts_of_faults_may_come_with_the_environment(small_run: Run, tmp_path: Path) -> None:
    small_run.write(tmp_path)
    environment = {**small_run.environment, "faults": small_run.fault_texts}
    (tmp_path / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    assert "How worker_kill was seen." in write(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_an_environment_is_enough(small_run: Run, tmp_path: Path) -> None:
    small_run.write(tmp_path)
    (tmp_path / "environment.json").unlink()
    assert "Not recorded." in write(tmp_path).read_text(encoding="utf-8")


def test_a_write_that_breaks_leaves_the_old_page_and_nothing_else(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.write(tmp_path)
    (tmp_path / "scorecard.html").write_text("the old one", encoding="utf-8")
    before = {entry.name for entry in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    assert (tmp_path / "scorecard.html").read_text(encoding="utf-8") == "the old one"
    assert {entry.name for entry in tmp_path.iterdir()} == before


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page"
    path.write_text("old", encoding="utf-8")
    seen: list[str] = []
    flush = os.fsync

    def look(handle: int) -> None:
        seen.append(path.read_text(encoding="utf-8"))
        flush(handle)

    monkeypatch.setattr(os, "fsync", look)
    replace_file(path, "new" * 100_000)
    assert seen == ["old"]
    assert path.read_text(encoding="utf-8") == "new" * 100_000


def test_a_last_line_that_was_cut_short_is_left_out(small_run: Run, tmp_path: Path) -> None:
    path = small_run.write(tmp_path) / "trials.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-40], encoding="utf-8")
    assert read_trials(path) == small_run.results[:-1]


def test_a_line_that_is_no_trial_is_named(small_run: Run, tmp_path: Path) -> None:
    path = small_run.write(tmp_path) / "trials.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = '{"id": "half"}'
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trials\.jsonl, line 2: no trial's result"):
        read_trials(path)


@pytest.mark.parametrize("text", ["", "[]", '{"suts": '])
def test_a_summary_that_is_none_is_named(small_run: Run, tmp_path: Path, text: str) -> None:
    small_run.write(tmp_path)
    (tmp_path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"summary\.json: "):
        write(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"summary\.json"):
        write(tmp_path)


def test_the_table_has_a_row_for_each_trial_and_a_column_for_each_figure(small_run: Run, tmp_path: Path) -> None:
    path = export_csv(small_run.write(tmp_path))
    first = path.read_bytes()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == sorted(result.id for result in small_run.results)
    struck = next(row for row in rows if row["fault"] == "worker_kill")
    assert struck["points"] == "tool:pay[0]#1@after"
    assert struck["usage.prompt_tokens"] == "24000"
    assert struck["measures.selection_reached.n"] == "4"
    assert json.loads(struck["human.halts"]) == []
    assert export_csv(tmp_path).read_bytes() == first


def test_a_run_without_trials_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text("", encoding="utf-8")
    assert export_csv(tmp_path).read_text(encoding="utf-8").strip() == ""
