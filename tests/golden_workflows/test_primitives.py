"""What a tool and a plan can do beside plain calls, together in one workflow: it is proven, and a chain carries it."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kintsugi.golden_workflows.chains import optimized
from kintsugi.golden_workflows.forms import Effect
from kintsugi.golden_workflows.records import Records, Unservable
from kintsugi.golden_workflows.reference import check_truth, trajectory
from kintsugi.golden_workflows.spec import FileProblem, load_workflow
from kintsugi.golden_workflows.walk import walk
from kintsugi.golden_workflows.workflow import Workflow
from kintsugi.runtime.gathering import one_after_another
from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall, ToolReply, WorkflowFailed

T = TypeVar("T")

FILE = Path(__file__).parent / "primitives" / "depot" / "stocktake.toml"
WORKFLOW = load_workflow(FILE)


class Memory:
    """A durable context over a workflow's records in memory; `backwards` it does the last of several calls first."""

    run_id = "r0"

    def __init__(self, workflow: Workflow, *, backwards: bool = False) -> None:
        self.workflow, self.backwards = workflow, backwards
        self.clock = 0.0
        self.records = workflow.records(lambda: self.clock)
        self.names: list[str] = []
        self.effects: list[Effect] = []
        self.drift = ""

    async def model(self, name: str, request: ModelRequest) -> Mapping[str, Any]:
        parcels = json.loads(request.messages[-1]["content"].splitlines()[-1])["inputs"]["parcels"]
        heavy = sum(parcel["kg"] > 20 for parcel in parcels)
        return {"parsed": {"parcels": len(parcels), "heavy": heavy, "note": "On their way."}}

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        self.names.append(name)
        tool = self.workflow.tools[call.tool]
        try:
            answer = (self.records.read if tool.effect == "read" else self.records.write)(tool, call.arguments)
        except Unservable as error:
            return ToolReply(ok=False, status=error.status, error=str(error))
        if tool.effect == "write":
            given = {n: v for n, v in call.arguments.items() if n not in self.workflow.free_arguments[step]}
            self.effects.append(Effect(step=step, tool=call.tool, args=given))
        return ToolReply(ok=True, result=answer.result, version=answer.version)

    async def ask_human(self, name: str, question: Question) -> Decision:
        if self.drift:
            drift = self.workflow.drifts[self.drift]
            self.records.change(drift.record, drift.set)
            self.drift = ""
        return Decision(name, "approve", token="t")

    async def sleep(self, name: str, seconds: float) -> None:
        self.names.append(name)
        self.clock += seconds

    async def now(self, name: str) -> float:
        return self.clock

    async def gather(self, *calls: Awaitable[T]) -> list[T]:
        turn = -1 if self.backwards else 1
        return (await one_after_another(calls[::turn]))[::turn]

    def run(self, drift: str = "") -> str:
        self.drift = drift
        return asyncio.run(optimized.run(self, json.loads(json.dumps(self.workflow.plan))))


def altered(tmp_path: Path, *changes: tuple[str, str]) -> Workflow:
    """The workflow with something else in its file."""
    text = FILE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "depot" / "stocktake.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return load_workflow(path, FILE.parents[1] / "tools")


# --- the walk -----------------------------------------------------------------------------------------------


def test_plan_and_truth_agree() -> None:
    check_truth(WORKFLOW)


def test_a_walk_reads_every_page_once_and_a_step_that_is_polled_once() -> None:
    calls = trajectory(WORKFLOW)
    assert [call.arguments["page"] for call in calls if call.tool == "depot.list_parcels"] == [1, 2, 3]
    assert [visit.value["status"] for visit in walk(WORKFLOW) if visit.call.step == "count"] == ["done"]


def test_the_calls_of_a_correct_run_are_walked_once() -> None:
    assert all(one is same for one, same in zip(trajectory(WORKFLOW), trajectory(WORKFLOW, None), strict=True))


def test_a_walk_backwards_does_the_same_in_another_order() -> None:
    there, back = ([call.step for call in trajectory(WORKFLOW)], [v.call.step for v in walk(WORKFLOW, backwards=True)])
    assert there[-4:] == ["dock", "labels", "tell", "close"]
    assert back[-4:] == ["tell", "labels", "dock", "close"]
    assert Counter(there) == Counter(back)


POLLED = "every_seconds = 3600"
TELL = 'tool = "depot.tell"\nargs = { team = "drivers", text = "= judge.note" }'
TOLD = '{ step = "tell", tool = "depot.tell", args = { team = "drivers" } }'
"""A second booking in the group, by which the first may get another id."""
SECOND = [
    (TELL, 'tool = "depot.book_dock"\nargs = { dock = "D2", start = 1, end = 2 }'),
    (TOLD, '{ step = "tell", tool = "depot.book_dock", args = { dock = "D2", start = 1, end = 2 } }'),
]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([(POLLED, f"{POLLED}\npolls_max = 3")], r"plan\.count: 'until' did not hold in 3 reads; .*'running'"),
        ([("result.status ==", "result.state ==")], r"plan\.count: .* has no attribute 'state'"),
        (
            [(POLLED, f'{POLLED}\n\n[[plan]]\nid = "rest"\nsleep_seconds = 3600')],
            r"plan\.rest: begins right after 'count', whose last poll no one can tell from the others",
        ),
        ([("start = 10, end =", "start = 9, end =")], r"plan\.dock: that dock is taken then"),
        (
            [*SECOND, ("booking_id != ''", "booking_id == 'BOOK-1'")],
            r"plan\.close: what it is called with depends on which of a parallel group comes first",
        ),
        (
            [
                (TELL, 'tool = "depot.book_dock"\nargs = { dock = "D1", start = 11, end = 30 }'),
                (TOLD, '{ step = "tell", tool = "depot.book_dock", args = { dock = "D1", start = 11, end = 30 } }'),
            ],
            r"plan\.tell: that dock is taken then",
        ),
    ],
)
def test_what_could_not_be_judged_is_refused(changes: list[tuple[str, str]], says: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=says):
        check_truth(altered(tmp_path, *changes))


def test_a_second_effect_in_one_collection_is_no_matter_while_nothing_rests_on_its_id(tmp_path: Path) -> None:
    check_truth(altered(tmp_path, *SECOND))


# --- the optimized chain ------------------------------------------------------------------------------------


def test_the_chain_comes_to_the_truth_whichever_of_a_group_is_first() -> None:
    there, back = Memory(WORKFLOW), Memory(WORKFLOW, backwards=True)
    assert there.run() == back.run() == "all steps done"
    assert there.effects == WORKFLOW.truth.effects
    assert [effect.step for effect in back.effects] == ["begin", "tell", "labels", "dock", "close"]
    assert sorted(there.names) == sorted(back.names), "a call has its name, in whichever order it is made"


def test_the_chain_polls_until_what_it_waits_for_has_come() -> None:
    memory = Memory(WORKFLOW)
    memory.run()
    polls = [name for name in memory.names if "count" in name]
    assert polls[:4] == ["count[0]#1", "poll count#1", "count[0]#2", "poll count#2"]
    assert polls[4:] == [
        "count[0]#3",
        "poll count#3",
        "count[0]#4",
        "poll count#4",
        "count[0]#5",
        "poll count#5",
        "count[0]#6",
    ]
    assert memory.clock == 18000


def test_the_chain_gives_up_after_as_many_polls_as_it_may_make(tmp_path: Path) -> None:
    memory = Memory(altered(tmp_path, (POLLED, f"{POLLED}\npolls_max = 3")))
    with pytest.raises(WorkflowFailed, match="count: what it waits for did not come in 3 reads"):
        memory.run()


def test_a_page_that_has_changed_is_read_again_and_what_rests_on_it_decided_again() -> None:
    memory = Memory(WORKFLOW)
    memory.run("one_was_moved")
    assert memory.effects == WORKFLOW.drifts["one_was_moved"].effects


def test_a_poll_takes_time_in_which_other_reads_grow_old(tmp_path: Path) -> None:
    """What a write needs fresh is read again after the polls, as after any other wait."""
    written = 'args = { count_id = "= count.id", docked'
    memory = Memory(altered(tmp_path, (written, f'fresh = ["first"]\n{written}')))
    memory.run()
    assert [name for name in memory.names if name.startswith("first")] == ["first[0]#1", "first[0]#2", "first[0]#3"]
    assert memory.names[-2:] == ["first[0]#3", "close[0]#1"]


def test_a_read_that_is_to_be_fresh_is_polled_again_where_its_job_was_begun_anew(tmp_path: Path) -> None:
    """Somebody starts the job again while an approval is waited for: its old result is none."""
    big = 'id = "close"\ntool = "depot.close_count"\n'
    again = (
        'id = "recount"\ntool = "depot.start_count"\nargs = { zone = "B", parcels = 9 }\nfresh = ["count"]\n\n'
        f"[[plan]]\n{big}"
    )
    workflow = altered(tmp_path, (big, again), ("begin = []", "begin = []\nrecount = []"))
    begun_anew = {"status": "running"}

    class Restarted(Memory):
        async def ask_human(self, name: str, question: Question) -> Decision:
            if question.step == "recount":
                key = ("counts", "CNT-1")
                self.records.change("/".join(key), begun_anew)
                assert isinstance(self.records, Records)
                self.records.polls.pop(key)
            return await super().ask_human(name, question)

    memory = Restarted(workflow)
    memory.run()
    asked_again = memory.names.index("dock[0]#1")
    later = [name for name in memory.names[asked_again:] if "count[" in name or name.startswith("poll")]
    assert later[:2] == ["count[0]#7", "poll count#6"]
    assert memory.clock == 36000, "the second job takes as long as the first"


class Refusing(Memory):
    """A world that refuses one step's call."""

    def __init__(self, workflow: Workflow, step: str) -> None:
        super().__init__(workflow)
        self.step = step

    async def tool(self, name: str, call: ToolCall, *, step: str, item: int = 0) -> ToolReply:
        if step == self.step:
            return ToolReply(ok=False, status=409, error="that dock is taken then")
        return await super().tool(name, call, step=step, item=item)


@pytest.mark.parametrize("step", ["dock", "labels", "tell"])
def test_a_group_fails_with_the_first_of_its_steps_that_fails(step: str) -> None:
    with pytest.raises(WorkflowFailed, match=f"{step}: depot.* that dock is taken then"):
        Refusing(WORKFLOW, step).run()
