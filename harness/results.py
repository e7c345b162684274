"""A results folder: what a run writes, so that it can be resumed, judged again, and reported.

run.json            what was asked for: suite, seed, SUTs, filters
trials.jsonl        one verdict a line, flushed as it happens
histories/          one JSONL for each trial
suts.json           how each SUT was run: settings, versions, its share of a server; or why it could not be
spend.jsonl         what was paid for a real model: the worst of each call before it, and what it came to
summary.json, scorecard.html, junit.xml, summary.md, environment.json
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kintsugi.harness.history import Event, Unwritable, append_line, cut_torn_line, read_history
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.trial import Trial

__all__ = ["FolderProblem", "Results", "write_atomically"]


ROOM_BYTES_MIN = 16 * 2**20
"""What the trials that run at once may need at any moment, their SUTs' state included."""


class FolderProblem(ValueError):
    """A results folder can't be used as asked; the message is one line that says what to do."""


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Raises Unwritable."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise Unwritable(f"{path}: can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


class Results:
    """A results folder, open for one run at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    # --- reading --------------------------------------------------------------------------------------------

    @classmethod
    def existing(cls, folder: Path) -> Results:
        """The results of an earlier run. Raises FolderProblem where there are none."""
        results = cls(folder)
        if not (folder / "run.json").is_file():
            raise FolderProblem(f"{folder}: holds no results (no run.json); give the folder that `kintsugi run` wrote")
        return results

    def run(self) -> dict[str, Any]:
        """What was asked for."""
        return self._json("run.json")

    def summary(self) -> dict[str, Any]:
        """The summary. Raises FolderProblem where the run has not come to its end."""
        if not (self.folder / "summary.json").is_file():
            raise FolderProblem(
                f"{self.folder}: has no summary.json yet; finish it with `kintsugi run --resume {self.folder}`"
            )
        return self._json("summary.json")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FolderProblem(f"{self.folder / name}: can't be read: {error}") from error
        if not isinstance(value, dict):
            raise FolderProblem(f"{self.folder / name}: is no JSON object")
        return value

    def trials(self) -> dict[str, TrialResult]:
        """Every trial that was judged, by its id. A last line that was cut short is left out."""
        found: dict[str, TrialResult] = {}
        path = self.folder / "trials.jsonl"
        if not path.is_file():
            return found
        # Split at line feeds only: a string in JSON may hold other characters that end a line of text.
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, start=1):
            try:
                result = TrialResult.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise FolderProblem(f"{path}:{number}: is no trial result: {error}") from error
            found[result.id] = result
        return found

    def left(self, trials: Iterable[Trial], known: Mapping[str, TrialResult] | None = None) -> list[Trial]:
        """Those of some trials that have no result yet, or only one that says that the harness broke.

        With a baseline, what was left out for it is left as well. `known` is `trials()`, where that is at hand.
        """
        trials, known = list(trials), self.trials() if known is None else known
        open_ids = {t.id for t in trials if t.id not in known or known[t.id].verdict == "harness_error"}
        baselines = {t.cell for t in trials if t.kind == "baseline" and t.id in open_ids}
        return [
            t
            for t in trials
            if t.id in open_ids or (t.cell in baselines and known[t.id].injection == "baseline_failed")
        ]

    def suts(self) -> dict[str, Any]:
        """How each SUT was run, by its name; empty where that is not known yet."""
        return self._json("suts.json") if (self.folder / "suts.json").is_file() else {}

    def history_path(self, trial_id: str) -> Path:
        """Where the history of a trial is."""
        return self.folder / "histories" / f"{hashlib.sha256(trial_id.encode()).hexdigest()[:16]}.jsonl"

    def history(self, trial_id: str) -> list[Event]:
        """The events of a trial. Raises FolderProblem where they are not there, or are no events."""
        path = self.history_path(trial_id)
        if not path.is_file():
            raise FolderProblem(f"{path}: the history of {trial_id} is missing")
        try:
            return read_history(path)
        except ValueError as error:
            raise FolderProblem(f"{path}: can't be read: {error}") from error

    # --- writing --------------------------------------------------------------------------------------------

    def begin(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Take the folder for this run: a new one, or (`resume`) one that was begun with the same request.

        Raises FolderProblem where it is in use, holds other results, or was begun with another request.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise FolderProblem(
                f"{self.folder}: can't be written: {error.strerror}; choose another with --out"
            ) from error
        try:
            self._begin(asked, resume=resume)
        except BaseException as error:
            self._give_lock_back()
            if isinstance(error, OSError) and not isinstance(error, Unwritable):
                raise FolderProblem(f"{self.folder}: can't be written: {error.strerror}") from error
            raise

    def _begin(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        begun = self.folder / "run.json"
        if begun.is_file() and not resume:
            raise FolderProblem(
                f"{self.folder}: holds results already; go on with --resume, or choose another with --out"
            )
        if resume and not begun.is_file():
            raise FolderProblem(f"{self.folder}: holds no run to resume")
        if resume:
            earlier = self.run()
            for key in asked:
                if earlier.get(key) != json.loads(json.dumps(asked[key])):
                    raise FolderProblem(
                        f"{self.folder}: was begun with {key} {earlier.get(key)!r}, not {asked[key]!r}; "
                        "resume it as it was begun"
                    )
            cut_torn_line(self.folder / "trials.jsonl")
        else:
            write_atomically(begun, json.dumps(dict(asked), indent=1) + "\n")
        self.must_have_room()
        (self.folder / "histories").mkdir(exist_ok=True)
        shutil.rmtree(self.state_folder, ignore_errors=True)
        self.state_folder.mkdir()

    def _take_lock(self) -> None:
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise FolderProblem(
                f"{self.folder}: another run is writing there; wait for it or choose another with --out"
            ) from None
        self._lock = lock

    def _give_lock_back(self) -> None:
        if self._lock is not None:
            (self.folder / ".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @property
    def state_folder(self) -> Path:
        """Where the trials that are under way keep their state; gone at the end.

        Absolute, since workers have a working directory of their own.
        """
        return self.folder.absolute() / ".state"

    def append(self, result: TrialResult) -> None:
        """Add a verdict; it has been handed to the operating system when this returns. Raises Unwritable."""
        append_line(self.folder / "trials.jsonl", result.to_json())

    def note_suts(self, how: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep how each SUT was run this time; what an earlier part of the run used of its server is added to."""
        known = self.suts()
        for name, new in how.items():
            earlier = known.get(name, {}).get("server", {})
            server = {key: value + earlier.get(key, 0) for key, value in new.get("server", {}).items()}
            known[name] = {**new, "server": server or earlier}
        write_atomically(self.folder / "suts.json", json.dumps(known, indent=1) + "\n")

    def must_have_room(self) -> None:
        """Raise Unwritable where the disk is all but full: a SUT that fails on it then would be charged with it."""
        free = shutil.disk_usage(self.folder).free
        if free < ROOM_BYTES_MIN:
            raise Unwritable(
                f"{self.folder}: only {free // 2**20} MiB are left on its disk; make room and go on with --resume"
            )

    def end(self) -> None:
        """Leave nothing temporary behind and give the folder free; does nothing to a folder that was never taken."""
        if self._lock is not None:
            shutil.rmtree(self.state_folder, ignore_errors=True)
            self._give_lock_back()
