"""Changes of the world's records while a run waits."""

from __future__ import annotations

from kintsugi.harness.deeds.blow import Blow

__all__ = ["drift"]


async def drift(blow: Blow) -> None:
    """Change a record as the trial's drift declares."""
    drift = blow.session.workflow.drifts[blow.session.trial.drift]
    records = blow.run.records
    before = records.version(drift.record)
    after = records.change(drift.record, drift.set)
    blow.session.history.add("world", "drift", run=blow.run.id, record=drift.record, set=drift.set, version=after)
    blow.armed.witness(f"{drift.record} moved from version {before} to {after}", record=drift.record)
