"""Every fault class: what it is made of, and at which sites each of its forms strikes, and at no others."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from itertools import product
from typing import get_args

import pytest

from kintsugi.faults import FAULTS
from kintsugi.faults.actions import (
    Action,
    Answer,
    Corrupt,
    Decide,
    Drift,
    Drip,
    FillDisk,
    Hold,
    JumpClock,
    Kill,
    Limit,
    Outage,
    Partition,
    Pause,
    Poison,
    Toxic,
)
from kintsugi.faults.fault import Form, Layer
from kintsugi.faults.points import Point, Site
from kintsugi.golden_workflows.forms import Policy

TEN = {
    "worker_kill",
    "tool_timeout",
    "partial_side_effect",
    "network_failure",
    "malformed_output",
    "stale_data",
    "approval_delay",
    "node_loss",
    "loop",
    "retry_storm",
}
FORMS = [(fault.name, form) for fault in FAULTS.values() for form in fault.forms]

# --- every site there is ------------------------------------------------------------------------------------

SITES = {
    "submit@after": Site(Point("submit", "start", phase="after")),
    **{
        f"read@{p}": Site(Point("tool", "get", phase=p), "s.get", "read", holds=("number", "choice"), guarded=True)
        for p in ("before", "after")
    },
    **{
        f"write@{p}": Site(Point("tool", "put", phase=p), "s.put", "write", "key")
        for p in ("before", "during", "committed", "after")
    },
    **{
        f"unkeyed@{p}": Site(Point("tool", "tell", phase=p), "s.tell", "write", "lookup")
        for p in ("before", "during", "committed", "after")
    },
    "write[1]@before": Site(Point("tool", "put", 1, phase="before"), "s.put", "write", "none"),
    **{
        f"{proposes}@{p}": Site(Point("model", "ask", phase=p), proposes=proposes)
        for proposes, p in product(("call", "answer", "close"), ("before", "during", "after"))
    },
    **{f"human@{p}": Site(Point("human", "put", phase=p)) for p in ("before", "committed", "waiting")},
    "drifting@waiting": Site(Point("human", "put", phase="waiting"), drifts=("moved",)),
    "told@waiting": Site(Point("human", "put", phase="waiting"), drifts=("moved",), instructions=("moved",)),
    **{f"decision@{p}": Site(Point("decision", "put", phase=p)) for p in ("before", "after")},
    "timer@waiting": Site(Point("timer", "pause", phase="waiting")),
    "drifting_timer@waiting": Site(Point("timer", "pause", phase="waiting"), drifts=("moved",)),
    **{f"end@{p}": Site(Point("end", "end", phase=p), guarded=True) for p in ("before", "committed", "after")},
}


def at(*names: str) -> set[str]:
    """The sites whose name is given, or whose phase is (``@after``), or whose boundary is (``write``)."""
    found = {
        site for site in SITES if site in names or f"@{site.split('@')[1]}" in names or site.split("@")[0] in names
    }
    assert found
    return found


AFTER = at("@after")
EXACT = set(SITES) - AFTER
PROPOSALS = at("call@during", "answer@during")
TOOLS_BEFORE = at("read@before", "write@before", "unkeyed@before", "write[1]@before")
COMMITTED = at("write@committed", "unkeyed@committed")
WAITS = at("human@waiting", "drifting@waiting", "told@waiting")
DRIFTS = at("drifting@waiting", "told@waiting", "drifting_timer@waiting")
MODEL_BEFORE = at("call@before", "answer@before", "close@before")
MODEL_DURING = at("call@during", "answer@during", "close@during")

WHERE = {
    "worker_kill": {
        "at_boundary": EXACT,
        "again_in_recovery": at("@before", "@during") - at("decision"),
        "after_0ms": AFTER,
        "after_1ms": AFTER,
        "after_5ms": AFTER,
        "after_20ms": AFTER,
    },
    "tool_timeout": {
        "not_applied": TOOLS_BEFORE,
        "applied": COMMITTED,
        "twice": TOOLS_BEFORE,
        "beyond_budget": TOOLS_BEFORE,
    },
    "partial_side_effect": dict.fromkeys(("reset", "empty", "error_500", "killed"), COMMITTED),
    "network_failure": {
        "refused": TOOLS_BEFORE | MODEL_BEFORE,
        "reset_before": TOOLS_BEFORE | MODEL_BEFORE,
        "reset_twice": TOOLS_BEFORE | MODEL_BEFORE,
        "silent": TOOLS_BEFORE | MODEL_BEFORE,
        "reset_generated": MODEL_DURING,
        "reset_committed": COMMITTED,
    },
    "malformed_output": {
        **dict.fromkeys(
            (
                "truncated_json",
                "invalid_json",
                "prose",
                "wrong_types",
                "missing_parameter",
                "invented_parameter",
                "empty_reply",
                "finish_length",
            ),
            PROPOSALS,
        ),
        "unknown_tool": at("call@during"),
        "same_call_twice": at("call@during"),
        "three_times": at("answer@during"),
    },
    "stale_context": {"corrected_then_killed": at("told@waiting")},
    "stale_data": {"while_waiting": DRIFTS, "while_restarting": DRIFTS},
    "approval_delay": dict.fromkeys(
        (
            "late",
            "late_after_restart",
            "delivered_twice",
            "before_wait",
            "rejected",
            "rejected_after_restart",
            "never",
        ),
        WAITS,
    ),
    "power_loss": {"disk_cut": set(SITES)},
    "clock_jump": dict.fromkeys(("back_ahead", "back_behind", "set_ahead", "set_behind"), EXACT - at("end")),
    "disk_full": dict.fromkeys(("frees_up", "while_restarting", "killed_while_full"), EXACT),
    "node_loss": {
        **dict.fromkeys(("process", "two_of_three", "container"), EXACT),
        "successor_too": at("@before", "@during") - at("decision"),
    },
    "loop": {
        "repeats_3": at("call@during", "close@during"),
        "repeats_forever": at("call@during", "close@during"),
        "rambles_2": at("answer@during"),
        "rambles_forever": at("answer@during"),
    },
    "retry_storm": dict.fromkeys(
        ("unavailable_503", "limited_429", "silent", "unavailable_503_by_500", "limited_429_by_500"),
        at("read@before", "write@before", "unkeyed@before"),
    ),
    "rate_limit": dict.fromkeys(
        ("with_retry_after", "with_a_date", "without_retry_after", "twice", "beyond_budget"),
        TOOLS_BEFORE | MODEL_BEFORE,
    ),
    "model_outage": {
        **dict.fromkeys(("error_500", "three_times_503", "beyond_budget"), MODEL_BEFORE),
        **dict.fromkeys(("cut_mid_body", "cut_twice", "slow", "stalls", "no_choices"), MODEL_DURING),
    },
    "schema_drift": dict.fromkeys(
        ("gains_field", "loses_field", "renames_field", "loses_for_good", "renames_for_good"), TOOLS_BEFORE
    ),
    "invalid_external_data": {
        **dict.fromkeys(("wrong_type", "empty_record", "empty_for_good"), at("read@before")),
        **dict.fromkeys(("below_zero", "unknown_choice"), at("read@before")),
    },
    "hostile_output": dict.fromkeys(("instruction", "whenever_read"), at("read@before")),
    "duplicate_delivery": {
        **dict.fromkeys(("submitted_again", "submitted_together"), at("submit@after")),
        "submitted_in_between": TOOLS_BEFORE,
        "submitted_when_over": at("end@after"),
        "decided_again": at("end@before"),
        "decided_when_over": at("end@after"),
    },
    "store_restart": dict.fromkeys(("server", "server_for_long", "with_worker"), EXACT),
    "operator_pause": dict.fromkeys(
        ("paused", "killed_while_paused", "paused_while_down"), TOOLS_BEFORE | MODEL_BEFORE | WAITS
    ),
    "deploy_mid_run": dict.fromkeys(
        ("step_added", "reworded"), EXACT - at("submit@after", "decision", "end@before", "end@committed")
    ),
    "poison_workflow": dict.fromkeys(("one_node", "two_nodes"), (TOOLS_BEFORE - at("write[1]@before")) | MODEL_BEFORE),
    "partition": dict.fromkeys(
        ("brief", "long", "rejected", "container"),
        at("@before", "@during", "@committed", "@waiting") - at("decision"),
    )
    | {"store": at("read@before", "write@before", "write@during", "write@committed") | MODEL_BEFORE | MODEL_DURING},
    "network": {
        **dict.fromkeys(
            (
                "latency",
                "bandwidth",
                "slicer",
                "timeout",
                "reset_peer",
                "limit_data",
                "limit_data_twice",
                "slow_close",
                "down",
                "store_latency",
                "store_timeout",
                "store_down",
            ),
            TOOLS_BEFORE | MODEL_BEFORE,
        ),
        "timeout_beyond_budget": TOOLS_BEFORE,
    },
    "zombie_worker": {
        **dict.fromkeys(
            ("in_flight", "in_flight_of_three"),
            at("read@before", "write@before", "write@during", "write@committed") | MODEL_BEFORE | MODEL_DURING,
        ),
        "parked": WAITS | DRIFTS | at("timer@waiting"),
    },
}


@pytest.mark.parametrize(("fault", "form"), FORMS, ids=[f"{fault}.{form.name}" for fault, form in FORMS])
def test_a_form_strikes_at_its_sites_and_at_no_others(fault: str, form: Form) -> None:
    assert {name for name, site in SITES.items() if form.applies(site)} == WHERE[fault][form.name]


def test_a_result_is_damaged_only_where_the_damage_can_be_told() -> None:
    def applies(fault: str, **facts: object) -> set[str]:
        site = Site(Point("tool", "get"), "s.get", "read", **facts)  # type: ignore[arg-type]
        return {form.name for form in FAULTS[fault].forms if form.applies(site)}

    always = {"wrong_type", "empty_record", "empty_for_good"}
    assert applies("invalid_external_data") == always
    assert applies("invalid_external_data", holds=("number",)) == always | {"below_zero"}
    assert applies("invalid_external_data", holds=("choice",)) == always | {"unknown_choice"}
    assert applies("hostile_output") == set()
    over = Site(Point("end", "end", phase="after"))
    assert [form.name for form in FAULTS["duplicate_delivery"].forms if form.applies(over)] == ["submitted_when_over"]


def test_the_table_holds_every_form() -> None:
    assert {fault: set(forms) for fault, forms in WHERE.items()} == {
        fault.name: {form.name for form in fault.forms} for fault in FAULTS.values()
    }


def test_a_fault_that_strikes_a_write_strikes_one_of_any_kind() -> None:
    """But for a worker that is stopped, or loses its store: whose write happened can be told only of one with a key."""
    for fault, form in FORMS:
        if fault == "zombie_worker" or (fault, form.name) == ("partition", "store"):
            continue
        for phase in ("before", "during", "committed", "after"):
            kinds = {
                form.applies(Site(Point("tool", "put", phase=phase), "s.put", "write", kind))
                for kind in ("key", "lookup", "none")
            }
            assert len(kinds) == 1, f"{fault}.{form.name}@{phase}"


# --- what it is made of -------------------------------------------------------------------------------------


def test_the_ten_of_the_catalogue_are_there() -> None:
    assert set(FAULTS) >= TEN


@pytest.mark.parametrize("name", FAULTS)
def test_a_class_is_whole(name: str) -> None:
    fault = FAULTS[name]
    assert fault.name == name
    assert fault.layer in get_args(Layer)
    assert fault.dealt_with_by in {"engine", "adapter", "chain"}
    assert fault.what.endswith(".")
    assert fault.witness.endswith(".")
    names = [form.name for form in fault.forms]
    assert len(names) == len(set(names)) > 0
    assert all(name.isidentifier() and name == name.lower() for name in names)


@pytest.mark.parametrize("name", FAULTS)
def test_a_form_is_found_by_its_name(name: str) -> None:
    for form in FAULTS[name].forms:
        assert FAULTS[name].form(form.name) is form
    with pytest.raises(KeyError, match="no_such_form"):
        FAULTS[name].form("no_such_form")


@pytest.mark.parametrize(("fault", "form"), FORMS, ids=[f"{fault}.{form.name}" for fault, form in FORMS])
def test_a_form_is_composed_of_the_actions_there_are(fault: str, form: Form) -> None:
    assert form.actions, fault
    assert all(type(action) in get_args(Action) for action in form.actions)
    assert form.nodes >= 1
    assert form.copies >= 1
    # An action that is done beside the boundary comes last, after the kill that goes with it; but for what is to be
    # found changed after a restart.
    assert all(isinstance(action, Kill | Drift) for action in form.actions[:-1])
    lost = [action for action in form.actions if isinstance(action, Kill) and action.restart == "never"]
    paused = [action for action in form.actions if isinstance(action, Pause)]
    cut_off = [action for action in form.actions if isinstance(action, Partition)]
    poisoned = [action for action in form.actions if isinstance(action, Poison)]
    if not poisoned:
        # A node that stands still, is cut off, or never comes back, leaves another one.
        assert bool(lost or paused or cut_off) == (form.nodes > 1)
        assert all(action.times + action.others < form.nodes for action in lost)
    # Of three nodes the first loss, or the pause, is only the beginning of the fault.
    from_store = [action for action in cut_off if action.side == "store"]
    assert bool(paused or from_store or form.nodes > 2 or (poisoned and form.nodes > 1)) == ("fail_over" in form.wants)
    assert (form.copies > 1) == bool(poisoned or any(isinstance(action, Outage) for action in form.actions))


@pytest.mark.parametrize(("fault", "form"), FORMS, ids=[f"{fault}.{form.name}" for fault, form in FORMS])
def test_numbers_are_possible(fault: str, form: Form) -> None:
    assert form in FAULTS[fault].forms
    for action in form.actions:
        for number in ("times", "seconds", "seconds_max", "copies"):
            # Some toxics last for as long as they are there.
            assert isinstance(action, Toxic) or getattr(action, number, 1) > 0
        match action:
            case Kill(delay_ms=delay):
                assert delay >= 0
                assert not (delay and any(form.applies(SITES[site]) for site in EXACT)), "only after a response"
            case Answer(status=status):
                assert 400 <= status < 600
            case Outage(status=status):
                assert not status or 400 <= status < 600
            case Decide(delay_hours=hours, deliveries=deliveries):
                assert hours > 0
                assert deliveries >= 1
            case FillDisk(seconds=seconds, kill_after_seconds=kill_after):
                assert 0 <= kill_after < seconds
            case JumpClock(hours=hours):
                assert hours


@pytest.mark.parametrize("form", FAULTS["network"].forms, ids=lambda form: form.name)
def test_a_toxic_is_one_that_toxiproxy_takes_and_is_lifted(form: Form) -> None:
    (toxic,) = form.actions
    assert isinstance(toxic, Toxic)
    assert all(isinstance(value, int) for _, value in toxic.attributes), "Toxiproxy takes whole numbers alone"
    assert toxic.responses >= 1
    assert (toxic.seconds > 0) == (toxic.link == "store" or toxic.kind == "down")
    assert form.needs == "toxiproxy"
    assert ("store_link" in form.wants) == (toxic.link == "store")


@pytest.mark.parametrize("action", get_args(Action))
def test_an_action_is_plain_data(action: type) -> None:
    assert is_dataclass(action)
    assert getattr(action, "__dataclass_params__").frozen  # noqa: B009 - unknown to the type of a type
    assert all(field.type for field in fields(action))
    assert (action.__doc__ or "").strip()


def test_a_worker_is_stopped_for_longer_than_anyone_takes_to_notice() -> None:
    for form in FAULTS["zombie_worker"].forms:
        (pause,) = form.actions
        assert isinstance(pause, Pause)
        assert pause.seconds_max > 2.0, "the failure-detection budget of every SUT"


def test_a_brief_partition_is_shorter_than_a_lease_and_a_long_one_than_a_retry_budget() -> None:
    from kintsugi.golden_workflows.spec import load_workflows

    brief, long = (FAULTS["partition"].form(name).actions[0] for name in ("brief", "long"))
    assert isinstance(brief, Partition)
    assert isinstance(long, Partition)
    assert brief.seconds < 2.0 < long.seconds, "the failure-detection budget of every SUT"
    policies = [workflow.policy for workflow in load_workflows().values()]
    assert long.seconds < min(policy.attempts * policy.tool_timeout_seconds for policy in policies)


def test_what_outlasts_a_budget_may_halt() -> None:
    may = {f"{fault}.{form.name}" for fault, form in FORMS if form.may_halt}
    assert may == {
        "tool_timeout.beyond_budget",
        "network.timeout_beyond_budget",
        "loop.repeats_forever",
        "loop.rambles_forever",
        "invalid_external_data.empty_for_good",
        "model_outage.beyond_budget",
        "partition.rejected",
        "partition.container",
        "rate_limit.beyond_budget",
        "schema_drift.loses_for_good",
        "schema_drift.renames_for_good",
    }


def test_beyond_budget_is_beyond_the_budget_of_every_workflow_that_is_shipped() -> None:
    from kintsugi.golden_workflows.spec import load_workflows

    (hold,) = FAULTS["tool_timeout"].form("beyond_budget").actions
    assert isinstance(hold, Hold)
    policies = [workflow.policy for workflow in load_workflows().values()]
    assert hold.times >= max(policy.attempts for policy in policies)
    assert hold.seconds_max > max(policy.tool_timeout_seconds for policy in policies)
    three = FAULTS["malformed_output"].form("three_times").actions[0]
    assert isinstance(three, Corrupt)
    assert three.times < min(policy.malformed_attempts for policy in policies), "it stays within the budget"


def test_retry_after_is_longer_than_any_budget_of_waits_that_does_not_heed_it() -> None:
    from kintsugi.golden_workflows.spec import load_workflows

    def waits(policy: Policy) -> float:
        doubled = (policy.backoff_base_seconds * 2.0**failures for failures in range(policy.attempts - 1))
        return sum(min(wait, policy.backoff_cap_seconds) for wait in doubled)

    policies = [workflow.policy for workflow in load_workflows().values()]
    for form in FAULTS["rate_limit"].forms:
        for action in form.actions:
            if isinstance(action, Limit):
                assert action.seconds > max(map(waits, policies))
    for name in ("slow", "stalls"):
        (drip,) = FAULTS["model_outage"].form(name).actions
        assert isinstance(drip, Drip)
        assert all((drip.seconds > policy.model_timeout_seconds) == (name == "stalls") for policy in policies)
    for fault in ("rate_limit", "model_outage"):
        (answer,) = FAULTS[fault].form("beyond_budget").actions
        assert isinstance(answer, Answer)
        assert answer.times >= max(policy.attempts for policy in policies)


def test_a_rejection_that_never_comes_comes_before_the_approval_would_expire() -> None:
    never = FAULTS["approval_delay"].form("never").actions[0]
    late = FAULTS["approval_delay"].form("late").actions[0]
    assert isinstance(never, Decide)
    assert isinstance(late, Decide)
    assert never.answer == "expire"
    assert never.delay_hours > late.delay_hours
