"""Trial results as JUnit XML, which continuous-integration services show. Pure."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from kintsugi.harness.rates import recovered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kintsugi.harness.records import TrialResult

__all__ = ["to_xml"]

UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, even escaped."""


def to_xml(results: Iterable[TrialResult]) -> str:
    """A test suite for each SUT and chain, a test case for each trial, in the order of their ids.

    What did not recover is a failure that says why; what the harness could not judge, an error; and what was
    not scored (baseline failed, fault not exposed or not witnessed, and nothing wrong done), skipped.
    """
    ordered = sorted(results, key=lambda r: (r.key, r.id))
    root = Element("testsuites", name="kintsugi")
    for key, members in groupby(ordered, key=lambda r: r.key):
        suite = SubElement(root, "testsuite", name=_printable(key))
        for result in members:
            _case(suite, result)
        _count(suite)
    _count(root)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, result: TrialResult) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=_printable(f"{result.key}.{result.workflow_class}"),
        name=_printable(result.id),
        time=f"{result.times.wall:.3f}",
    )
    if result.verdict == "harness_error":
        _say(case, "error", "harness_error", result.reason)
    elif result.verdict is None:
        _say(case, "skipped", result.injection, f"{result.injection}: {result.reason}")
    elif not recovered(result):
        # A storm can end well and still have been stormier than it may.
        ended_well = result.verdict in {"correct", "correct_halt"}
        _say(case, "failure", "out_of_bounds" if ended_well else result.verdict, result.reason)


def _say(case: Element, tag: str, kind: str, reason: str) -> None:
    """The last line is the message, because that is where a traceback says what it is about."""
    text = _printable(reason)
    lines = text.strip().splitlines()
    found = SubElement(case, tag, type=kind, message=lines[-1] if lines else kind)
    if len(lines) > 1:
        found.text = text


def _count(element: Element) -> None:
    """The totals that readers expect on suites, by what stands in them."""
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', 0)) for case in cases):.3f}")


def _printable(text: str) -> str:
    """The text without what XML can't hold."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
