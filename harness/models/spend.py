"""What a real model costs: an estimate before the first call, a hard limit, and a ledger that outlives the process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from kintsugi.golden_workflows.chains import naive, optimized
from kintsugi.golden_workflows.spec import Workflow
from kintsugi.golden_workflows.walk import walk
from kintsugi.harness.history import Unwritable, append_line, cut_torn_line
from kintsugi.harness.models.answers import MAY_BE_CHARGED, NoneAtAll
from kintsugi.harness.models.cassette import Outcome
from kintsugi.harness.models.request import ANSWER_TOKENS_MAX, answer_tokens_max, read_completion
from kintsugi.harness.models.tokens import tokens_of
from kintsugi.harness.prices import ModelPrice
from kintsugi.scenarios.points import REACT
from kintsugi.scenarios.trial import Trial

__all__ = ["Estimate", "Meter", "estimate", "spent_so_far"]

PER_MILLION = 1e-6
TROUBLE_FACTOR = 3.0
"""What repeats, corrections, thinking and a tokenizer that counts otherwise may come to, over a run without trouble."""
LONGER_FACTOR = 3
"""How much longer a prompt may get than the longest of the reference trajectory, or be counted."""
TURN_TOKENS = 20
"""What a turn of a conversation holds beside arguments and results: names, ids, roles."""


# --- before the first call ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What some trials would cost, in US dollars."""

    trials: int
    calls: int
    low: float
    """Each run as the reference trajectory has it, without a repeat and without a cache."""
    high: float
    """That with all its trouble, and room for the worst that calls which are under way at once may cost."""


def estimate(
    trials: Iterable[Trial], workflows: Mapping[str, Workflow], price: ModelPrice, *, at_once: int
) -> Estimate:
    """What trials would cost, so many `at_once`: model calls of the reference trajectory × tokens × price."""
    known: dict[tuple[str, bool], tuple[int, float]] = {}
    count = calls = 0
    low = worst = 0.0
    for trial in trials:
        cell = (trial.workflow, trial.chain in REACT)
        if cell not in known:
            each = list(_prompts(workflows[trial.workflow], react=cell[1]))
            known[cell] = (len(each), sum(_usd(price, prompt, 0, answer) for prompt, answer in each))
            longest = max((prompt for prompt, _ in each), default=0)
            worst = max(worst, _usd(price, LONGER_FACTOR * longest, 0, ANSWER_TOKENS_MAX))
        count += 1
        calls += trial.copies * known[cell][0]
        low += trial.copies * known[cell][1]
    return Estimate(count, calls, low, TROUBLE_FACTOR * low + at_once * worst)


def _prompts(workflow: Workflow, *, react: bool) -> Iterator[tuple[int, int]]:
    """Prompt and answer tokens of each model call of a correct run."""
    visits = list(walk(workflow))
    if not react:
        for visit in visits:
            if visit.call.kind == "model":
                asked = [optimized.SYSTEM, workflow.steps[visit.call.step].ask, visit.call.arguments, visit.output]
                yield tokens_of(asked), tokens_of(visit.value)
        return
    prompt = tokens_of([naive.SYSTEM, workflow.plan["task"], workflow.plan["tools"]])
    for visit in visits:
        if visit.call.kind == "model":
            continue
        made = tokens_of(visit.call.arguments) + TURN_TOKENS
        for _ in range(1 + visit.call.needs_approval):
            yield prompt, made
            prompt += made + tokens_of(visit.value)
    yield prompt, TURN_TOKENS


# --- while it runs ------------------------------------------------------------------------------------------


class Call:
    """One call that is being paid for."""

    def __init__(self, worst: float, price: ModelPrice, request: Mapping[str, Any]) -> None:
        self.usd = worst
        """What it cost; the worst that it may have cost, until its end is known."""
        self._price, self._request = price, request

    def ended(self, outcome: Outcome) -> None:
        """Charge what came of it: an error costs nothing; what no whole answer came to may have cost all it could."""
        if "completion" in outcome:
            _, tokens = read_completion(outcome["completion"], self._request)
            self.usd = _usd(self._price, tokens.prompt, tokens.cached, tokens.completion)
        elif outcome["refused"]["status"] not in MAY_BE_CHARGED:
            self.usd = 0.0


class Meter:
    """Counts what a run spends, in the results folder's ``spend.jsonl``, and lets no call be made beyond a limit.

    `limit` is in US dollars and over the whole run, resumed parts included; None for none. A call is made only where
    the worst that it and all that are under way may cost still fits.

    The ledger has up to two lines for a call: ``{"trial", "what": "reserved", "usd"}``, the worst that it may cost, on
    the disk before it is made; and ``{"trial", "what": "settled", "usd"}``, what is to be added, mostly less than 0, so
    that both come to what it did cost. So the sum of all lines is what the run has cost, whenever it was killed, and a
    call whose end nobody saw counts as the worst. A line of 0 is not written.
    """

    def __init__(self, price: ModelPrice, limit: float | None, path: Path) -> None:
        self._price, self._limit, self._path = price, limit, path
        self._reserved = self.spent = 0.0
        self._taken_up = False

    def _take_up(self) -> None:
        """Go on with the ledger from the first call on: before, the folder may still be another run's."""
        if not self._taken_up:
            cut_torn_line(self._path)
            self.spent = spent_so_far(self._path)
            self._taken_up = True

    @asynccontextmanager
    async def call(self, trial: str, request: Mapping[str, Any]) -> AsyncIterator[Call]:
        """A call that is made within. Raises NoneAtAll where it might pass the limit, and Unwritable."""
        self._take_up()
        worst = self._worst(request)
        if self._limit is not None and self.spent + self._reserved + worst > self._limit:
            raise NoneAtAll(
                f"the spend limit of ${self._limit:.4g} is reached: ${self.spent:.4f} are spent, and calls under way "
                f"with this one may cost ${self._reserved + worst:.4f}"
            )
        call = Call(worst, self._price, request)
        self._keep(trial, "reserved", worst)
        self._reserved += worst
        try:
            if worst:
                await asyncio.to_thread(_flush, self._path)
            yield call
        except NoneAtAll:
            # The provider's error, as a key that it does not take.
            call.usd = 0.0
            raise
        finally:
            self._reserved -= worst
            self.spent += call.usd
            self._keep(trial, "settled", call.usd - worst)

    def _worst(self, request: Mapping[str, Any]) -> float:
        # No tokenizer makes more than one token of a byte.
        prompt = len(json.dumps(request, ensure_ascii=False).encode())
        return _usd(self._price, prompt, 0, answer_tokens_max(request))

    def _keep(self, trial: str, what: str, usd: float) -> None:
        if usd:
            append_line(self._path, {"trial": trial, "what": what, "usd": round(usd, 9)})


def _flush(path: Path) -> None:
    """Have what was written to a file outlive the machine's own crash. Raises Unwritable."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise Unwritable(f"{path}: can't be written: {error.strerror}") from error


def spent_so_far(path: Path) -> float:
    """The US dollars that a ledger comes to, calls whose end nobody saw included as the worst that they may have cost.

    A last line that was cut short by a crash is left out.
    """
    if not path.is_file():
        return 0.0
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    # Exactly, so that what was given back is not still there as a rounding error.
    return fsum(float(json.loads(line)["usd"]) for line in lines)


def _usd(price: ModelPrice, prompt: int, cached: int, completion: int) -> float:
    return PER_MILLION * (
        (prompt - cached) * price.input_usd_per_million
        + cached * price.cached_input_usd_per_million
        + completion * price.output_usd_per_million
    )
