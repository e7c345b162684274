"""A trial is plain data that is named, stored and read back."""

import json
from dataclasses import replace

import pytest

from kintsugi.faults.points import Point
from kintsugi.scenarios.trial import Strike, Trial

PAY = Strike("worker_kill", "at_boundary", Point("tool", "pay", 0, 1, "before"))
TELL = Strike("stale_data", "while_waiting", Point("human", "tell", 2, 1, "waiting"))
TRIAL = Trial("fault", "minimal", "optimized", "finance/invoice_payment", (PAY, TELL), 7, "none", drift="moved")


def test_an_id_can_be_read() -> None:
    assert TRIAL.id == (
        "minimal+optimized~finance/invoice_payment~worker_kill.at_boundary@tool:pay[0]#1@before,"
        "stale_data.while_waiting@human:tell[2]#1@waiting~moved~s7"
    )
    assert Trial("clean", "naive", "naive", "a/b", seed=3).id == "naive+naive~a/b~clean~s3"


def test_whatever_makes_another_trial_makes_another_id() -> None:
    changes: list[dict[str, object]] = [
        {"kind": "timing"},
        {"sut": "naive"},
        {"chain": "naive"},
        {"workflow": "a/b"},
        {"schedule": (PAY,)},
        {"schedule": (TELL, PAY)},
        {"schedule": ()},
        {"seed": 8},
        {"drift": ""},
        {"repeat": 1},
    ]
    ids = [TRIAL.id, *(replace(TRIAL, **change).id for change in changes)]  # type: ignore[arg-type]
    assert len(set(ids)) == len(ids)


def test_it_is_counted_under_its_fault_or_under_all_of_its_schedule() -> None:
    assert TRIAL.fault == "+".join(strike.fault for strike in TRIAL.schedule)
    assert replace(TRIAL, schedule=TRIAL.schedule[:1]).fault == "worker_kill"
    assert replace(TRIAL, schedule=()).fault == ""


def test_it_is_read_back_as_it_was() -> None:
    for trial in (TRIAL, replace(TRIAL, copies=50, nodes=2, weight=2.5, repeat=3), Trial("clean", "a", "b", "c/d")):
        assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert Trial.from_json({**TRIAL.to_json(), "new": 1}) == TRIAL


def test_what_an_earlier_version_did_not_have_has_its_default() -> None:
    few = {"kind": "clean", "sut": "minimal", "chain": "naive", "workflow": "a/b", "schedule": []}
    trial = Trial.from_json(few)
    assert trial == Trial("clean", "minimal", "naive", "a/b")
    assert (trial.seed, trial.variance, trial.copies, trial.nodes, trial.weight, trial.repeat) == (
        0,
        "none",
        1,
        1,
        1,
        0,
    )


@pytest.mark.parametrize("data", [{}, {"schedule": []}, {"schedule": [{"fault": "x"}]}, [], None, {"schedule": 3}])
def test_what_is_no_trial(data: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Trial.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("copies", "x", "copies: found 'x', a whole number from 1 on is needed"),
        ("copies", True, "copies: found True"),
        ("nodes", 0, "nodes: found 0, a whole number from 1 on is needed"),
        ("repeat", -1, "repeat: found -1, a whole number from 0 on"),
        ("seed", 1.5, "seed: found 1.5, a whole number is needed"),
        ("weight", "1", "weight: found '1', a number from 0 on"),
        ("weight", float("nan"), "weight: found nan"),
        ("sut", ["minimal"], r"sut: found \['minimal'\], text is needed"),
        ("drift", None, "drift: found None, text is needed"),
        ("kind", "best", "kind: found 'best', one of baseline, clean, fault, timing is needed"),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_said_to_be_so(name: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Trial.from_json({**TRIAL.to_json(), name: value})


@pytest.mark.parametrize("name", ["fault", "form", "point"])
def test_so_is_one_of_a_strike(name: str) -> None:
    data = TRIAL.to_json()
    data["schedule"][1][name] = {}
    with pytest.raises(ValueError, match=f"{name}: found {{}}, text is needed"):
        Trial.from_json(data)


def test_a_point_that_is_none_is_said_to_be_so() -> None:
    data = TRIAL.to_json()
    data["schedule"][0]["point"] = "pay"
    with pytest.raises(ValueError, match="'pay' is no point"):
        Trial.from_json(data)
