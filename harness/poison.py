"""A run that is poisoned never ends: what of it belongs to a verdict, and when its trial is over all the same."""

from __future__ import annotations

from kintsugi.faults.actions import Poison
from kintsugi.harness.history import of
from kintsugi.harness.session import Session
from kintsugi.scenarios.trial import Trial

__all__ = ["poisoned_runs", "spoilt"]

CRASHES_MIN = 4
"""So often the poisoned run has to have crashed a worker before the trial may be over."""
SETTLE_SECONDS = 1.0
"""How long the others must have ended, and crashes gone on, so that one that is begun again is seen."""
GIVEN_UP_SECONDS = 12.0
"""Without a request for so long the poisoned run is taken to be left alone."""


def poisoned_runs(trial: Trial) -> frozenset[str]:
    """The runs of a trial that crash every worker; the verdict is that of the others."""
    return frozenset(action.run for action in trial.actions if isinstance(action, Poison))


def spoilt(session: Session, others_ended_at: float, now: float) -> bool:
    """Whether a trial with a poisoned run is over, once the others have ended: nothing more is to be learnt from it.

    `others_ended_at` and `now` are event loop seconds.
    """
    if now - others_ended_at < SETTLE_SECONDS:
        return False
    crashes = len(of(session.history.events, "nemesis", "witnessed"))
    return crashes >= CRASHES_MIN or now - session.last_activity > GIVEN_UP_SECONDS
