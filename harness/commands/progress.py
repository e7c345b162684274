"""What a run says while it goes on: a bar with counts by verdict on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self, TextIO

from kintsugi.harness.records import TrialResult

__all__ = ["Progress"]

LINES = 20
"""How many plain lines a run prints at the most."""


class Progress:
    """Counts results as they come in and shows them."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._every = max(1, -(-total // LINES))
        self._bar: object | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            console = Console(file=self._stream)
            columns = (
                BarColumn(24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[counts]}"),
            )
            self._bar = bar = Bar(*columns, console=console, transient=True)
            self._task = bar.add_task("", total=self._total, counts="")
            bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]

    def tell(self, line: str) -> None:
        """Print a line that must not be overlooked, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False)  # type: ignore[attr-defined]
        else:
            print(line, file=self._stream, flush=True)

    def add(self, result: TrialResult) -> None:
        """Count a result and show it."""
        self._done += 1
        self._counts[result.verdict or result.injection] += 1
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items()))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, counts=counts)  # type: ignore[attr-defined]
        elif self._done % self._every == 0 or self._done == self._total:
            print(f"{self._done}/{self._total} trials: {counts}", file=self._stream, flush=True)
