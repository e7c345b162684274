from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.reports import charts
from kintsugi.reports.scorecard import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reports.conftest import Run

    from kintsugi.harness.records import TrialResult

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/p.png>&amp;"
SECTIONS = ("answers", "metrics", "matrix", "time", "cost", "broke", "apart", "method")
VOID = {"meta", "link", "wbr", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Every element with its attributes, every text, and whatever was not closed as it was opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def plain_text(html: str) -> str:
    return " ".join(" ".join(Page(html).texts).split())


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_figure", lambda *_: "<svg></svg>")


def test_every_section_is_there_and_every_element_is_closed(page: str) -> None:
    found = Page(page)
    assert [attributes["id"] for attributes in found.all("section")] == list(SECTIONS)
    assert not found.problems
    assert not found.open
    links = {str(attributes["href"]).removeprefix("#") for attributes in found.all("a")}
    assert links <= {str(attributes.get("id")) for _, attributes in found.elements}


def test_ids_are_unique_also_within_the_figures(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(page).elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    found = Page(page)
    for tag, attributes in found.elements:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert name not in attributes
        for name in ("href", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:,"))
    assert not re.search(r"https?:|@import|url\((?!#)", page)


def test_the_same_run_gives_the_same_bytes_in_any_order_of_trials(run: Run, page: str) -> None:
    backwards = list(reversed(run.results))
    assert render(run.summary, backwards, run.environment, run.fault_texts, "results/standard-7") == page


def test_text_from_outside_is_shown_and_never_obeyed(
    make_trial: Callable[..., TrialResult], make_run: Callable[..., Run]
) -> None:
    names = {"sut": HOSTILE, "chain": "own", "workflow": f"{HOSTILE}/w", "workflow_class": HOSTILE}
    trial = make_trial(**names, fault=HOSTILE, form=HOSTILE, id=HOSTILE, verdict="corrupted", reason=HOSTILE)
    run = make_run([trial])
    run.summary["suite"] = HOSTILE
    run.summary["assumptions"]["token_source"] = HOSTILE
    how = {"about": HOSTILE, "profile": HOSTILE, "versions": HOSTILE, "settings": {HOSTILE: HOSTILE}}
    environment = {HOSTILE: HOSTILE, "suts": {HOSTILE: how, "other": HOSTILE}}
    run.summary["gaps"] = {f"{HOSTILE}+own": HOSTILE}
    texts = {HOSTILE: {"what": HOSTILE, "witness": HOSTILE, "layer": HOSTILE}}
    html = render(run.summary, [trial], environment, texts, HOSTILE)
    found = Page(html)
    assert not found.all("script")
    assert not found.all("img")
    assert not found.problems
    assert HOSTILE in "".join(found.texts)


def test_how_each_runtime_was_run_is_shown(run: Run) -> None:
    engine = {
        "about": "An engine.",
        "profile": "tuned",
        "resumes": "supervisor",
        "failed_over_by": "supervisor",
        "versions": "engine 1.2",
        "settings": {"durability": "sync"},
        "server": {"cpu_seconds": 5.0, "runs": 10},
    }
    environment = {**run.environment, "suts": {**run.environment["suts"], "engine": engine}}
    text = plain_text(render(run.summary, run.results, environment, run.fault_texts))
    for said in (
        "tuned: as an engineer",
        "a plain supervisor has its runs taken up",
        "engine 1.2",
        "durability",
        "0.50 s of CPU",
    ):
        assert said in text
    assert "it begins from the top" in text


def test_what_could_not_be_run_is_shown_as_a_gap(run: Run) -> None:
    summary = {**run.summary, "gaps": {"restate+naive": "restate: restate-server is not there; make engines"}}
    text = plain_text(render(summary, run.results, run.environment, run.fault_texts))
    assert "restate-server is not there; make engines" in text
    assert "Not measured: it could not be run here." in text
    assert text.count("restate+naive") > 2, "it has a column in every table"


def test_dollars_in_names_are_no_formula_in_a_figure(
    make_trial: Callable[..., TrialResult], make_run: Callable[..., Run]
) -> None:
    run = make_run([make_trial(sut=r"$\frac{x$", chain="own")])
    assert r"$\frac{x$+own" in render(run.summary, run.results, {}, {})


def test_figures_have_words_and_tables_have_scopes(page: str) -> None:
    found = Page(page)
    pictures = [a for tag, a in found.elements if tag == "div" and a.get("role") == "img"]
    assert pictures
    assert all(a.get("aria-label") for a in pictures)
    assert all(a.get("aria-hidden") == "true" for a in found.all("svg"))
    assert all(a.get("scope") for a in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))


def test_marks_are_words_and_signs_not_colours(page: str) -> None:
    signs = re.findall(r'<span class="sign (\w+)" aria-hidden="true">(.)</span><span class="word">(\w+)', page)
    assert {("met", "✓", "met"), ("missed", "✗", "missed")} <= set(signs)
    assert {kind: sign for kind, sign, _ in signs if kind != "open"} == {"met": "✓", "missed": "✗"}


def test_the_sentences_say_what_the_summary_counted(run: Run, page: str) -> None:
    block = run.summary["suts"]["minimal+naive"]
    rates = [cell["fault_recovery_rate"] for cell in block["classes"].values()]
    k, n = sum(rate["k"] for rate in rates), sum(rate["n"] for rate in rates)
    text = plain_text(page)
    assert f"Recovered from {k} of {n} faults" in text
    total = sum(block["verdicts"].values())
    assert f"A wrong effect in the ledger in {block['verdicts']['corrupted']} of {total} trials" in text
    assert "SUTs are honest but buggy" in text


def test_every_non_passing_trial_is_counted_once_and_can_be_replayed(run: Run, page: str) -> None:
    broken = [r for r in run.results if r.verdict in {"corrupted", "lost", "failed", "needless_halt"}]
    stormed = [r for r in run.results if r.verdict in {"correct", "correct_halt"} and r.storm]
    stormed = [r for r in stormed if r.storm and not r.storm.within_bounds]
    section = page.split('<section id="broke">')[1].split("</section>", maxsplit=1)[0]
    counts = [int(found) for found in re.findall(r'<p class="count">(\d+)<', section)]
    assert sum(counts) == len(broken) + len(stormed)
    assert section.count("kintsugi replay results/standard-7 --trial &#39;") == len(counts)


def test_the_pieces_that_a_summary_lacks_are_shown_as_not_measured() -> None:
    text = plain_text(render({}, [], {}, {}))
    assert "Nothing was measured." in text
    assert "Recovery times were not measured" in text
    bare = {"suts": {"mine": {"chain": "own", "classes": {"finance": {}}}}}
    text = plain_text(render(bare, [], {}, {}))
    assert "recovery was not measured" in text
    assert "No wrong effect" not in text


def paths(data: object, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in items:
        yield (*above, name)
        # One of a list stands for all.
        if not isinstance(data, list) or name == 0:
            yield from paths(value, (*above, name))


@pytest.mark.parametrize("instead", [None, "junk", [], {}, -1, float("nan")], ids=repr)
def test_a_summary_with_a_hole_in_any_place_is_still_shown(
    small_run: Run, monkeypatch: pytest.MonkeyPatch, instead: object
) -> None:
    draw_nothing(monkeypatch)
    shapes: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for path in paths(small_run.summary):
        shapes.setdefault((len(path), path[-2:]), path)
    for path in shapes.values():
        summary = copy.deepcopy(small_run.summary)
        place: Any = summary
        for name in path[:-1]:
            place = place[name]
        if instead is None:
            del place[path[-1]]
        else:
            place[path[-1]] = instead
        assert "</html>" in render(summary, small_run.results, {}, {}), path


def test_what_was_to_be_struck_whole_is_counted_by_phase_and_what_is_missing_is_named(run: Run) -> None:
    rows = [
        {
            "fault": "worker_kill",
            "phase": "before",
            "whole": True,
            "covered": 16,
            "total": 17,
            "left_out": ["here <b>"],
        },
        {"fault": "worker_kill", "phase": "during", "whole": False, "covered": 1, "total": 9770, "left_out": []},
    ]
    plain = render(run.summary, run.results, run.environment, run.fault_texts)
    assert "Every point: witnessed" not in plain
    name = next(iter(run.summary["suts"]))
    summary = {**run.summary, "suts": {**run.summary["suts"], name: {**run.summary["suts"][name], "points": rows}}}
    page = render(summary, run.results, run.environment, run.fault_texts)
    assert "Every point: witnessed" in page
    assert "16/17" in page
    assert "1/9770" not in page
    assert "here &lt;b&gt;" in page
