"""The options that put a real model behind the gateway: what they come to, what it may cost, and what is kept of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from kintsugi.golden_workflows.spec import FileProblem, Workflow, validation_problem
from kintsugi.golden_workflows.walk import trajectory
from kintsugi.harness.models.answers import Model
from kintsugi.harness.models.cassette import Recording, Tape, read_head
from kintsugi.harness.models.provider import Provider, must_be_there
from kintsugi.harness.models.real import Live, Taped
from kintsugi.harness.models.scripted import Scripted
from kintsugi.harness.models.spend import Estimate, Meter, estimate, spent_so_far
from kintsugi.harness.models.tokens import ESTIMATE
from kintsugi.harness.prices import ModelPrice, NoPrice, Prices, load_prices, no_price
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.planner import Plan
from kintsugi.scenarios.suite import Suite
from kintsugi.scenarios.trial import Trial

__all__ = ["REAL", "SPEND", "Behind", "answered_by", "by_real_model", "patient", "prices_of", "token_source"]

REAL = "real"
"""The variance of a trial whose model is no script: nobody drew its mistakes."""
SPEND = "spend.jsonl"
"""In a results folder: what was paid for real models; see harness/models/spend.py."""
NO_LIMIT = "none"


@dataclass(frozen=True)
class Behind:
    """Who is to answer at the gateway, as the command line says it; all empty is the scripted model."""

    model: str = ""
    model_base: str = ""
    model_timeout: float | None = None
    record: Path | None = None
    replay: Path | None = None
    prices: Path | None = None
    spend_limit: str = ""
    yes: bool = False

    @classmethod
    def given(cls, options: Mapping[str, Any]) -> Behind:
        """The options as click gives them. Raises FileProblem where they contradict each other."""
        behind = cls(**{name: value for name, value in options.items() if value is not None})
        if behind.replay is None and not behind.model:
            needs = ("model_base", "model_timeout", "record", "spend_limit")
            lonely = [name for name in needs if getattr(behind, name)]
            if lonely:
                raise FileProblem(f"--{lonely[0].replace('_', '-')} needs --model PROVIDER/NAME")
        if behind.replay is not None and (behind.record or behind.model_base):
            raise FileProblem("--replay asks nobody: leave --record and --model-base out")
        behind.limit()
        return replace(behind, model=_on_tape(behind)) if behind.replay is not None else behind

    @property
    def real(self) -> bool:
        """Whether it is no script."""
        return bool(self.model)

    def limit(self) -> float | None:
        """The spend limit in US dollars; None where there is none. Raises FileProblem."""
        if self.spend_limit in {"", NO_LIMIT}:
            return None
        try:
            usd = float(self.spend_limit)
        except ValueError:
            usd = -1.0
        if not 0 <= usd < float("inf"):
            raise FileProblem(f"--spend-limit {self.spend_limit!r}: an amount in US dollars is needed, or none")
        return usd

    def table(self) -> Prices:
        """The prices of this run. Raises FileProblem where none is known, or litellm, which knows most, is missing."""
        known = _price_on_tape(self.replay) if self.replay is not None else None
        if self.real and self.replay is None:
            must_be_there()
        try:
            return load_prices(self.prices, self.model, known)
        except NoPrice:
            if self.spend_limit != NO_LIMIT and self.replay is None:
                raise
            return load_prices(self.prices, self.model, no_price(self.model))

    def record_of(self) -> dict[str, Any] | None:
        """What is kept of it in ``run.json``: no key, and no folder."""
        if not self.real:
            return None
        source = "cassette" if self.replay is not None else "provider"
        base = {"base": self.model_base} if self.model_base else {}
        return {"name": self.model, "from": source, "timeout_seconds": self.model_timeout, **base}

    def open(
        self, prices: Prices, trials: Sequence[Trial], workflows: Mapping[str, Workflow], at_once: int, ledger: Path
    ) -> Model:
        """Who answers, once whatever it needs is there and the user has agreed to what it costs.

        Raises FileProblem where something is missing, or the user does not agree: nothing has been asked by then.
        """
        if not self.real:
            return Scripted()
        if self.replay is not None:
            return Taped(self.model, Tape(self.replay))
        provider = Provider(self.model, self.model_base)
        expected = estimate(trials, workflows, prices.model, at_once=min(at_once, len(trials)))
        limit = self._agreed(expected, prices.model, spent_so_far(ledger))
        recording = None
        if self.record is not None:
            recording = Recording(self.record, {"model": self.model, "price": prices.model.model_dump()})
        return Live(provider, Meter(prices.model, limit, ledger), recording)

    def _agreed(self, expected: Estimate, price: ModelPrice, spent: float) -> float | None:
        """The limit that the user agrees to: as given, or what the run may cost at the most; None for none."""
        if not expected.calls or not (price.input_usd_per_million or price.output_usd_per_million):
            return self.limit()
        limit = self.limit() if self.spend_limit else spent + expected.high
        unlimited = limit is None
        before = f", ${spent:.2f} spent before" if spent else ""
        click.echo(
            f"{self.model}: {expected.trials} trials, {expected.calls} model calls if none is repeated, "
            f"about ${expected.low:.2f} to ${expected.high:.2f} ({price.source}{before})",
            err=True,
        )
        if self.yes:
            return limit
        question = "Spend without a limit?" if unlimited else f"Spend up to ${limit:.2f}?"
        if not on_a_terminal():
            raise FileProblem(f"{question} Nobody is there to say so; --yes does, and --spend-limit USD sets the limit")
        if not click.confirm(question, err=True):
            raise FileProblem("nothing was run, and nothing was spent")
        return limit


def on_a_terminal() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty()


def _on_tape(behind: Behind) -> str:
    assert behind.replay is not None
    name: str = read_head(behind.replay)["model"]
    if behind.model not in {"", name}:
        raise FileProblem(f"{behind.replay}: holds answers of {name}, not of {behind.model}")
    return name


def _price_on_tape(folder: Path) -> ModelPrice | None:
    try:
        price = read_head(folder).get("price")
        return ModelPrice.model_validate(price) if price else None
    except ValidationError as error:
        raise FileProblem(f"{folder / 'cassette.json'}: price: {validation_problem(error, ModelPrice)}") from error


# --- what else changes with it ------------------------------------------------------------------------------


def by_real_model(plan: Plan, record: Mapping[str, Any] | None) -> Plan:
    """The plan with trials whose mistakes nobody drew, where a real model answers."""
    if not record:
        return plan
    return replace(plan, trials=tuple(replace(trial, variance=REAL) for trial in plan.trials))


def patient(suite: Suite, workflows: Mapping[str, Workflow], record: Mapping[str, Any] | None) -> Suite:
    """Have SUTs wait for the model as long as was asked for; the suite, with a deadline that allows for that."""
    seconds = (record or {}).get("timeout_seconds")
    if not seconds:
        return suite
    longer = 0.0
    for workflow in workflows.values():
        more = max(seconds - workflow.policy.model_timeout_seconds, 0.0)
        longer = max(longer, more * (len(trajectory(workflow)) + 1) if suite.wants(workflow.name) else 0.0)
        workflow.policy = workflow.policy.model_copy(update={"model_timeout_seconds": seconds})
        workflow.__dict__.pop("plan", None)
    return suite.model_copy(update={"deadline_seconds": suite.deadline_seconds + longer})


def prices_of(run: Mapping[str, Any]) -> Prices:
    """The prices of a run that is stored."""
    return Prices.model_validate(run["prices"]) if run.get("prices") else load_prices()


def answered_by(run: Mapping[str, Any]) -> str:
    """Who answered in a run that is stored."""
    model = run.get("model")
    if not model:
        return "the scripted model"
    return f"{model['name']}, {'from a cassette' if model['from'] == 'cassette' else 'asked through litellm'}"


def token_source(run: Mapping[str, Any], results: Iterable[TrialResult]) -> str:
    """Who counted the tokens of a run that is stored."""
    if not run.get("model"):
        return ESTIMATE
    estimated = calls = 0
    for result in results:
        estimated += result.usage.estimated_calls
        calls += result.usage.model_calls
    if not estimated:
        return "as the provider reports them"
    return f"as the provider reports them; of {calls} asks, {estimated} replies came without ({ESTIMATE})"
