from collections.abc import Callable

import pytest

from kintsugi.golden_workflows.forms import Tool
from kintsugi.golden_workflows.records import Records, Unservable

WORLD = {"boxes": {"B-1": {"kg": 4, "on": True}, "B-2": {"kg": 9, "on": False}}}


def tool(**does: object) -> Tool:
    effect = "write" if does["op"] in ("create", "update") else "read"
    form = {"name": "store.act", "description": "x", "effect": effect, "parameters": {}, "result": {}}
    return Tool.model_validate({**form, "does": {"collection": "boxes", **does}})


GET = tool(op="get", id="= args.id")
LIST = tool(op="list", where="= record.kg > args.above and record.on")
CREATE = tool(op="create", id="= 'N-' ~ n", set={"kg": "= args.kg"}, returns={"id": "= id", "kg": "= record.kg"})
UPDATE = tool(op="update", id="= args.id", set={"kg": "= record.kg + args.more"}, returns={"kg": "= record.kg"})


@pytest.fixture
def records() -> Records:
    return Records.seeded(WORLD)


def test_a_read_gives_the_record_with_its_id_and_version(records: Records) -> None:
    answer = records.read(GET, {"id": "B-1"})
    assert answer.result == {"id": "B-1", "kg": 4, "on": True}
    assert (answer.record, answer.version) == ("boxes/B-1", '"B-1.1"')


def test_what_is_read_is_a_copy(records: Records) -> None:
    records.read(GET, {"id": "B-1"}).result["kg"] = 0
    assert records.read(GET, {"id": "B-1"}).result["kg"] == 4
    assert WORLD["boxes"]["B-1"]["kg"] == 4


def test_a_list_gives_the_records_that_match_and_one_version_for_all(records: Records) -> None:
    answer = records.read(LIST, {"above": 3})
    assert [item["id"] for item in answer.result["items"]] == ["B-1"]
    assert answer.record == "boxes"
    assert records.read(LIST, {"above": 3}).version == answer.version


def test_the_version_of_a_list_moves_when_one_of_it_changes_joins_or_leaves(records: Records) -> None:
    seen = {records.read(LIST, {"above": 3}).version}
    for change in ({"kg": 5}, {"on": False}):
        records.change("boxes/B-1", change)
        seen.add(records.read(LIST, {"above": 3}).version)
    records.change("boxes/B-2", {"on": True})
    seen.add(records.read(LIST, {"above": 3}).version)
    assert len(seen) == 4


def test_a_created_record_is_counted_and_read_like_any_other(records: Records) -> None:
    answer = records.write(CREATE, {"kg": 7})
    assert answer.result == {"id": "N-1", "kg": 7}
    assert (answer.record, answer.version) == ("boxes/N-1", '"N-1.1"')
    assert records.write(CREATE, {"kg": 7}).result["id"] == "N-2", "a repeat makes a second record"
    assert records.read(GET, {"id": "N-1"}).result == {"id": "N-1", "kg": 7}


def test_an_update_sees_the_record_as_it_was_and_moves_its_version(records: Records) -> None:
    assert records.current_tag(UPDATE, {"id": "B-1"}) == '"B-1.1"'
    answer = records.write(UPDATE, {"id": "B-1", "more": 2})
    assert answer.result == {"kg": 6}
    assert answer.version == records.current_tag(UPDATE, {"id": "B-1"}) == '"B-1.2"'
    assert records.version("boxes/B-1") == 2
    assert records.current_tag(CREATE, {"kg": 1}) == "", "a create has no version to match"


def test_a_drift_changes_fields_and_version_of_a_record(records: Records) -> None:
    before = records.read(GET, {"id": "B-2"}).version
    assert records.change("boxes/B-2", {"kg": 1}) == 2
    after = records.read(GET, {"id": "B-2"})
    assert after.result == {"id": "B-2", "kg": 1, "on": False}
    assert after.version != before
    assert records.version("boxes/nothing") == 0


PAGES = tool(op="list", page_size=2)


def shelf(count: int) -> Records:
    return Records.seeded({"boxes": {f"B-{n}": {"kg": n} for n in range(1, count + 1)}})


@pytest.mark.parametrize(("count", "pages"), [(0, [[]]), (2, [["B-1", "B-2"]]), (3, [["B-1", "B-2"], ["B-3"]])])
def test_a_list_in_pages_gives_each_record_once(count: int, pages: list[list[str]]) -> None:
    records = shelf(count)
    for number, ids in enumerate(pages, start=1):
        result = records.read(PAGES, {"page": number}).result
        assert [item["id"] for item in result["items"]] == ids
        assert (result["page"], result["pages"]) == (number, len(pages))
    assert records.read(PAGES, {}).result["page"] == 1, "the first where none is named"


def test_a_page_beyond_the_last_is_empty() -> None:
    assert shelf(3).read(PAGES, {"page": 3}).result == {"items": [], "page": 3, "pages": 2}


def test_the_version_of_a_page_moves_with_its_records_and_with_the_number_of_pages() -> None:
    records = shelf(4)
    first, second = (records.read(PAGES, {"page": page}).version for page in (1, 2))
    records.change("boxes/B-4", {"kg": 0})
    assert records.read(PAGES, {"page": 1}).version == first
    assert records.read(PAGES, {"page": 2}).version != second
    records.write(CREATE, {"kg": 1})
    assert records.read(PAGES, {"page": 1}).version != first, "who has read this page has not read all pages"


TAKEN = {
    "collection": "boxes",
    "where": "= record.kg == args.kg and record.on",
    "message": "that weight is taken",
}


def test_a_write_is_refused_while_a_record_is_in_its_way(records: Records) -> None:
    create = tool(op="create", id="= 'N-' ~ n", set={"kg": "= args.kg", "on": True}, refuse=TAKEN)
    with pytest.raises(Unservable, match="that weight is taken") as refused:
        records.write(create, {"kg": 4})
    assert refused.value.status == 409
    assert records.collections == WORLD
    assert records.created == {}
    records.write(create, {"kg": 9})
    with pytest.raises(Unservable, match="taken"):
        records.write(create, {"kg": 9})
    records.change("boxes/B-1", {"on": False})
    records.write(create, {"kg": 4})


def test_an_update_can_leave_its_own_record_out_of_what_is_in_its_way(records: Records) -> None:
    others = {**TAKEN, "where": "= record.kg == args.kg and record.id != id"}
    update = tool(op="update", id="= args.id", set={"kg": "= args.kg"}, refuse=others)
    records.write(update, {"id": "B-1", "kg": 4})
    with pytest.raises(Unservable, match="taken"):
        records.write(update, {"id": "B-1", "kg": 9})
    assert records.version("boxes/B-1") == 2


def test_a_record_that_the_run_wrote_matures_with_time_and_is_stored_as_it_was() -> None:
    clock = [100.0]
    records = Records.seeded(WORLD, lambda: clock[0])
    watch = tool(op="get", id="= args.id", matures={"field": "on", "value": True, "after_seconds": 60})
    update = tool(op="update", id="= args.id", set={"on": False})
    assert records.read(watch, {"id": "B-2"}).result["on"] is False
    clock[0] += 1000
    assert records.read(watch, {"id": "B-2"}).result["on"] is False, "a seed record never matures"
    records.write(update, {"id": "B-2"})
    clock[0] += 59
    early = records.read(watch, {"id": "B-2"})
    assert early.result["on"] is False
    clock[0] += 1
    late = records.read(watch, {"id": "B-2"})
    assert late.result == {"id": "B-2", "kg": 9, "on": True}
    assert late.version == early.version, "time alone changes no version"
    assert records.collections["boxes"]["B-2"]["on"] is False
    records.write(update, {"id": "B-2"})
    assert records.read(watch, {"id": "B-2"}).result["on"] is False, "it counts from the last write"


def test_what_is_polled_matures_with_the_polls_on_however_slow_a_machine() -> None:
    clock = [0.0]
    watch = tool(op="get", id="= args.id", matures={"field": "on", "value": True, "after_seconds": 60})
    update = tool(op="update", id="= args.id", set={"on": False})
    records = Records.seeded(WORLD, lambda: clock[0], {watch.name: 25.0})
    for _ in range(2):
        records.write(update, {"id": "B-2"})
        clock[0] += 1000
        assert [records.read(watch, {"id": "B-2"}).result["on"] for _ in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (lambda records: records.read(GET, {"id": "B-9"}), 404),
        (lambda records: records.write(UPDATE, {"id": "B-9", "more": 1}), 404),
        (lambda records: records.read(tool(op="list", where="= record.nothing"), {}), 422),
        (lambda records: records.write(tool(op="create", id="B-1", set={"kg": 1}), {}), 409),
        (lambda records: records.read(GET, {}), 422),
        (lambda records: records.write(UPDATE, {"id": "B-1"}), 422),
        (lambda records: records.write(tool(op="create", id="= n", returns={"a": "= record.a"}), {}), 422),
    ],
)
def test_what_the_records_do_not_allow_changes_nothing(
    records: Records, act: Callable[[Records], object], status: int
) -> None:
    with pytest.raises(Unservable) as refused:
        act(records)
    assert refused.value.status == status
    assert records.collections == WORLD
    assert records.created == {}
    assert set(records.versions.values()) == {1}
