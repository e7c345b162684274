from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from kintsugi.reports.scorecard import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from tests.reports.conftest import Run

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = (1280, 400)


@dataclass(frozen=True)
class Opened:
    """A page at a width, with every address that it asked for and every complaint of the browser."""

    page: Page
    asked: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on PATH; on Debian and Ubuntu: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(html: str, width: int, **options: Any) -> Opened:
        path = tmp_path / "scorecard.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return Opened(page, asked, complaints)

    yield opened
    for context in contexts:
        context.close()


def long_named(run: Run) -> str:
    """The page of a run whose names and reasons have no place to break."""
    word = "x" * 90
    trial = run.results[0]
    changed = {"workflow_class": word, "verdict": "corrupted", "reason": word * 4, "id": word * 3}
    results = [type(trial)(**{**trial.__dict__, **changed, "sut": word})]
    block = {**next(iter(run.summary["suts"].values())), "sut": word}
    cells = {word: next(iter(block["classes"].values()))}
    summary = {**run.summary, "suite": word, "suts": {word: {**block, "classes": cells}}}
    return render(summary, results, {word: word * 2}, {word: {"what": word * 2}}, word)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("long", [False, True], ids=["usual", "long names"])
def test_nothing_runs_over_the_edge_and_nothing_is_fetched(
    open_page: Callable[..., Opened], run: Run, page: str, width: int, *, long: bool
) -> None:
    opened = open_page(long_named(run) if long else page, width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    cut = opened.page.evaluate(
        """() => [...document.querySelectorAll('main p, main dd, main dt, main h2, main h3, main li, figure')]
            .filter(e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1)
            .map(e => e.className + e.textContent.slice(0, 60))"""
    )
    assert cut == []
    assert len(opened.asked) == 1
    assert opened.complaints == []


def test_text_stands_out_from_what_is_behind_it(open_page: Callable[..., Opened], page: str) -> None:
    weak = open_page(page, 1280).page.evaluate(
        """() => {
            const parts = c => c.match(/[\\d.]+/g).map(Number);
            const light = c => parts(c).slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = getComputedStyle(e).backgroundColor;
                    if (parts(c)[3] !== 0) return c;
                }
                return 'rgb(255, 255, 255)';
            };
            return [...document.querySelectorAll('main *')]
                .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
                .filter(e => !e.closest('svg'))
                .filter(e => {
                    const pair = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
                    return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
                })
                .map(e => e.className + ': ' + e.textContent.slice(0, 40));
        }"""
    )
    assert weak == []


def test_print_unfolds_everything_and_cuts_no_table_at_the_side(
    open_page: Callable[..., Opened], page: str, tmp_path: Path
) -> None:
    printed = open_page(page, 703).page  # A4 less its margins, in CSS pixels.
    printed.emulate_media(media="print")
    assert printed.evaluate("document.documentElement.scrollWidth") <= 703
    hidden = "[...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length"
    assert printed.evaluate(hidden) == 0
    paper = tmp_path / "scorecard.pdf"
    printed.pdf(path=paper, prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) > 1
