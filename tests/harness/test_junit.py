from collections.abc import Callable
from xml.etree import ElementTree as ET

from kintsugi.harness.junit import to_xml
from kintsugi.harness.records import Storm, Times, TrialResult

MakeResult = Callable[..., TrialResult]


def test_each_trial_is_a_case_and_what_did_not_recover_a_failure(make_result: MakeResult) -> None:
    wild = Storm(50, 9.0, 80.0, 2.0, within_bounds=False)
    results = [
        make_result(id="a", times=Times(1.5)),
        make_result(id="b", verdict="correct_halt"),
        make_result(id="c", verdict="needless_halt"),
        make_result(id="d", verdict="corrupted", reason="pay ran twice"),
        make_result(id="e", verdict="lost"),
        make_result(id="f", verdict="failed"),
        make_result(id="g", verdict="harness_error", reason="a bug of ours"),
        make_result(id="h", injection="not_exposed", verdict=None, reason="never reached"),
        make_result(id="i", injection="not_exposed", verdict="corrupted"),
        make_result(id="j", storm=wild),
        make_result(id="k", sut="naive", chain="naive"),
    ]
    root = ET.fromstring(to_xml(results))  # noqa: S314 - what we have just written
    found = {case.get("name"): next((child.tag for child in case), "passed") for case in root.iter("testcase")}
    assert found == {
        **dict.fromkeys("abk", "passed"),
        **dict.fromkeys("cdefij", "failure"),
        "g": "error",
        "h": "skipped",
    }
    assert [suite.get("name") for suite in root] == ["minimal+optimized", "naive+naive"]
    totals = {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert totals == {"tests": "11", "failures": "6", "errors": "1", "skipped": "1"}
    case = root.find("./testsuite/testcase[@name='d']")
    assert case is not None
    assert case.get("classname") == "minimal+optimized.finance"
    failure = case.find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("corrupted", "pay ran twice")
    storm = root.find("./testsuite/testcase[@name='j']/failure")
    assert storm is not None
    assert storm.get("type") == "out_of_bounds"


def test_any_text_survives(make_result: MakeResult) -> None:
    reason = "said <b>\"no\" & 'yes'</b> ]]> \x1b[31m \x00 ﷐ é 🙂"
    root = ET.fromstring(to_xml([make_result(verdict="failed", reason=reason)]))  # noqa: S314 - as above
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == reason.replace("\x1b", "�").replace("\x00", "�")


def test_a_traceback_is_kept_and_its_last_line_is_the_message(make_result: MakeResult) -> None:
    reason = "Traceback (most recent call last):\n  File 'x'\nKeyError: 'pay'\n"
    root = ET.fromstring(to_xml([make_result(verdict="harness_error", reason=reason)]))  # noqa: S314 - as above
    error = root.find(".//error")
    assert error is not None
    assert (error.get("message"), error.text) == ("KeyError: 'pay'", reason)


def test_the_order_of_results_does_not_matter(make_result: MakeResult) -> None:
    results = [make_result(), make_result(sut="naive"), make_result()]
    assert to_xml(results) == to_xml(results[::-1])


def test_no_results_are_an_empty_file() -> None:
    assert ET.fromstring(to_xml([])).get("tests") == "0"  # noqa: S314 - as above
