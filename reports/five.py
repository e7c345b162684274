"""The five metrics against their targets, by workflow class, with every figure behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kintsugi.reports.cost import saving_mark
from kintsugi.reports.numbers import DASH, number, pick, rate, seconds, table, usd
from kintsugi.reports.tables import Cell, Grid, Group, Row, Sut, by_class, rate_cell, rates_by_class
from kintsugi.reports.targets import TARGETS

__all__ = ["Metric", "five"]

UNDER = "_under_faults"


@dataclass(frozen=True)
class Metric:
    """One of the five: the buyer's question, the formula, the target, its tables, and the figures behind them."""

    anchor: str
    title: str
    question: str
    formula: str
    target: str
    grids: tuple[Grid, ...]
    behind: Grid | None


def five(summary: Mapping[str, Any], suts: list[Sut], classes: list[str]) -> list[Metric]:
    """The five metrics, in the order in which a buyer asks for them."""

    def gated(caption: str, metric: str) -> Grid:
        return rates_by_class(caption, suts, classes, metric, TARGETS[metric])

    def behind(*measures: tuple[str, str]) -> Grid:
        return _behind(suts, classes, measures)

    return [
        Metric(
            "completion",
            "Workflow completion rate",
            "Does the workflow finish the task correctly?",
            "trials that ended correct / attempted, without injected faults, with the model’s own mistakes",
            "at least 95%",
            (gated("Completed correctly, without injected faults", "workflow_completion_rate"),),
            behind(
                ("Under faults: correct, needing nobody", f"workflow_completion_rate{UNDER}"),
                ("pass^k: correct with every one of its k seeds", "pass_k"),
            ),
        ),
        Metric(
            "recovery",
            "Fault recovery rate",
            "Does work survive ordinary failure?",
            "trials completed correctly after a witnessed fault / trials with a witnessed fault",
            "at least 99%",
            (
                by_class(
                    "Recovered after a witnessed fault; attended: by stopping for a person where that is right",
                    suts,
                    classes,
                    _recovered,
                ),
            ),
            behind(
                ("Resumed exactly: recovered with nothing done again", "resumed_exactly"),
                ("Corrupted: a wrong effect, in any trial", "corruption_rate"),
            ),
        ),
        Metric(
            "tools",
            "Tool execution accuracy",
            "Does the agent act correctly in external systems?",
            "correct choices / choices the model made; correct arguments / arguments; runs whose calls came in order; "
            "unsafe writes / writes. A choice made by code is no choice: n = 0",
            "at least 95% · 95% · 95% · no unsafe action",
            (
                gated("Tool selection, as the model proposed it", "tool_selection_accuracy"),
                gated("Tool parameters, as the model proposed them", "tool_parameter_accuracy"),
                gated("Trajectory: expected calls in order, extras allowed", "trajectory_match_rate"),
                gated("Unsafe actions that reached the world, in all trials", "unsafe_action_rate"),
            ),
            behind(
                ("Selection as it reached the world", "tool_selection_accuracy_reached"),
                ("Arguments as they reached the world", "tool_parameter_accuracy_reached"),
                ("Calls with every argument correct, as proposed", "tool_call_accuracy"),
                ("Calls with every argument correct, as they reached the world", "tool_call_accuracy_reached"),
                ("Trajectory exactly as expected", "trajectory_exact_rate"),
                ("Trajectory in any order", "trajectory_any_order_rate"),
                ("Unsafe actions as proposed by the model", "unsafe_action_rate_proposed"),
                ("Under faults: selection", f"tool_selection_accuracy{UNDER}"),
                ("Under faults: arguments", f"tool_parameter_accuracy{UNDER}"),
                ("Under faults: trajectory in order", f"trajectory_match_rate{UNDER}"),
            ),
        ),
        Metric(
            "cost",
            "Cost per successful workflow",
            "Is the workflow economically viable?",
            "(model + tool + compute) / workflows that ended correctly; people’s time is added in section 5",
            "at least 30% below the naive chain, on paired trials",
            (
                by_class(
                    "Machine cost per success, without faults",
                    suts,
                    classes,
                    lambda sut, name: _cost(summary, sut, name),
                ),
            ),
            None,
        ),
        Metric(
            "people",
            "Human intervention rate",
            "Are users supervising, or constantly repairing?",
            "halts, failures, losses and corruptions that a person had to mend / workflows, without injected faults",
            "unplanned repair below 10%",
            (gated("Unplanned repair, without injected faults", "unplanned_repair_rate"),),
            _people(suts, classes),
        ),
    ]


def _recovered(sut: Sut, workflow_class: str) -> Cell:
    cell = rate_cell(rate(sut.cell(workflow_class).get("fault_recovery_rate")), TARGETS["fault_recovery_rate"])
    attended = number(pick(sut.cell(workflow_class), "fault_recovery_rate", "attended"))
    told = (f"{attended:g} attended",) if attended else ()
    return Cell(cell.main, (*cell.sub, *told), cell.mark)


def _cost(summary: Mapping[str, Any], sut: Sut, workflow_class: str) -> Cell:
    cell = sut.cell(workflow_class)
    block, struck = (table(cell, f"cost_per_successful_workflow_usd{suffix}") for suffix in ("", UNDER))
    ends = block.get("machine_ci95")
    told = []
    if isinstance(ends, list | tuple) and all(number(end) is not None for end in ends):
        told.append("–".join(map(usd, ends)))
    if number(struck.get("machine")) is not None:
        told.append(f"{usd(struck.get('machine'))} under faults")
    return Cell(usd(block.get("machine")), tuple(told), saving_mark(summary, sut, workflow_class))


def _behind(suts: list[Sut], classes: list[str], measures: Sequence[tuple[str, str]]) -> Grid:
    groups = tuple(
        Group(
            title,
            tuple(Row(name, tuple(rate_cell(rate(sut.cell(name).get(metric))) for sut in suts)) for name in classes),
        )
        for title, metric in measures
        if any(rate(sut.cell(name).get(metric)) for sut in suts for name in classes)
    )
    return Grid("Figures behind it", "Class", tuple(sut.key for sut in suts), groups)


def _people(suts: list[Sut], classes: list[str]) -> Grid:
    rates = _behind(
        suts,
        classes,
        (
            ("Planned checkpoints: workflows that asked for an approval", "planned_checkpoint_rate"),
            ("Overrides: decisions that rejected or amended", "human_override_rate"),
            ("Under faults: unplanned repair", f"unplanned_repair_rate{UNDER}"),
        ),
    )
    waits = tuple(Row(name, tuple(_wait(sut, name) for sut in suts)) for name in classes)
    unavoidable = tuple(Row(name, tuple(_unavoidable(sut, name) for sut in suts)) for name in classes)
    more = (
        Group("Of these, unavoidable: the tool is opaque and its answer was lost", unavoidable),
        Group("From asking for an approval to its decision: median; p95", waits),
    )
    return Grid(rates.caption, rates.corner, rates.columns, (*rates.groups, *more))


def _wait(sut: Sut, workflow_class: str) -> Cell:
    found = table(sut.cell(workflow_class), "approval_completion_seconds")
    return Cell(seconds(found.get("p50")), (f"p95 {seconds(found.get('p95'))}",) if found.get("n", 1) else ())


def _unavoidable(sut: Sut, workflow_class: str) -> Cell:
    found = pick(sut.cell(workflow_class), f"unplanned_repair_rate{UNDER}")
    count, rated = number(pick(found, "unavoidable")), rate(found)
    return Cell(DASH if count is None or rated is None else f"{count:g} of {rated.k:g}")
