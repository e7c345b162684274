"""The bench measures what it says, wherever it is told to work, and a gap in it is a line and no failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kintsugi.harness.adapters import ADAPTERS, Unavailable
from kintsugi.harness.commands import bench_engines
from kintsugi.harness.commands.bench_engines import Figures, measure_engines


def test_every_figure_of_an_engine_is_measured_by_its_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_engines, "SINGLE_STEPS", 3)
    monkeypatch.setattr(bench_engines, "MANY_STEPS", 2)
    heard: list[str] = []

    measured = asyncio.run(measure_engines([ADAPTERS["minimal"]], tmp_path, 4, 2, heard.append))

    figures = measured["minimal"]
    assert isinstance(figures, Figures)
    assert min(figures.single, figures.many, figures.next_step) > 0
    assert heard == [f"durable steps, round {number} of 2: minimal" for number in (1, 2)]


def test_an_engine_that_is_not_there_is_a_reason_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_engines, "SINGLE_STEPS", 1)
    monkeypatch.setattr(bench_engines, "MANY_STEPS", 1)

    def missing() -> str:
        raise Unavailable("absent: not installed; install it")

    absent = replace(ADAPTERS["minimal"], name="absent", check=missing)
    measured = asyncio.run(measure_engines([absent, ADAPTERS["minimal"]], tmp_path, 1, 1))

    assert measured["absent"] == "absent: not installed; install it"
    assert isinstance(measured["minimal"], Figures)
