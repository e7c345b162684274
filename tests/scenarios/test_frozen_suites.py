"""The suites that results are compared over are frozen: whatever is added to a fault class, they draw the same."""

from __future__ import annotations

import hashlib

import pytest

from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.scenarios.planner import plan
from kintsugi.scenarios.suite import load_suite

FROZEN = {
    "standard": (2308, "fbfb6549730c92dd"),
    "engines": (1728, "4fab49da7110fb5d"),
    "engines-full": (9180, "c77cf915f3abea90"),
    "timing": (400, "f335fc9989d3efa0"),
    "exhaustive": (32620, "c21e7ff8a171e47f"),
}
"""How many trials each plans for seed 7, and a digest of them, ids, schedules, copies and weights.

Where one changes on purpose, as with a new workflow, its version in the suite file is raised with it.
"""


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_suite_plans_what_it_did(name: str) -> None:
    trials = plan(load_suite(name), load_workflows(), 7).trials
    text = "\n".join(f"{t.id} {t.variance} {t.copies} {t.nodes} {t.weight!r}" for t in trials)
    assert (len(trials), hashlib.sha256(text.encode()).hexdigest()[:16]) == FROZEN[name]


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_suite_names_its_forms(name: str) -> None:
    """A share that names none draws from every form of its class, and so from those to come."""
    assert [share.fault for share in load_suite(name).faults if not share.forms] == []
