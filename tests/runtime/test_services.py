"""One attempt of each outside call: what arrives, and what an answer is taken for."""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall
from kintsugi.runtime.services import Endpoints, Services, Unanswered

PATIENT = {"tool_timeout_seconds": 20.0, "model_timeout_seconds": 20.0}
"""No machine is so slow that what is answered at once is taken for lost."""


class Echo:
    """Answers everything with the same answer, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.answer = web.json_response({})
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), await request.json()))
        answer = self.answer
        headers = {key: value for key, value in answer.headers.items() if not key.startswith("Content-")}
        return web.Response(body=answer.body, status=answer.status, headers=headers, content_type=answer.content_type)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    app = web.Application()
    app.router.add_post("/{rest:.*}", echo.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    echo.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield echo
    await runner.cleanup()


@pytest.fixture
async def services(echo: Echo) -> AsyncIterator[Services]:
    to = {f"KINTSUGI_{name}_URL": f"{echo.url}/{name.lower()}" for name in ("TOOLS", "MODEL", "HUMAN")}
    endpoints = Endpoints.from_environment({**to, "KINTSUGI_TOKEN": "secret"})
    services = Services(endpoints, **PATIENT)
    yield services
    await services.close()


CALL = ToolCall("bank.pay", {"a": 1}, approval="token", if_match="v1")


async def test_a_call_carries_all_that_it_should(echo: Echo, services: Services) -> None:
    echo.answer = web.json_response({"result": 5}, headers={"etag": "v2"})
    outcome = await services.tool("run", CALL, key="k", reference=None)
    assert (outcome.kind, outcome.reply.result, outcome.reply.version) == ("done", 5, "v2")
    ((path, headers, body),) = echo.requests
    assert (path, body) == ("/tools/bank.pay", {"a": 1})
    sent = {"Authorization": "Bearer secret", "Kintsugi-Run": "run", "Idempotency-Key": "k"}
    sent |= {"Approval-Token": "token", "If-Match": "v1"}
    assert sent.items() <= headers.items()
    assert "Client-Reference" not in headers


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (200, "unknown", True),  # It says that it is done, and not what came of it.
        (202, "unknown", True),
        (307, "unknown", True),  # Following it would be a second request that nobody decided on.
        (400, "refused", False),
        (404, "refused", False),
        (408, "unknown", True),
        (409, "refused", False),
        (412, "refused", False),
        (422, "refused", False),
        (429, "refused", True),
        (500, "unknown", True),
        (502, "unknown", True),
        (503, "refused", True),
        (504, "unknown", True),
    ],
)
async def test_what_a_status_says_of_the_effect(
    echo: Echo, services: Services, status: int, kind: str, *, retryable: bool
) -> None:
    echo.answer = web.json_response({"error": {"message": "why"}}, status=status, headers={"Location": "/x"})
    outcome = await services.tool("run", CALL, key=None, reference=None)
    assert (outcome.kind, outcome.retryable) == (kind, retryable)
    assert (outcome.reply.ok, outcome.reply.status, outcome.reply.error) == (False, status, "why")
    assert len(echo.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "flat"}', b"[]", b"\xff\xfe"])
async def test_an_errors_body_may_be_anything(echo: Echo, services: Services, body: bytes) -> None:
    echo.answer = web.Response(body=body, status=503)
    outcome = await services.tool("run", CALL, key=None, reference=None)
    assert (outcome.kind, outcome.retryable) == ("refused", True)
    assert outcome.reply.error in {"status 503", "flat"}


async def test_a_refused_connection_had_no_effect() -> None:
    nobody = "http://127.0.0.1:9"
    endpoints = Endpoints(nobody, nobody, nobody, "t")
    nowhere = Services(endpoints, **PATIENT)
    outcome = await nowhere.tool("run", CALL, key=None, reference=None)
    assert (outcome.kind, outcome.retryable) == ("refused", True)
    with pytest.raises(Unanswered):
        await nowhere.find_effect("run", "t", "r")
    await nowhere.close()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
async def test_retry_after_in_seconds(echo: Echo, services: Services, given: str, seconds: float | None) -> None:
    echo.answer = web.json_response({}, status=429, headers={"retry-after": given})
    outcome = await services.tool("run", CALL, key=None, reference=None)
    assert outcome.retry_after_seconds == seconds


async def test_retry_after_as_a_date(echo: Echo, services: Services) -> None:
    sent_at = time.time()
    at = int(sent_at) + 3600
    echo.answer = web.json_response({}, status=503, headers={"Retry-After": formatdate(at, usegmt=True)})
    outcome = await services.tool("run", CALL, key=None, reference=None)
    assert outcome.retry_after_seconds is not None
    assert at - time.time() <= outcome.retry_after_seconds <= at - sent_at


async def test_looking_for_an_effect(echo: Echo, services: Services) -> None:
    echo.answer = web.json_response({"result": {"id": 1}})
    found = await services.find_effect("run", "bank.pay", "ref")
    assert found is not None
    assert found.result == {"id": 1}
    path, headers, _ = echo.requests[0]
    assert (path, headers["Client-Reference"]) == ("/tools/bank.pay/find", "ref")
    echo.answer = web.json_response({"error": {"message": "none"}}, status=404)
    assert await services.find_effect("run", "bank.pay", "ref") is None
    for status, body in ((404, "no such page"), (200, "{}"), (200, "gone"), (503, "{}")):
        echo.answer = web.Response(text=body, status=status)
        with pytest.raises(Unanswered):
            await services.find_effect("run", "bank.pay", "ref")


async def test_asking_the_model(echo: Echo, services: Services) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    echo.answer = web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3}})
    request = ModelRequest("think", [{"role": "user", "content": "?"}], schema={"type": "object"})
    assert await services.model("run", request, request.messages, "m") == {
        **choice,
        "usage": {"prompt_tokens": 3},
    }
    path, _, body = echo.requests[0]
    assert path == "/model/chat/completions"
    schema = {"name": "think", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    answer: object
    for answer in ({}, {"choices": []}, {"choices": {}}, {"choices": ["x"]}, []):
        echo.answer = web.json_response(answer)
        with pytest.raises(Unanswered, match="no choice"):
            await services.model("run", request, request.messages, "m")


async def test_a_person_is_asked_polled_and_told_of_the_end(echo: Echo, services: Services) -> None:
    await services.ask("run", "q1", Question("approval", "s", tool="t", arguments={"a": 1}))
    path, _, body = echo.requests[0]
    assert (path, body["request_id"], body["kind"]) == ("/human/requests", "q1", "approval")
    assert await services.decision("run", "q1") is None
    echo.answer = web.json_response({"decision": {"decision_id": "d", "decision": "approve", "more": 1}})
    assert await services.decision("run", "q1") == Decision("d", "approve")
    echo.answer = web.json_response({"decision": {"decision": "approve"}})
    with pytest.raises(Unanswered):
        await services.decision("run", "q1")
    await services.report_end("run", "completed", "fine")
    assert echo.requests[-1][2] == {"status": "completed", "detail": "fine"}
    echo.answer = web.json_response({}, status=500)
    with pytest.raises(Unanswered, match="500"):
        await services.report_end("run", "completed", "fine")
