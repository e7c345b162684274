"""What docs/adding-a-workflow.md shows is a workflow that works, and its table is complete."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kintsugi.golden_workflows.forms import Step
from kintsugi.golden_workflows.reference import check_truth
from kintsugi.golden_workflows.spec import load_workflow

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-workflow.md").read_text(encoding="utf-8")


def test_the_example_is_proven_and_a_chain_reaches_its_truth(tmp_path: Path, run_chain: Callable[..., Any]) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 1
    path = tmp_path / "finance" / "goodwill_refund.toml"
    path.parent.mkdir()
    path.write_text(examples[0], encoding="utf-8")
    workflow = load_workflow(path)
    check_truth(workflow)
    assert run_chain(workflow).effects == workflow.truth.effects
    for name, drift in workflow.drifts.items():
        assert run_chain(workflow, name).effects == drift.effects


def test_every_key_of_a_step_is_mentioned() -> None:
    assert [key for key in Step.model_fields if not re.search(rf"\b{key}\b", PAGE)] == []
