"""What the benchmark has to catch: SUTs with one planted bug each, the faults that show it, and what is then seen.

Every bug meets the same trials as the runtime without it, which has to pass them all. Pure: `planned` says what to
run, `judged` holds what came of it against what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kintsugi.faults import FAULTS
from kintsugi.faults.points import Point
from kintsugi.harness.adapters import minimal
from kintsugi.harness.records import TrialResult
from kintsugi.scenarios.trial import Strike, Trial

__all__ = ["BUGS", "CORRECT", "Bug", "Row", "Sign", "judged", "needs", "planned", "seen", "shown_here"]

CORRECT = minimal.ADAPTER.name
"""The SUT without a bug."""
CHAIN = "optimized"
CLEAN = frozenset({"correct", "correct_halt"})
ASKED_AGAIN = "approval asked again"
STORM = "storm out of bounds"


@dataclass(frozen=True)
class Sign:
    """One fault that shows a bug.

    `caught_as` is a verdict, or what a figure of the scorecard says: an approval asked again though the first was
    good, more calls to a failing tool than the suite allows. `reason` is a part of the verdict's reason.
    """

    workflow: str
    strike: str
    caught_as: str
    reason: str = ""
    drift: str = ""
    copies: int = 0
    """How many workflows at once, where that many show it; as many as the fault's form has where 0."""

    @property
    def needs(self) -> str:
        """What the machine has to have for it, by its name in `kintsugi.harness.means`."""
        named, _, _ = self.strike.partition("@")
        fault, _, form = named.partition(".")
        return FAULTS[fault].form(form).needs

    def trial(self, sut: str, seed: int) -> Trial:
        """The trial of a SUT in which it shows."""
        named, _, point = self.strike.partition("@")
        fault, _, form = named.partition(".")
        what = FAULTS[fault].form(form)
        strike = Strike(fault, form, Point.parse(point))
        return Trial(
            "fault",
            sut,
            CHAIN,
            self.workflow,
            (strike,),
            seed,
            copies=self.copies or what.copies,
            nodes=what.nodes,
            drift=self.drift,
        )


@dataclass(frozen=True)
class Bug:
    """One planted bug: the SUT that has it, and by which faults it is caught, each time."""

    what: str
    sut: str
    signs: tuple[Sign, ...]


INVOICE = "finance/invoice_payment"
REFUND = "finance/customer_refund"
LEADS = "marketing/lead_follow_up"
LETTERS = "data/dead_letter_replay"
CAMPAIGN = "marketing/campaign_launch"
BACKFILL = "data/partition_backfill"

BUGS: Sequence[Bug] = (
    # First those whose trials take longest.
    Bug(
        "loses approvals on restart",
        "planted_loses_approvals",
        (
            Sign(INVOICE, "worker_kill.at_boundary@tool:pay[0]#1@before", "lost", "before the deadline"),
            Sign(LETTERS, "worker_kill.at_boundary@tool:purge[0]#1@before", "lost", "before the deadline"),
        ),
    ),
    Bug(
        "zombie commits after losing its lease",
        "planted_no_fencing",
        (
            Sign(INVOICE, "zombie_worker.in_flight@tool:order[0]#1@before", "corrupted", "duplicate effect"),
            Sign(INVOICE, "zombie_worker.in_flight@tool:pay[0]#1@committed", "corrupted", "duplicate effect"),
            Sign(LETTERS, "zombie_worker.parked@human:purge[0]#1@waiting", "corrupted", "duplicate effect"),
        ),
    ),
    Bug(
        "goes by the wall clock",
        "planted_goes_by_the_wall_clock",
        (
            Sign(LEADS, "clock_jump.back_behind@timer:a_day[0]#1@waiting", "lost", "before the deadline"),
            Sign(BACKFILL, "clock_jump.set_ahead@tool:table[0]#1@before", "failed", "has expired"),
        ),
    ),
    Bug(
        "does not sync its journal",
        "planted_does_not_sync",
        (
            Sign(INVOICE, "power_loss.disk_cut@tool:tell[0]#1@before", "corrupted", "duplicate effect of erp.post"),
            Sign(LEADS, "power_loss.disk_cut@tool:log[0]#1@before", "corrupted", "duplicate effect of mail.send"),
        ),
    ),
    Bug(
        "goes on when it can't record",
        "planted_goes_on_unrecorded",
        (
            Sign(INVOICE, "disk_full.killed_while_full@tool:note[0]#1@before", "corrupted", "duplicate effect of mail"),
            Sign(LEADS, "disk_full.killed_while_full@tool:mail[0]#1@before", "corrupted", "duplicate effect of mail"),
        ),
    ),
    Bug(
        "forgets the last step on restart",
        "planted_forgets_the_last_step",
        (
            Sign(INVOICE, "worker_kill.at_boundary@tool:tell[0]#1@before", "corrupted", "duplicate effect of erp.post"),
            Sign(LEADS, "worker_kill.at_boundary@tool:log[0]#1@before", "corrupted", "duplicate effect of mail.send"),
        ),
    ),
    Bug(
        "records the result before the effect",
        "planted_records_first",
        (
            Sign(INVOICE, "worker_kill.at_boundary@tool:tell[0]#1@before", "corrupted", "missing effect of mail.send"),
            Sign(INVOICE, "worker_kill.at_boundary@tool:note[0]#1@before", "corrupted", "missing effect of erp.post"),
        ),
    ),
    Bug(
        "no idempotency key",
        "planted_no_key",
        (
            Sign(INVOICE, "partial_side_effect.reset@tool:pay[0]#1@committed", "corrupted", "duplicate effect of bank"),
            Sign(REFUND, "worker_kill.at_boundary@tool:refund[0]#1@committed", "corrupted", "duplicate effect of shop"),
        ),
    ),
    Bug(
        "new key on each retry",
        "planted_new_key_each_time",
        (
            Sign(INVOICE, "partial_side_effect.reset@tool:pay[0]#1@committed", "corrupted", "duplicate effect of bank"),
            Sign(REFUND, "worker_kill.at_boundary@tool:refund[0]#1@committed", "corrupted", "duplicate effect of shop"),
        ),
    ),
    Bug(
        "retries an opaque tool blindly",
        "planted_sends_again_blindly",
        (
            Sign(INVOICE, "partial_side_effect.empty@tool:tell[0]#1@committed", "corrupted", "duplicate effect"),
            Sign(LEADS, "worker_kill.at_boundary@tool:mail[1]#1@committed", "corrupted", "duplicate effect"),
        ),
    ),
    Bug(
        "asks approval again",
        "planted_asks_again",
        (
            Sign(INVOICE, "worker_kill.at_boundary@tool:pay[0]#1@before", ASKED_AGAIN),
            Sign(LETTERS, "worker_kill.at_boundary@tool:purge[0]#1@before", ASKED_AGAIN),
        ),
    ),
    Bug(
        "acts on stale reads",
        "planted_acts_on_stale_reads",
        (
            Sign(
                INVOICE,
                "stale_data.while_waiting@human:pay[0]#1@waiting",
                "corrupted",
                "stale effect of bank.pay",
                drift="corrected_amount",
            ),
            Sign(
                REFUND,
                "stale_data.while_restarting@human:refund[0]#1@waiting",
                "corrupted",
                "stale effect of shop.refund",
                drift="partly_refunded",
            ),
            Sign(
                CAMPAIGN,
                "stale_context.corrected_then_killed@human:create[0]#1@waiting",
                "corrupted",
                "stale effect of ads.create_campaign",
                drift="budget_cut",
            ),
        ),
    ),
    Bug(
        "commits malformed output to state",
        "planted_believes_the_model",
        (
            Sign(
                INVOICE,
                "malformed_output.wrong_types@model:match[0]#1@during",
                "corrupted",
                "wrong arguments effect of erp.post_note",
            ),
            Sign(REFUND, "malformed_output.missing_parameter@model:judge[0]#1@during", "failed"),
        ),
    ),
    Bug(
        "believes whatever a tool answers",
        "planted_believes_the_tools",
        (
            Sign(INVOICE, "invalid_external_data.below_zero@tool:order[0]#1@before", "corrupted", "wrong arguments"),
            Sign(REFUND, "schema_drift.renames_field@tool:order[0]#1@before", "failed"),
        ),
    ),
    Bug(
        "begins a run anew that is submitted again",
        "planted_starts_anew",
        (
            Sign(INVOICE, "duplicate_delivery.submitted_when_over@end:end[0]#1@after", "corrupted", "duplicate effect"),
            Sign(REFUND, "duplicate_delivery.submitted_when_over@end:end[0]#1@after", "corrupted", "duplicate effect"),
        ),
    ),
    Bug(
        "retries without backoff",
        "planted_no_backoff",
        (
            # A few at once: what fifty can send in a second is bounded by the machine as well.
            Sign(INVOICE, "retry_storm.unavailable_503@tool:invoice[0]#1@before", STORM, copies=5),
            Sign(LETTERS, "retry_storm.unavailable_503@tool:letters[0]#1@before", STORM, copies=5),
            Sign(INVOICE, "rate_limit.with_retry_after@tool:order[0]#1@before", "needless_halt", "only 1 tries"),
        ),
    ),
    Bug(
        "dies silently",
        "planted_dies_silently",
        (
            Sign(INVOICE, "network_failure.reset_before@tool:order[0]#1@before", "lost", "no worker was left"),
            Sign(LETTERS, "tool_timeout.not_applied@tool:consumer[0]#1@before", "lost", "no worker was left"),
            Sign(INVOICE, "model_outage.error_500@model:match[0]#1@before", "lost", "no worker was left"),
        ),
    ),
    Bug(
        "reports success without doing the work",
        "planted_says_it_is_done",
        (
            Sign(INVOICE, "tool_timeout.not_applied@tool:tell[0]#1@before", "corrupted", "missing effect of mail.send"),
            Sign(LEADS, "network_failure.reset_before@tool:assign[0]#1@before", "corrupted", "missing effect of crm"),
        ),
    ),
    Bug(
        "forgets a pause on restart",
        "planted_forgets_a_pause",
        (
            Sign(INVOICE, "operator_pause.killed_while_paused@tool:pay[0]#1@before", "corrupted", "it was paused"),
            Sign(LEADS, "operator_pause.paused_while_down@tool:assign[0]#1@before", "corrupted", "it was paused"),
        ),
    ),
    Bug(
        "knows its steps by their position",
        "planted_counts_its_steps",
        (
            Sign(INVOICE, "deploy_mid_run.step_added@tool:pay[0]#1@before", "failed", "the chain has changed"),
            Sign(LEADS, "deploy_mid_run.step_added@tool:assign[0]#1@before", "failed", "the chain has changed"),
        ),
    ),
    Bug(
        "swallows rejection",
        "planted_swallows_rejection",
        (
            Sign(INVOICE, "approval_delay.rejected@human:pay[0]#1@waiting", "corrupted", "extra effect of erp.post"),
            Sign(LETTERS, "approval_delay.rejected@human:purge[0]#1@waiting", "corrupted", "extra effect of queue"),
        ),
    ),
)


@dataclass(frozen=True)
class Row:
    """What was expected of a SUT under a fault, and what was seen."""

    what: str
    """The bug; empty for the runtime without one."""
    sut: str
    workflow: str
    strike: str
    expected: str
    seen: str
    good: bool


def needs(bugs: Sequence[Bug]) -> set[str]:
    """What the machine has to have for all of their signs."""
    return {sign.needs for bug in bugs for sign in bug.signs} - {""}


def shown_here(bugs: Sequence[Bug], missing: Mapping[str, str]) -> tuple[list[Bug], list[str]]:
    """The bugs with those signs that can show on this machine, and a line for each bug that has others as well.

    `missing` says of each means that is not here what to do about it. A bug without any sign left is not among them.
    """
    kept, lines = [], []
    for bug in bugs:
        signs = tuple(sign for sign in bug.signs if sign.needs not in missing)
        if signs:
            kept.append(replace(bug, signs=signs))
        for name in sorted({sign.needs for sign in bug.signs} & set(missing)):
            count = sum(sign.needs == name for sign in bug.signs)
            lines.append(f"skipped: {count} of {len(bug.signs)} signs of {bug.what!r}: {missing[name]}")
    return kept, lines


def planned(bugs: Sequence[Bug], seed: int) -> list[Trial]:
    """Every trial there is to run, each once, and the clean run of each of their cells, which has to be correct."""
    trials = [sign.trial(bug.sut, seed) for bug in bugs for sign in bug.signs]
    trials += [sign.trial(CORRECT, seed) for bug in bugs for sign in bug.signs]
    cells = dict.fromkeys((trial.sut, trial.workflow) for trial in trials)
    baselines = [Trial("baseline", sut, CHAIN, workflow, seed=seed) for sut, workflow in cells]
    return baselines + list({trial.id: trial for trial in trials}.values())


def seen(result: TrialResult | None) -> list[str]:
    """What a result shows: its verdict, or why there is none, and each figure that is out of bounds."""
    if result is None:
        return ["not run"]
    shown: list[str] = [result.verdict or result.injection]
    if result.human.re_asked:
        shown.append(ASKED_AGAIN)
    if result.storm is not None and not result.storm.within_bounds:
        shown.append(STORM)
    return shown


def judged(bugs: Sequence[Bug], seed: int, results: Mapping[str, TrialResult]) -> list[Row]:
    """One row for each sign of each bug, and then one for each trial of the runtime without any."""
    rows = [_caught(bug, sign, results.get(sign.trial(bug.sut, seed).id)) for bug in bugs for sign in bug.signs]
    signs = {sign.trial(CORRECT, seed).id: sign for bug in bugs for sign in bug.signs}
    return rows + [_passed(sign, results.get(name)) for name, sign in signs.items()]


def _caught(bug: Bug, sign: Sign, result: TrialResult | None) -> Row:
    witnessed = result is not None and result.injection == "witnessed"
    good = sign.caught_as in seen(result) and witnessed and result is not None and sign.reason in result.reason
    expected = f"{sign.caught_as}: {sign.reason}" if sign.reason else sign.caught_as
    return Row(bug.what, bug.sut, sign.workflow, sign.strike, expected, _said(result), good)


def _passed(sign: Sign, result: TrialResult | None) -> Row:
    shown = seen(result)
    good = len(shown) == 1 and shown[0] in CLEAN
    return Row("", CORRECT, sign.workflow, sign.strike, " or ".join(sorted(CLEAN)), _said(result), good)


def _said(result: TrialResult | None) -> str:
    shown = ", ".join(seen(result))
    return f"{shown}: {result.reason}" if result is not None else shown
