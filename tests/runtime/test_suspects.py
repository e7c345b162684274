"""Runs that seem to kill their workers come last."""

from kintsugi.runtime.suspects import SUSPECT_CLAIMS, SUSPECT_SECONDS, Free, Suspects, fruitless_claims


def test_claims_count_since_the_last_progress() -> None:
    assert fruitless_claims([]) == 0
    assert fruitless_claims(["claimed", "claimed", "result", "claimed"]) == 2


def test_the_innocent_come_first_and_at_once() -> None:
    free = [Free("bad", SUSPECT_CLAIMS, 1e9), *(Free(str(number), number % 3, 0.0) for number in range(30))]
    assert Suspects().due(free, 0.0) == [*map(str, range(30)), "bad"]


def test_suspects_come_one_by_one_then_faster() -> None:
    free = [Free(str(number), SUSPECT_CLAIMS, 1e9) for number in range(10)]
    suspects, now, batches = Suspects(), 100.0, []
    while free:
        due = suspects.due(free, now)
        assert suspects.due(free, now) == []
        free = [run for run in free if run.run_id not in due]
        batches.append(len(due))
        now += SUSPECT_SECONDS
    assert batches == [1, 2, 4, 3]


def test_the_worst_come_last_and_rest_longest() -> None:
    worse, bad = Free("worse", SUSPECT_CLAIMS + 2, 0.3), Free("bad", SUSPECT_CLAIMS, 0.3)
    assert Suspects().due([worse, bad], 0.0) == ["bad"]
    rested = Free("worse", SUSPECT_CLAIMS + 2, 0.5)
    assert Suspects().due([rested], 0.0) == ["worse"]
    assert Suspects().due([Free("worst", 60, 4.9)], 0.0) == []
    assert Suspects().due([Free("worst", 60, 5.1)], 0.0) == ["worst"]
