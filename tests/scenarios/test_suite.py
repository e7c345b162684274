"""Suite files: the shipped ones are sound, and a bad one gives one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi.faults import FAULTS
from kintsugi.golden_workflows.chains import CHAINS
from kintsugi.golden_workflows.spec import FileProblem, load_workflows
from kintsugi.harness.adapters import ADAPTERS
from kintsugi.harness.adapters.adapter import OWN
from kintsugi.harness.mistakes import PROFILES
from kintsugi.scenarios.suite import load_suite, suite_names

GOOD = """
name = "mine"
version = 2
about = "Mine."
suts = ["minimal+optimized"]
clean_seeds = 1
deadline_seconds = 30

[timing]
per_class = 1

[[faults]]
fault = "worker_kill"
shared = 1

[[faults]]
fault = "loop"
model = 1
forms = ["repeats_3"]
"""

BAD = {
    "unknown key": ('about = "Mine."', 'abuot = "Mine."', "abuot: unknown key; did you mean 'about'?"),
    "unknown key of a share": ("shared = 1", "shares = 1", "faults[0].shares: unknown key; did you mean 'shared'?"),
    "unknown key of timing": ("per_class", "per_clas", "timing.per_clas: unknown key"),
    "missing key": ("version = 2\n", "", "version: this key is missing"),
    "missing fault": ('fault = "loop"\n', "", "faults[1].fault: this key is missing"),
    "unknown fault": (
        '"worker_kill"',
        '"worker_kil"',
        "faults[0].fault: no fault class is called 'worker_kil'; did you mean 'worker_kill'?",
    ),
    "unknown form": (
        '"repeats_3"',
        '"repeats_4"',
        "faults[1].forms: loop has no form 'repeats_4'; did you mean 'repeats_3'?",
    ),
    "form of another class": (
        '"repeats_3"',
        '"at_boundary"',
        "faults[1].forms: loop has no form 'at_boundary'; known: rambles_2, rambles_forever, repeats_3, repeats_",
    ),
    "a form that is drawn twice": (
        'fault = "loop"\nmodel = 1\nforms = ["repeats_3"]',
        'fault = "worker_kill"\nshared = 2\nforms = ["after_0ms"]',
        "faults[1].forms: worker_kill.after_0ms is drawn by an earlier share already",
    ),
    "unknown fault to time": (
        "per_class = 1",
        'per_class = 1\nfault = "worker_kills"',
        "timing.fault: no fault class is called 'worker_kills'; did you mean 'worker_kill'?",
    ),
    "text for a number": ("shared = 1", 'shared = "1"', "faults[0].shared: input should be a valid integer, found '1'"),
    "number for a text": ('name = "mine"', "name = 3", "name: input should be a valid string, found 3"),
    "text for a list": (
        '["repeats_3"]',
        '"repeats_3"',
        "faults[1].forms: input should be a valid list, found 'repeats_3'",
    ),
    "a share that is no table": ("[timing]\nper_class = 1", "timing = 3", "timing: input should be a valid dictionary"),
    "yes for a number": ("version = 2", "version = true", "version: input should be a valid integer, found True"),
    "a negative count": (
        "shared = 1",
        "shared = -1",
        "faults[0].shared: input should be greater than or equal to 0, found -1",
    ),
    "no time at all": (
        "deadline_seconds = 30",
        "deadline_seconds = 0",
        "deadline_seconds: input should be greater than 0, found 0",
    ),
    "no sut": ('["minimal+optimized"]', "[]", "suts: list should have at least 1 item"),
    "a sut without a chain": ('"minimal+optimized"', '"minimal"', "suts[0]: string should match pattern"),
    "not TOML": ("version = 2", "version = ", "not valid TOML: "),
}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_suite_file_of_ones_own(tmp_path: Path) -> None:
    suite = load_suite(str(written(tmp_path, GOOD)))
    assert (suite.name, suite.version, suite.suts, suite.deadline_seconds) == ("mine", 2, ["minimal+optimized"], 30)
    assert suite.timing is not None
    assert [share.fault for share in suite.faults] == ["worker_kill", "loop"]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_one_gives_one_line(case: str, tmp_path: Path) -> None:
    old, new, says = BAD[case]
    assert old in GOOD, "the case changes nothing"
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(FileProblem) as caught:
        load_suite(str(path))
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert load_suite(str(written(tmp_path, f"\ufeff{GOOD}"))).name == "mine"


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"nowhere.toml: there is no such suite file"):
        load_suite(str(tmp_path / "nowhere.toml"))
    with pytest.raises(FileProblem, match=r"mine.toml: can't be read: byte 8 is not UTF-8"):
        load_suite(str(written(tmp_path, b'name = "\xff"')))


def test_a_name_that_no_suite_has() -> None:
    with pytest.raises(FileProblem, match=r"no suite is called 'standart'; did you mean 'standard'\?"):
        load_suite("standart")


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_names_what_there_is(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.variance in PROFILES
    for sut in suite.suts:
        known, _, chain = sut.partition("+")
        assert chain in ([OWN] if ADAPTERS[known].own_chain else CHAINS)
    assert any(suite.wants(workflow) for workflow in load_workflows())
    assert {share.fault for share in suite.faults} <= set(FAULTS)


def test_patterns_choose_workflows(tmp_path: Path) -> None:
    text = GOOD.replace("clean_seeds = 1", 'clean_seeds = 1\nworkflows = ["finance/*", "data/dead_letter_replay"]')
    suite = load_suite(str(written(tmp_path, text)))
    assert suite.wants("finance/invoice_payment")
    assert suite.wants("data/dead_letter_replay")
    assert not suite.wants("data/partition_backfill")
    assert not suite.wants("marketing/finance")
