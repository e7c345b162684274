"""A summary as small Markdown tables, for a pull request's comment or a job's page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kintsugi.harness.gate import Decision

__all__ = ["to_markdown"]

DASH = "–"
HEADS = (
    "SUT",
    "completion",
    "recovery",
    "trajectory",
    "unsafe",
    "corrupted",
    "$ a success, clean / under faults",
    "unplanned repair",
)
APART = ("not_exposed", "invalid_injection", "baseline_failed", "not_applicable", "harness_error")


def to_markdown(summary: Mapping[str, Any], decision: Decision | None = None) -> str:
    """A table of metrics for each workflow class, one of recovery by fault, and the gate's word, if given.

    A rate is shown with k / n and its 95% interval; a dash is what was not measured.
    """
    trials = summary["trials"]
    apart = ", ".join(f"{trials[name]} {name.replace('_', ' ')}" for name in APART if trials.get(name))
    parts = [
        f"## Kintsugi: suite {_safe(summary['suite'])}, seed {summary['seed']}",
        f"{trials['run']} trials, {trials['witnessed']} with a witnessed fault"
        + (f"; counted apart: {apart}." if apart else "."),
    ]
    if decision is not None:
        parts.append(_gate(decision))
    classes = sorted({name for block in summary["suts"].values() for name in block["classes"]})
    for name in classes:
        parts += [f"### {_safe(name)}", _metrics(summary, name)]
    faults = _faults(summary, classes)
    if faults:
        parts += ["### Recovery by fault", faults]
    storms = _storms(summary, classes)
    if storms:
        parts += ["### Storms", storms]
    parts.append(_assumptions(summary["assumptions"]))
    return "\n\n".join(parts) + "\n"


def _gate(decision: Decision) -> str:
    """The lines that did not pass, and how many did."""
    passed = sum(line.verdict == "pass" for line in decision.lines)
    text = f"**Gate: {decision.verdict}** ({passed} of {len(decision.lines)} lines pass)"
    rows = [
        [
            line.verdict,
            line.workflow_class,
            f"{line.metric} {line.fault}".strip(),
            line.measured,
            line.target,
            line.why or DASH,
        ]
        for line in decision.lines
        if line.verdict in {"fail", "inconclusive"}
    ]
    table = _table(["verdict", "class", "metric", "measured", "target", "why"], rows)
    return f"{text}\n\n{table}" if rows else text


def _metrics(summary: Mapping[str, Any], name: str) -> str:
    rows = []
    for key, block in summary["suts"].items():
        cell = block["classes"].get(name)
        if cell is None:
            continue
        clean, struck = (cell[f"cost_per_successful_workflow_usd{s}"] for s in ("", "_under_faults"))
        rows.append(
            [
                key,
                _rate(cell["workflow_completion_rate"]),
                _rate(cell["fault_recovery_rate"]),
                _share(cell["trajectory_match_rate"]),
                _share(cell["unsafe_action_rate"]),
                f"{_share(cell['corruption_rate'])} + {_share(cell['corruption_rate_model_errs'])}",
                f"{_usd(clean['machine'])} / {_usd(struck['machine'])}",
                _rate(cell["unplanned_repair_rate"]),
            ]
        )
    heads = [
        "SUT",
        "completion",
        "recovery",
        "trajectory",
        "unsafe",
        "corrupted + where the model errs",
        "$ clean / under faults",
        "repair",
    ]
    return _table(heads, rows)


def _faults(summary: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Recovered / witnessed of every fault, with a column for each workflow class."""
    rows = []
    for key, block in summary["suts"].items():
        for fault, by_class in block["faults"].items():
            rows.append([key, fault, *(_share(by_class.get(name)) for name in classes)])
    return _table(["SUT", "fault", *classes], rows) if rows else ""


def _storms(summary: Mapping[str, Any], classes: Sequence[str]) -> str:
    """How many workflows at once treated a failing tool, for each SUT and class that met a storm."""
    rows = []
    for key, block in summary["suts"].items():
        for name in classes:
            found = (block["classes"].get(name) or {}).get("storms")
            if found:
                figures = [
                    f"{found['outage_calls_per_workflow']:.1f}",
                    f"{found['peak_requests_per_second']:.0f}",
                    f"{found['drain_seconds']:.1f}",
                    _usd(found.get("wasted_usd")),
                ]
                rows.append([key, name, f"{found['workflows']}", _share(found["within_bounds"]), *figures])
    heads = ["SUT", "class", "workflows", "within bounds", "calls each in the outage", "peak a second"]
    return _table([*heads, "drained after (s)", "wasted $"], rows) if rows else ""


def _assumptions(assumed: Mapping[str, Any]) -> str:
    model, human, compute = assumed["model"], assumed["human"], assumed["compute"]
    tokens = [f"${model[f'{kind}_usd_per_million']:g}" for kind in ("input", "cached_input", "output")]
    return (
        f"Answered by {_safe(assumed.get('answered_by', 'the scripted model'))}. "
        f"Assumed: {_safe(model['name'])} at {' / '.join(tokens)} a million tokens (in / cached / out), "
        f"${compute['usd_per_cpu_hour']:g} a core-hour, ${human['usd_per_hour']:g} an hour of a person; "
        f"token counts: {_safe(assumed['token_source'])}. "
        "SUTs are honest but buggy; the numbers are not defended against one that cheats."
    )


def _rate(rate: Mapping[str, Any] | None) -> str:
    """``98.1% (53/54; 90.1–100.0)``."""
    if rate is None:
        return DASH
    ends = "" if rate["ci95"] is None else f"; {rate['ci95'][0] * 100:.1f}–{rate['ci95'][1] * 100:.1f}"
    return f"{rate['rate'] * 100:.1f}% ({rate['k']}/{rate['n']}{ends})"


def _share(rate: Mapping[str, Any] | None) -> str:
    return DASH if rate is None else f"{rate['k']}/{rate['n']}"


def _usd(amount: float | None) -> str:
    return DASH if amount is None else f"{amount:.4f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)


def _safe(text: object) -> str:
    """Text that can't end a table's cell, break its line, or be read as HTML."""
    plain = " ".join(str(text).split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
