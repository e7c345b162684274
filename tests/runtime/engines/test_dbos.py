"""DBOS for real: workers on SQLite and PostgreSQL, and the faults that an engine has to deal with."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from kintsugi.faults.points import Point
from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.adapters.dbos import found_sqlite
from kintsugi.harness.history import of
from kintsugi.harness.records import TrialResult
from kintsugi.harness.results import Results
from kintsugi.runtime.rules import Budget
from kintsugi.scenarios.trial import Strike, Trial

pytestmark = pytest.mark.engines

WORKFLOW = "finance/invoice_payment"
NEEDS_DBOS = "dbos is not installed; pip install 'kintsugi-bench[dbos]'"


def struck(sut: str, fault: str, form: str, point: str, nodes: int = 1) -> Trial:
    return Trial("fault", sut, "naive", WORKFLOW, (Strike(fault, form, Point.parse(point)),), seed=7, nodes=nodes)


CLEAN = {sut: Trial("baseline", sut, "naive", WORKFLOW, seed=7) for sut in ("dbos", "dbos_default", "dbos_postgres")}
KILLED = struck("dbos", "worker_kill", "at_boundary", "tool:pay[0]#1@committed")
OPAQUE = struck("dbos", "worker_kill", "at_boundary", "tool:tell[0]#1@committed")
APPROVED_LATE = struck("dbos", "approval_delay", "late_after_restart", "human:pay[0]#1@waiting")
NODE_LOST = struck("dbos", "node_loss", "process", "tool:order[0]#1@before", nodes=2)
TRIALS = [*CLEAN.values(), KILLED, OPAQUE, APPROVED_LATE, NODE_LOST]


def outcome(results: Results, trial: Trial) -> TrialResult:
    found: Mapping[str, TrialResult] = results.trials()
    return found[trial.id]


@pytest.mark.process
@pytest.mark.parametrize("sut", CLEAN)
def test_a_clean_run_is_correct(results: Results, sut: str) -> None:
    result = outcome(results, CLEAN[sut])
    assert (result.verdict, result.reason) == ("correct", "every expected effect, once")


@pytest.mark.process
def test_a_payment_is_made_once_though_its_worker_was_killed_before_it_heard(results: Results) -> None:
    result = outcome(results, KILLED)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert result.generations == 2


@pytest.mark.process
def test_an_opaque_call_is_not_made_again_by_itself(results: Results) -> None:
    result = outcome(results, OPAQUE)
    assert (result.injection, result.verdict) == ("witnessed", "correct_halt")
    sent = [event for event in of(results.history(OPAQUE.id), "world", "request") if event["step"] == "tell"]
    assert len(sent) == 1


@pytest.mark.process
def test_an_approval_that_comes_after_a_restart_is_found(results: Results) -> None:
    result = outcome(results, APPROVED_LATE)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    assert (result.generations, result.human.checkpoints, result.human.re_asked) == (2, 1, 0)


@pytest.mark.process
def test_another_node_resumes_what_a_lost_one_had(results: Results) -> None:
    result = outcome(results, NODE_LOST)
    assert (result.injection, result.verdict) == ("witnessed", "correct")
    by = {event["generation"] for event in of(results.history(NODE_LOST.id), "world", "effect")}
    assert len(by) == 1


@pytest.mark.process
def test_nothing_of_it_is_left(results: Results) -> None:
    standing = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            standing.append(str((process / "cwd").readlink()))
    assert [folder for folder in standing if folder.startswith(str(results.state_folder))] == []
    assert not results.state_folder.exists()


def test_a_run_and_a_decision_that_come_twice_count_once(tmp_path: Path) -> None:
    dbos = pytest.importorskip("dbos", reason=NEEDS_DBOS)
    from kintsugi.runtime.engines.dbos import TUNED

    TUNED.provision(str(tmp_path))
    assert TUNED.status(str(tmp_path), "r0") == {"state": "unknown"}
    decision = {"decision_id": "d0", "decision": "approve"}
    with pytest.raises(dbos.error.DBOSNonExistentWorkflowError):
        TUNED.decide(str(tmp_path), "r0", "q0", decision)
    for _ in range(2):
        TUNED.submit(str(tmp_path), "r0", {"chain": "naive", "plan": {}})
        TUNED.decide(str(tmp_path), "r0", "q0", decision)
    TUNED.decide(str(tmp_path), "r0", "q0", {**decision, "decision_id": "d1"})
    assert TUNED.status(str(tmp_path), "r0") == {"state": "running"}
    with contextlib.closing(sqlite3.connect(tmp_path / "dbos.sqlite")) as connection:
        count = "SELECT (SELECT count(*) FROM workflow_status), (SELECT count(*) FROM notifications)"
        assert connection.execute(count).fetchone() == (1, 2)


def test_a_tuned_database_lets_readers_and_a_writer_work_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("dbos", reason=NEEDS_DBOS)
    from kintsugi.runtime.engines.dbos import DEFAULT, TUNED

    modes = []
    for side, folder in ((TUNED, tmp_path / "tuned"), (DEFAULT, tmp_path / "default")):
        side.provision(str(folder))
        with contextlib.closing(sqlite3.connect(folder / "dbos.sqlite")) as connection:
            modes.append(connection.execute("PRAGMA journal_mode").fetchone()[0])
    assert modes == ["wal", "delete"]


@pytest.mark.parametrize(
    ("retry", "options"),
    [
        (None, {}),
        (Budget(), {"max_attempts": 4, "interval_seconds": 0.05, "backoff_rate": 2.0}),
        (Budget(9, 0.05, 2.0), {"max_attempts": 9, "interval_seconds": 0.5, "backoff_rate": 1.0}),
        (Budget(1, 0.05, 2.0), {"max_attempts": 1, "interval_seconds": 0.05, "backoff_rate": 2.0}),
    ],
)
def test_a_budget_is_given_to_dbos_in_its_own_words(retry: Budget | None, options: dict[str, Any]) -> None:
    pytest.importorskip("dbos", reason=NEEDS_DBOS)
    from kintsugi.runtime.engines.dbos import step_options

    allowed = {"retries_allowed": True} if options else {}
    assert step_options("pay", retry) == {"name": "pay", **allowed, **options}


def test_the_settings_that_a_reader_is_shown_are_those_in_force() -> None:
    pytest.importorskip("dbos", reason=NEEDS_DBOS)
    from kintsugi.runtime.engines import dbos
    from kintsugi.runtime.engines.supervisor import DETECTION_SECONDS

    tuned, postgres = ADAPTERS["dbos"].settings, ADAPTERS["dbos_postgres"].settings
    assert tuned["queue polling_interval_sec"] == f"{dbos.POLL_SECONDS:g}"
    assert tuned["notification_listener_polling_interval_sec"] == f"{dbos.POLL_SECONDS:g}"
    assert tuned["recv timeout_seconds"].startswith(f"{dbos.PERSON_SECONDS / 86400:g} days")
    assert f"within {DETECTION_SECONDS:g} s" in tuned["lost workers"]
    assert postgres["sys_db_idle_transaction_timeout_sec"] == f"{DETECTION_SECONDS:g}"


@pytest.mark.parametrize("sut", ["dbos", "dbos_default", "dbos_postgres"])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, sut: str) -> None:
    there = metadata.version

    def missing(name: str) -> str:
        if name == "dbos":
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(Unavailable) as caught:
        ADAPTERS[sut].must_be_there()
    assert str(caught.value).startswith(f"{sut}: dbos is not installed; pip install 'kintsugi-bench[dbos]'")


def test_a_sqlite_that_is_too_old_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.40.1")
    monkeypatch.setitem(sys.modules, "pysqlite3", None)
    with pytest.raises(Unavailable) as caught:
        found_sqlite()
    assert str(caught.value) == (
        "dbos: Python's SQLite is version 3.40.1, 3.42 is needed; "
        "pip install 'kintsugi-bench[dbos]' brings one on x86_64 Linux"
    )
