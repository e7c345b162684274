"""What the adapters say of their SUTs, held against each other."""

from __future__ import annotations

import pytest

from kintsugi.harness.adapters import ADAPTERS


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_told_by_its_name_and_says_how_its_sut_is_run(name: str) -> None:
    adapter = ADAPTERS[name]
    assert adapter.name == name
    assert adapter.about.endswith(".")
    assert bool(adapter.extra) == bool(adapter.profile), "an engine has a profile, our own SUTs have none"
    assert adapter.settings or name == "naive", "a reader is told the settings"


def test_a_script_takes_nothing_up_again() -> None:
    scripts = {name for name, adapter in ADAPTERS.items() if adapter.resumes == "script"}
    assert scripts == {name for name, adapter in ADAPTERS.items() if adapter.submit_first} == {"naive"}


def test_no_quick_start_has_a_fail_over_that_its_engine_lacks() -> None:
    for adapter in ADAPTERS.values():
        if adapter.profile == "default":
            assert not (adapter.fails_over and adapter.failed_over_by == "supervisor"), adapter.name
