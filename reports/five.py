"""The five metrics against their targets, by workflow class, with every figure behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kintsugi.reports.behind import UNDER, people_behind, rates_behind, recovery_behind
from kintsugi.reports.comparisons import saving_mark
from kintsugi.reports.numbers import number, pick, rate, table, usd, usd_interval
from kintsugi.reports.tables import Cell, Grid, Sut, by_class, held_cell

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Metric", "five"]


@dataclass(frozen=True)
class Metric:
    """One of the five: the buyer's question, the formula, the target, its tables, and what is behind them."""

    anchor: str
    title: str
    question: str
    formula: str
    target: str
    grids: tuple[Grid, ...]
    behind: Grid | None


def five(summary: Mapping[str, Any], suts: list[Sut], classes: list[str]) -> list[Metric]:
    """The five metrics, in the order in which a buyer asks for them."""

    def gated(caption: str, metric: str, proposed: str = "") -> Grid:
        return by_class(caption, suts, classes, lambda sut, name: _held(sut, name, metric, proposed))

    def behind(*measures: tuple[str, str]) -> Grid:
        return rates_behind(suts, classes, measures)

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
            "recovery at least 99% · no corruption",
            (
                by_class(
                    "Recovered after a witnessed fault; attended: by stopping for a person, rightly",
                    suts,
                    classes,
                    _recovered,
                ),
                gated("Corrupted: a wrong effect in the ledger, where the model does not err", "corruption_rate"),
            ),
            recovery_behind(suts, classes),
        ),
        Metric(
            "tools",
            "Tool execution accuracy",
            "Does the agent act correctly in external systems?",
            "correct choices / choices; correct arguments / arguments; runs whose calls came in order; "
            "unsafe writes / writes. A choice made by code is no choice: n = 0",
            "at least 95% · 95% · 95% · no unsafe action",
            (
                gated(
                    "Tool selection: as it reached the world, and as the model proposed it",
                    "tool_selection_accuracy_reached",
                    "tool_selection_accuracy",
                ),
                gated(
                    "Tool parameters: as they reached the world, and as the model proposed them",
                    "tool_parameter_accuracy_reached",
                    "tool_parameter_accuracy",
                ),
                gated("Trajectory: expected calls in order, extras allowed", "trajectory_match_rate"),
                gated(
                    "Unsafe actions: as they reached the world, and as the model proposed them",
                    "unsafe_action_rate",
                    "unsafe_action_rate_proposed",
                ),
            ),
            behind(
                ("Selection as proposed by the model", "tool_selection_accuracy"),
                ("Arguments as proposed by the model", "tool_parameter_accuracy"),
                ("Calls with every argument correct, as proposed", "tool_call_accuracy"),
                (
                    "Calls with every argument correct, as they reached the world",
                    "tool_call_accuracy_reached",
                ),
                ("Judgements with every value right, as proposed by the model", "judgement_accuracy"),
                ("Trajectory exactly as expected", "trajectory_exact_rate"),
                ("Trajectory in any order", "trajectory_any_order_rate"),
                ("Unsafe actions as proposed by the model", "unsafe_action_rate_proposed"),
                (
                    "Under faults: selection as it reached the world",
                    f"tool_selection_accuracy_reached{UNDER}",
                ),
                (
                    "Under faults: arguments as they reached the world",
                    f"tool_parameter_accuracy_reached{UNDER}",
                ),
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
            "halts, failures, losses and corruptions for a person to mend / workflows, without faults",
            "unplanned repair below 10%",
            (gated("Unplanned repair, without injected faults", "unplanned_repair_rate"),),
            people_behind(suts, classes),
        ),
    ]


def _held(sut: Sut, workflow_class: str, metric: str, proposed: str) -> Cell:
    """A metric against its target; beside it, where there is one, what the model had proposed."""
    cell = held_cell(sut, workflow_class, metric)
    if not proposed:
        return cell
    found = rate(sut.cell(workflow_class).get(proposed))
    return Cell(
        cell.main,
        (*cell.sub, f"proposed {found.text}, {found.counts}" if found else "proposed n = 0"),
        cell.mark,
    )


def _recovered(sut: Sut, workflow_class: str) -> Cell:
    cell = held_cell(sut, workflow_class, "fault_recovery_rate")
    attended = number(pick(sut.cell(workflow_class), "fault_recovery_rate", "attended"))
    told = (f"{attended:g} attended",) if attended else ()
    return Cell(cell.main, (*cell.sub, *told), cell.mark)


def _cost(summary: Mapping[str, Any], sut: Sut, workflow_class: str) -> Cell:
    cell = sut.cell(workflow_class)
    block, struck = (table(cell, f"cost_per_successful_workflow_usd{suffix}") for suffix in ("", UNDER))
    interval = usd_interval(block.get("machine_ci95"))
    told = [interval] if interval else []
    if number(struck.get("machine")) is not None:
        told.append(f"{usd(struck.get('machine'))} under faults")
    return Cell(usd(block.get("machine")), tuple(told), saving_mark(summary, sut, workflow_class))
