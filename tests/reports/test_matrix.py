from __future__ import annotations

import pytest

from kintsugi.reports.matrix import matrices
from kintsugi.reports.tables import Sut


@pytest.mark.parametrize(("planned", "shown"), [({}, "n/a"), ({"loop": {"run": 3, "witnessed": 0}}, "–")])
def test_a_fault_that_applied_and_was_never_witnessed_is_not_shown_as_not_applicable(
    planned: dict[str, object], shown: str
) -> None:
    cells = {"finance": {"exposure": planned}}
    sut = Sut("minimal", "optimized", {"classes": cells, "not_applicable": {"loop": {"finance": 1}}})
    (grid,) = matrices([sut], ["finance"], ["loop"], [], {})
    assert grid.groups[0].rows[0].cells[0].main == shown
