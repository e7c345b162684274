"""A model behind litellm, at a server of the test's own: what of it reaches the SUT, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kintsugi.golden_workflows.chains.naive import _functions
from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.models import provider as provider_module
from kintsugi.harness.models.answers import BROKEN_OFF, NoAnswer, NoneAtAll
from kintsugi.harness.models.provider import Provider, load, redacted
from kintsugi.harness.models.reach import FAILURES_MAX
from kintsugi.harness.models.real import Live
from kintsugi.harness.models.spend import Meter
from kintsugi.harness.prices import no_price

if TYPE_CHECKING:
    from tests.harness.models.conftest import FakeProvider

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("litellm")]

NewDoors = Callable[..., AbstractAsyncContextManager[Any]]
NAME = "openai/fake"
KEY = "sk-planted-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def live(provider: FakeProvider, tmp_path: Path) -> Live:
    return Live(Provider(NAME, provider.url), Meter(no_price(NAME), None, tmp_path / "spend.jsonl"))


def turn(world: Any) -> dict[str, Any]:
    """What a naive chain asks first."""
    plan = world.session.workflow.plan
    return {"messages": [{"role": "user", "content": plan["task"]}], "tools": _functions(plan)}


async def asked(world: Any, live: Live, **more: Any) -> Any:
    world.session.model = live
    return await world.post("model", "/chat/completions", {**turn(world), **more})


async def test_the_reply_is_the_provider_s_and_so_are_its_tokens(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    async with open_doors() as world:
        answer = await asked(world, live, model="m")
        (choice,) = answer.body["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "erp__get_invoice"
        (generated,), (reply,) = world.saw("gateway", "generated"), world.saw("gateway", "reply")
        assert reply["message"] == choice["message"]
        assert reply["as_scripted"]
        assert (generated["cached_prompt_tokens"], generated["completion_tokens"]) == (512, 33)
        assert generated["prompt_tokens"] == answer.body["usage"]["prompt_tokens"] > 1000
        assert not generated["estimated"]
        (sent,) = provider.asked
        assert (sent["model"], sent["messages"], sent["tools"]) == (
            "fake",
            *(turn(world)[k] for k in ("messages", "tools")),
        )
        assert provider.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_a_sut_that_wants_a_stream_is_given_one_and_the_provider_is_asked_for_the_whole(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    async with open_doors() as world:
        answer = await asked(world, live, stream=True)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        *events, end, _ = answer.body.split("\n\n")
        assert end == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        parts = [p for c in chunks for choice in c["choices"] for p in choice["delta"].get("tool_calls", [])]
        (reply,) = world.saw("gateway", "reply")
        made = reply["message"]["tool_calls"][0]["function"]["arguments"]
        assert "".join(part["function"]["arguments"] for part in parts) == made
        assert chunks[-1]["usage"]["completion_tokens"] == 33
        assert not provider.asked[0].get("stream")


async def test_where_no_usage_comes_the_tokens_are_an_estimate_and_said_to_be(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    provider.usage = False
    async with open_doors() as world:
        await asked(world, live)
        (ask,), (generated,) = world.saw("gateway", "ask"), world.saw("gateway", "generated")
        assert generated["estimated"]
        assert generated["prompt_tokens"] == ask["prompt_tokens"]


@pytest.mark.parametrize(
    ("message", "read"),
    [
        (
            {"role": "assistant", "content": "I would rather not."},
            {"role": "assistant", "content": "I would rather not."},
        ),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
    ],
)
async def test_whatever_the_model_says_is_a_reply(
    open_doors: NewDoors, provider: FakeProvider, live: Live, message: Any, read: Any
) -> None:
    provider.answers = lambda request, _: provider.completion(message, request)
    async with open_doors() as world:
        answer = await asked(world, live)
        assert answer.status == 200
        assert answer.body["choices"][0]["message"] == read
        (reply,) = world.saw("gateway", "reply")
        assert not reply["as_scripted"]
        assert reply["right"]["function"] == "erp__get_invoice"


async def test_a_call_that_is_no_call_reaches_the_sut_as_one(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    odd = [{"id": "c1", "type": "function", "function": {"name": "erp__get_invoice", "arguments": '{"invoice_id": '}}]
    provider.answers = lambda request, _: provider.completion(
        {"role": "assistant", "content": None, "tool_calls": odd}, request, "tool_calls"
    )
    async with open_doors() as world:
        answer = await asked(world, live)
        assert answer.body["choices"][0]["message"]["tool_calls"] == odd


@pytest.mark.parametrize("how", ["invented_parameter", "same_call_twice", "unknown_tool", "wrong_types"])
async def test_what_the_model_has_spoilt_itself_a_fault_may_find_nothing_to_damage_in(
    open_doors: NewDoors, provider: FakeProvider, live: Live, how: str
) -> None:
    odd = [{"id": "c1", "type": "function", "function": {"name": "erp__get_invoice", "arguments": "{"}}]
    provider.answers = lambda request, _: provider.completion(
        {"role": "assistant", "content": None, "tool_calls": odd}, request, "tool_calls"
    )
    async with open_doors("finance/invoice_payment", f"malformed_output.{how}@model:invoice[0]#1@during") as world:
        assert (await asked(world, live)).status == 200
        (reply,) = world.saw("gateway", "reply")
        assert bool(world.saw("nemesis", "witnessed")) == reply["damaged"]


async def test_a_fault_damages_a_real_reply(open_doors: NewDoors, live: Live) -> None:
    async with open_doors(
        "finance/invoice_payment", "malformed_output.invalid_json@model:invoice[0]#1@during"
    ) as world:
        first = await asked(world, live)
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(first.body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
        second = await asked(world, live)
        json.loads(second.body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
        assert [event["damaged"] for event in world.saw("gateway", "reply")] == [True, False]
        assert len(world.saw("nemesis", "witnessed")) == 1


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "2"}), (429, {}), (500, {}), (503, {"Retry-After": "1"}), (400, {})]
)
async def test_a_provider_s_error_is_the_sut_s_to_deal_with(
    open_doors: NewDoors, provider: FakeProvider, live: Live, status: int, headers: dict[str, str]
) -> None:
    said = {"error": {"message": f"not now, {KEY}"}}
    provider.answers = lambda _, __: web.json_response(said, status=status, headers=headers)
    async with open_doors() as world:
        answer = await asked(world, live)
        assert answer.status == status
        assert answer.headers.get("Retry-After", "") == headers.get("Retry-After", "")
        (refused,) = world.saw("gateway", "refused")
        assert refused["status"] == status
        assert "not now, [OPENAI_API_KEY]" in refused["error"] == answer.body["error"]["message"]
        assert world.saw("gateway", "generated", "reply") == []
        assert len(provider.asked) == 1, "nothing is tried again"


@pytest.mark.parametrize("body", ["no JSON", "[1]", "{}"])
async def test_what_is_no_completion_is_an_error_of_the_provider(
    open_doors: NewDoors, provider: FakeProvider, live: Live, body: str
) -> None:
    provider.answers = lambda _, __: web.Response(text=body, content_type="application/json")
    async with open_doors() as world:
        assert (await asked(world, live)).status in {200, 500, 502}
        assert len(world.saw("gateway", "refused", "reply")) == 1


async def test_a_provider_that_breaks_off_is_an_error(open_doors: NewDoors, provider: FakeProvider, live: Live) -> None:
    async def breaks_off(incoming: web.Request) -> web.StreamResponse:
        half = web.StreamResponse(headers={"Content-Length": "100"})
        await half.prepare(incoming)
        await half.write(b'{"id"')
        assert incoming.transport is not None
        incoming.transport.abort()
        return half

    provider.answers = lambda _, incoming: breaks_off(incoming)
    async with open_doors() as world:
        assert (await asked(world, live)).status == BROKEN_OFF, "it may have been charged, as an error is not"


async def test_a_provider_that_is_too_slow_is_given_up_before_the_sut_does(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    provider.answers = lambda _, __: never()
    async with open_doors() as world:
        workflow = world.session.workflow
        impatient = workflow.policy.model_copy(update={"model_timeout_seconds": 1.0})
        try:
            workflow.policy, patient = impatient, workflow.policy
            answer = await asked(world, live)
        finally:
            workflow.policy = patient
        assert answer.status == 504
        assert "no answer within 0.75 s" in answer.body["error"]["message"]


async def ends_the_run(open_doors: NewDoors, live: Live, *before: int) -> str:
    """Why a trial's request ends the run, after others that were answered with such a status."""

    async def trial() -> None:
        async with open_doors() as world:
            for status in before:
                assert (await asked(world, live)).status == status
                assert not live.stopped
            posting = asyncio.ensure_future(asked(world, live))
            await asyncio.wait([posting, world.session.broken], return_when=asyncio.FIRST_COMPLETED)
            posting.cancel()

    with pytest.raises(NoneAtAll) as problem:
        await trial()
    assert live.stopped == str(problem.value)
    assert "\n" not in live.stopped
    assert KEY not in live.stopped
    return live.stopped


@pytest.mark.parametrize(
    ("status", "why"), [(401, "does not take the key"), (402, "wants to be paid first"), (404, "does not have it")]
)
async def test_what_no_sut_can_mend_ends_the_run(
    open_doors: NewDoors, provider: FakeProvider, live: Live, status: int, why: str
) -> None:
    said = {"error": {"message": f"no: {KEY}"}}
    provider.answers = lambda _, __: web.json_response(said, status=status)
    assert why in await ends_the_run(open_doors, live)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "project_limit"}),
        (429, {"message": "no more this month", "type": "enforced_spend_limit_reached"}),
        (400, {"message": "Your credit balance is too low to be served", "type": "invalid_request_error"}),
    ],
)
async def test_an_account_without_credit_ends_the_run_whenever_that_is(
    open_doors: NewDoors, provider: FakeProvider, live: Live, status: int, error: dict[str, str]
) -> None:
    """Every trial after it would fail, and no SUT had a part in it."""
    plain = provider.answers
    provider.answers = lambda request, incoming: (
        plain(request, incoming) if len(provider.asked) == 1 else web.json_response({"error": error}, status=status)
    )
    said = await ends_the_run(open_doors, live, 200)
    assert "its provider wants to be paid first (402)" in said
    assert error["message"] in said


# --- before it has answered anything ------------------------------------------------------------------------


def failing(said: str, status: int = 500) -> Callable[[Any, Any], Any]:
    return lambda _, __: web.json_response({"error": {"message": said}}, status=status)


async def broken_off(_: Any, incoming: web.Request) -> web.Response:
    assert incoming.transport is not None
    incoming.transport.abort()
    return web.Response()


def metered(base: str, folder: Path) -> Live:
    return Live(Provider(NAME, base), Meter(no_price(NAME), None, folder / "spend.jsonl"))


async def test_a_server_that_is_not_there_ends_the_run_at_once(
    open_doors: NewDoors, refusing: str, tmp_path: Path
) -> None:
    said = await ends_the_run(open_doors, metered(refusing, tmp_path))
    assert said.startswith(f"{NAME} at {refusing} has answered nothing in this run: no connection can be made: [Errno ")
    assert said.endswith("; see to the server, or correct --model-base")


async def test_a_name_that_nobody_has_ends_the_run_at_once(
    open_doors: NewDoors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = await ends_the_run(open_doors, metered("http://nowhere.invalid/v1", tmp_path))
    assert "Name or service not known; " in said


@pytest.mark.parametrize(
    ("status", "why"), [*((status, "not for you, [OPENAI_API_KEY]; ") for status in (500, 429)), (BROKEN_OFF, "; ")]
)
async def test_a_server_that_fails_three_times_ends_the_run(
    open_doors: NewDoors, provider: FakeProvider, live: Live, status: int, why: str
) -> None:
    provider.answers = broken_off if status == BROKEN_OFF else failing(f"not for you, {KEY}", status)
    said = await ends_the_run(open_doors, live, *[status] * (FAILURES_MAX - 1))
    assert said.startswith(f"{NAME} at {provider.url} has answered nothing in this run: status {status}: ")
    assert why in said
    assert await ends_the_run(open_doors, live) == said
    assert len(provider.asked) == FAILURES_MAX, "nobody is asked any more, for whichever trial"


async def test_after_one_answer_a_server_that_fails_is_the_sut_s_to_deal_with(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    provider.answers = failing("not yet")
    async with open_doors() as world:
        for _ in range(FAILURES_MAX - 1):
            await asked(world, live)
        provider.answers = lambda request, _: provider.by_script(request)
        assert (await asked(world, live)).status == 200
        provider.answers = failing("no more")
        for _ in range(FAILURES_MAX + 1):
            assert (await asked(world, live)).status == 500
        provider.close()
        assert (await asked(world, live)).status >= 500, "and so is one that is gone"
        assert not live.stopped


async def test_those_who_ask_at_once_are_waited_for(
    open_doors: NewDoors, provider: FakeProvider, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, turned_away = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def at_last(request: Any) -> Any:
        loop.call_soon_threadsafe(arrived.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(turned_away.wait(), loop))
        return provider.by_script(request)

    def one_only(request: Any, other: web.Request) -> Any:
        return at_last(request) if len(provider.asked) == 1 else failing("too many")(request, other)

    provider.answers = one_only
    async with open_doors() as world:
        workflow = world.session.workflow
        patient = workflow.policy.model_copy(update={"model_timeout_seconds": 60.0})
        monkeypatch.setattr(workflow, "policy", patient)
        posting = asyncio.ensure_future(asked(world, live))
        await arrived.wait()
        for _ in range(2 * FAILURES_MAX):
            assert (await asked(world, live)).status == 500
        turned_away.set()
        assert (await posting).status == 200
        assert not live.stopped


async def test_a_trial_says_nothing_of_its_sut_where_nothing_was_answered(
    open_doors: NewDoors, provider: FakeProvider, live: Live
) -> None:
    provider.answers = failing("not yet")
    async with open_doors() as world:
        trial = world.session.trial
        live.vouch(trial)
        await asked(world, live)
        with pytest.raises(NoAnswer, match=r"has answered nothing in this run: status 500: .*not yet$"):
            live.vouch(trial)
        provider.answers = lambda request, _: provider.by_script(request)
        await asked(world, live)
        live.vouch(trial)


# --- before it is asked -------------------------------------------------------------------------------------


def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(FileProblem, match="OPENAI_API_KEY: not in the environment"):
        Provider("openai/gpt-5.4-mini")
    Provider("openai/gpt-5.4-mini", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_key_that_is_blank_is_missing(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", blank)
    with pytest.raises(FileProblem, match="OPENAI_API_KEY: not in the environment, or blank"):
        Provider("openai/gpt-5.4-mini")


async def test_a_server_of_one_s_own_is_sent_no_blank_key(
    open_doors: NewDoors, provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    live = metered(provider.url, tmp_path)
    async with open_doors() as world:
        assert (await asked(world, live)).status == 200
    assert provider.headers[0]["Authorization"] == "Bearer none"


@pytest.mark.parametrize("name", ["nobody/nothing", "nonsense"])
def test_a_provider_that_nobody_knows(name: str) -> None:
    with pytest.raises(FileProblem, match=f"--model '{name}': PROVIDER/NAME"):
        Provider(name)


@pytest.mark.parametrize(
    "base", ["127.0.0.1:8000", "http://user:secret@127.0.0.1/v1", "http://127.0.0.1/v1?key=secret"]
)
def test_a_server_s_url_holds_no_key(base: str) -> None:
    with pytest.raises(FileProblem, match="--model-base") as problem:
        Provider(NAME, base)
    assert "secret" not in str(problem.value)


def test_litellm_is_told_to_keep_to_itself() -> None:
    litellm = load()
    assert not litellm.telemetry
    assert litellm.callbacks == litellm.success_callback == litellm.failure_callback == []


def test_keys_are_taken_out_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_KEY", "a")
    monkeypatch.setenv("OTHER_KEY", "sk-with-a-line-end\n")
    assert redacted(f"a {KEY}!") == "a [OPENAI_API_KEY]!"
    assert redacted("b'sk-with-a-line-end\\n'") == "b'[OTHER_KEY]\\n'"


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "find_spec", lambda _: None)
    with pytest.raises(FileProblem, match=r"pip install 'kintsugi-bench\[models\]'"):
        load.__wrapped__()
