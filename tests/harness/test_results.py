"""A results folder keeps what was judged, through crashes, and belongs to one run at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from kintsugi.faults.points import Point
from kintsugi.harness.history import Unwritable
from kintsugi.harness.results import ROOM_BYTES_MIN, FolderProblem, Results, write_atomically
from kintsugi.scenarios.trial import Strike, Trial, TrialKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from kintsugi.harness.records import TrialResult

    MakeResult = Callable[..., TrialResult]

KILL = Strike("worker_kill", "at_boundary", Point.parse("tool:order[0]#1@before"))
KINDS: list[tuple[TrialKind, tuple[Strike, ...]]] = [("baseline", ()), ("fault", (KILL,)), ("clean", ())]
ASKED = {"suite": "standard", "seed": 7, "suts": ("minimal+optimized",), "planned": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "run"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def begun(folder: Path) -> Results:
    """A folder that a run has taken."""
    results = Results(folder)
    results.begin(ASKED, resume=False)
    return results


# --- reading ------------------------------------------------------------------------------------------------


def test_a_folder_without_results(folder: Path) -> None:
    with pytest.raises(FolderProblem, match="run: holds no results"):
        Results.existing(folder)


def test_what_was_asked_for_is_kept(begun: Results, folder: Path) -> None:
    assert Results.existing(folder).run() == {**ASKED, "suts": ["minimal+optimized"]}
    assert begun.trials() == {}


def test_a_run_that_has_not_come_to_its_end_has_no_summary(begun: Results, folder: Path) -> None:
    with pytest.raises(FolderProblem, match=r"no summary.json yet; finish it with `kintsugi run --resume "):
        begun.summary()
    (folder / "summary.json").write_text('{"schema": 1}')
    assert begun.summary() == {"schema": 1}


@pytest.mark.parametrize("text", ["", "{", "\xff"])
def test_a_file_that_is_no_json_is_named(text: str, begun: Results, folder: Path) -> None:
    (folder / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FolderProblem, match=r"run.json: can't be read: "):
        begun.run()


def test_a_file_that_holds_no_object_is_named(begun: Results, folder: Path) -> None:
    (folder / "run.json").write_text("[]")
    with pytest.raises(FolderProblem, match=r"run.json: is no JSON object"):
        begun.run()


def test_verdicts_come_back_as_they_were(begun: Results, make_result: MakeResult) -> None:
    made = [make_result(), make_result(verdict="lost", reason="ended with “nothing” – ✓"), make_result(kind="clean")]
    for result in made:
        begun.append(result)
    assert list(begun.trials().values()) == made


def test_the_last_verdict_on_a_trial_counts(begun: Results, make_result: MakeResult) -> None:
    begun.append(make_result(id="t", verdict="lost"))
    begun.append(make_result(id="t", verdict="correct"))
    assert begun.trials()["t"].verdict == "correct"


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x1c", "\x0b", "\r", "\n", "\r\n"])
def test_a_line_break_within_a_text_once_hid_every_verdict_after_it(
    mark: str, begun: Results, folder: Path, make_result: MakeResult
) -> None:
    made = [make_result(reason=f"the model said{mark}nothing"), make_result()]
    for result in made:
        begun.append(result)
    assert list(begun.trials().values()) == made
    # The same, where the text stands in the file as it is.
    lines = [json.dumps(result.to_json(), ensure_ascii=False) for result in made]
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert list(begun.trials().values()) == made


@pytest.mark.parametrize(("verdict", "again"), [("lost", False), ("harness_error", True)])
def test_with_a_clean_run_that_is_repeated_so_is_what_was_held_against_it(
    begun: Results, make_result: MakeResult, verdict: str, again: bool
) -> None:
    trials = [
        Trial(kind, sut, "naive", "finance/invoice_payment", strikes)
        for sut in ("minimal", "naive")
        for kind, strikes in KINDS
    ]
    baseline, fault, clean = trials[:3]
    begun.append(make_result(id=baseline.id, kind="baseline", verdict=verdict))
    begun.append(make_result(id=fault.id, injection="baseline_failed", verdict=None))
    begun.append(make_result(id=clean.id, kind="clean"))
    assert begun.left(trials) == ([baseline, fault] if again else []) + trials[3:]


def test_a_half_written_last_line_is_left_out(begun: Results, folder: Path, make_result: MakeResult) -> None:
    whole, half = make_result(), make_result()
    begun.append(whole)
    begun.append(half)
    path = folder / "trials.jsonl"
    data = path.read_bytes()
    for size in range(data.index(b"\n") + 1, len(data)):
        path.write_bytes(data[:size])
        assert begun.trials() == {whole.id: whole}


@pytest.mark.parametrize("line", ["not json", "{}", "[]", '{"id": "t"}', "null"])
def test_a_line_that_is_no_verdict_is_named(line: str, begun: Results, folder: Path, make_result: MakeResult) -> None:
    begun.append(make_result())
    with (folder / "trials.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(FolderProblem, match=r"trials.jsonl:2: is no trial result: "):
        begun.trials()


def test_histories_have_their_places(begun: Results) -> None:
    path = begun.history_path("minimal+optimized~a/b~clean~s7")
    assert path == begun.history_path("minimal+optimized~a/b~clean~s7")
    assert path != begun.history_path("minimal+optimized~a/b~clean~s8")
    with pytest.raises(FolderProblem, match="the history of nothing is missing"):
        begun.history("nothing")
    path.write_text('{"t": 1.0, "who": "runner", "what": "closed"}\n{"t": 2.')
    assert [event["what"] for event in begun.history("minimal+optimized~a/b~clean~s7")] == ["closed"]
    path.write_text('{"t": 1.0\n{"t": 2.0}\n')
    with pytest.raises(FolderProblem, match="can't be read"):
        begun.history("minimal+optimized~a/b~clean~s7")


# --- atomic writes ------------------------------------------------------------------------------------------


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, "first ✓")
    assert path.read_text(encoding="utf-8") == "first ✓"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unwritable, match=r"summary.json: can't be written: No space left on device"):
        write_atomically(path, "second")
    assert path.read_text(encoding="utf-8") == "first ✓"
    assert names(tmp_path) == ["summary.json"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="No such file or directory"):
        write_atomically(tmp_path / "nowhere" / "summary.json", "x")


# --- beginning, resuming ------------------------------------------------------------------------------------


def test_a_folder_that_holds_results_is_not_begun_again(begun: Results, folder: Path) -> None:
    begun.end()
    with pytest.raises(FolderProblem, match="holds results already; go on with --resume"):
        Results(folder).begin(ASKED, resume=False)


def test_a_run_is_resumed_as_it_was_begun(begun: Results, folder: Path, make_result: MakeResult) -> None:
    kept = make_result()
    begun.append(kept)
    begun.end()
    again = Results(folder)
    again.begin(ASKED, resume=True)
    assert again.trials() == {kept.id: kept}


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 8), ("suite", "smoke"), ("suts", ["naive+naive"]), ("faults", ["loop"])]
)
def test_a_run_is_not_resumed_with_another_request(key: str, value: object, begun: Results, folder: Path) -> None:
    begun.end()
    with pytest.raises(FolderProblem, match=f"was begun with {key} .*; resume it as it was begun"):
        Results(folder).begin({**ASKED, key: value}, resume=True)
    assert Results(folder).run()["seed"] == 7


def test_there_has_to_be_something_to_resume(folder: Path) -> None:
    with pytest.raises(FolderProblem, match="holds no run to resume"):
        Results(folder).begin(ASKED, resume=True)


def test_resuming_drops_half_a_line_so_that_the_next_one_is_whole(
    begun: Results, folder: Path, make_result: MakeResult
) -> None:
    first, lost, third = make_result(), make_result(), make_result()
    begun.append(first)
    begun.append(lost)
    begun.end()
    path = folder / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = Results(folder)
    again.begin(ASKED, resume=True)
    again.append(third)
    assert list(again.trials().values()) == [first, third]


@pytest.mark.parametrize("data", [b"", b"{", b'{"id": "t"'])
def test_a_file_with_no_whole_line_is_emptied(data: bytes, begun: Results, folder: Path) -> None:
    begun.end()
    (folder / "trials.jsonl").write_bytes(data)
    Results(folder).begin(ASKED, resume=True)
    assert (folder / "trials.jsonl").read_bytes() == b""


def test_half_a_line_is_cut_off_and_not_all_written_anew(begun: Results, folder: Path, make_result: MakeResult) -> None:
    # Written anew, a crash on the way would once have lost every verdict.
    begun.append(make_result())
    begun.end()
    path = folder / "trials.jsonl"
    whole, inode = path.read_bytes(), path.stat().st_ino
    path.write_bytes(whole + b'{"id"')
    Results(folder).begin(ASKED, resume=True)
    assert (path.read_bytes(), path.stat().st_ino) == (whole, inode)


def test_a_folder_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderProblem, match="can't be written: Not a directory; choose another with --out"):
        Results(tmp_path / "file" / "run").begin(ASKED, resume=False)


def test_what_gets_in_the_way_half_way_is_told_and_the_folder_is_free_again(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "histories").write_text("in the way")
    with pytest.raises(FolderProblem, match="can't be written: File exists"):
        Results(folder).begin(ASKED, resume=False)
    (folder / "histories").unlink()
    Results(folder).begin(ASKED, resume=True)


@pytest.mark.parametrize(("free", "enough"), [(ROOM_BYTES_MIN, True), (ROOM_BYTES_MIN - 1, False)])
def test_a_disk_that_is_all_but_full_is_no_place_to_run(
    free: int, enough: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    if enough:
        Results(folder).begin(ASKED, resume=False)
        return
    with pytest.raises(Unwritable, match="MiB are left on its disk; make room and go on with --resume"):
        Results(folder).begin(ASKED, resume=False)


# --- one run at a time --------------------------------------------------------------------------------------


def test_a_folder_is_taken_by_one_run_at_a_time(begun: Results, folder: Path) -> None:
    for resume in (True, False):
        with pytest.raises(FolderProblem, match="another run is writing there"):
            Results(folder).begin(ASKED, resume=resume)
    begun.end()
    Results(folder).begin(ASKED, resume=True)


def test_a_run_that_was_turned_away_once_cleared_up_after_the_one_that_was_not(begun: Results, folder: Path) -> None:
    (begun.state_folder / "t1").mkdir()
    other = Results(folder)
    with pytest.raises(FolderProblem):
        other.begin(ASKED, resume=True)
    other.end()
    assert (begun.state_folder / "t1").is_dir()
    with pytest.raises(FolderProblem, match="another run is writing there"):
        Results(folder).begin(ASKED, resume=True)


def test_a_begin_that_is_refused_once_kept_the_folder_locked(begun: Results, folder: Path) -> None:
    begun.end()
    before = names(folder)
    refused = Results(folder)
    for asked, resume in ((ASKED, False), ({**ASKED, "seed": 8}, True)):
        with pytest.raises(FolderProblem):
            refused.begin(asked, resume=resume)
    assert names(folder) == before
    refused.begin(ASKED, resume=True)


def test_nothing_temporary_is_left_at_the_end(begun: Results, folder: Path) -> None:
    (begun.state_folder / "t1").mkdir()
    begun.end()
    begun.end()
    assert names(folder) == ["histories", "run.json"]


def test_what_a_crash_left_in_the_state_folder_is_gone_at_the_next_begin(begun: Results, folder: Path) -> None:
    (begun.state_folder / "t1").mkdir()
    begun._give_lock_back()  # As the kernel does where the process dies.
    again = Results(folder)
    again.begin(ASKED, resume=True)
    assert list(again.state_folder.iterdir()) == []


def test_workers_are_given_an_absolute_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Results(Path("run")).state_folder == tmp_path / "run" / ".state"
