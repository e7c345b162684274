"""What docs/adding-a-fault.md shows works as it stands: its class and its deed, on a real worker."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from kintsugi.faults import FAULTS, actions
from kintsugi.faults.fault import FaultClass
from kintsugi.golden_workflows.spec import load_workflows
from kintsugi.harness.deeds import DEEDS
from kintsugi.harness.deeds.blow import Blow, Deed
from kintsugi.harness.history import of
from kintsugi.harness.results import Results
from kintsugi.harness.suite_run import SuiteRun
from kintsugi.scenarios.planner import candidates
from kintsugi.scenarios.trial import Strike, Trial

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-fault.md"


@dataclass(frozen=True)
class Delay:
    """The action that the page's fault is made of."""

    seconds: float


@pytest.mark.process
def test_the_page_s_fault_is_struck_and_witnessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, deed = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.setattr(actions, "Delay", Delay, raising=False)
    names: dict[str, Any] = {"asyncio": asyncio, "Blow": Blow}
    exec(module, names)  # noqa: S102 - the page is ours
    exec(deed, names)  # noqa: S102
    fault: FaultClass = names["FAULT"]
    monkeypatch.setitem(cast("dict[str, FaultClass]", FAULTS), fault.name, fault)
    monkeypatch.setitem(cast("dict[type[Any], Deed]", DEEDS), Delay, names["delay"])
    workflows = load_workflows()
    site = candidates(workflows["finance/invoice_payment"], "optimized", fault.name)[0].site
    strike = Strike(fault.name, fault.forms[0].name, site.point)
    trial = Trial("fault", "minimal", "optimized", "finance/invoice_payment", (strike,), 7)
    baseline = Trial("baseline", "minimal", "optimized", "finance/invoice_payment", seed=7)

    results = Results(tmp_path / "results")
    results.begin({}, resume=False)
    asyncio.run(SuiteRun(workflows, results, 2, 1, 60.0, 5.0, lambda _: None).run([baseline, trial]))
    results.end()

    done = results.trials()[trial.id]
    assert (done.injection, done.verdict) == ("witnessed", "correct"), done.reason
    (seen,) = of(results.history(trial.id), "nemesis", "witnessed")
    assert seen["evidence"] == "held for 1 s"
