"""An OpenAI-compatible server on loopback, in a thread of its own, that answers a workflow's requests by the script."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

import pytest
from aiohttp import web

from kintsugi.golden_workflows.spec import Workflow, load_workflows
from kintsugi.harness.models.provider import load
from kintsugi.harness.models.tokens import tokens_of
from kintsugi.harness.script import reply_to, wanted_by

Answers = Callable[[Mapping[str, Any], web.Request], Any]
"""What to answer a request with: a completion as JSON, or a response as it is, or something to be awaited for one."""


class FakeProvider:
    """Serves ``/v1/chat/completions`` at `url`; `asked` holds every body, `headers` those of every request."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.answers: Answers = lambda request, _: self.by_script(request)
        self.usage = True
        self.url = ""
        self._times: Counter[tuple[str, int]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True)
        ready: Future[str] = Future()
        self._thread.start()
        self.url = ready.result(20)

    async def _serve(self, ready: Future[str]) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await self._stop.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _complete(self, incoming: web.Request) -> web.StreamResponse:
        request = await incoming.json()
        self.asked.append(request)
        self.headers.append(dict(incoming.headers))
        answer = self.answers(request, incoming)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    def by_script(self, request: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The script's reply as a provider gives it: with an id for each call that nobody foresees."""
        wanted = wanted_by(self.workflow, request)
        self._times[wanted.step, wanted.item] += 1
        reply = reply_to(self.workflow, wanted, 11, self._times[wanted.step, wanted.item])
        message = json.loads(json.dumps(reply.message))
        for call in message.get("tool_calls", []):
            call["id"] = f"call_{uuid.uuid4().hex}"
        return self.completion({**message, **changes}, request, reply.finish_reason)

    def completion(self, message: Any, request: Mapping[str, Any], reason: str = "stop") -> dict[str, Any]:
        usage = {"prompt_tokens": tokens_of(request["messages"]) + 1000, "completion_tokens": 33}
        usage |= {"total_tokens": sum(usage.values())}
        details = {"prompt_tokens_details": {"cached_tokens": 512}}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            **({"usage": usage | details} if self.usage else {}),
        }


@pytest.fixture(scope="session")
def litellm() -> None:
    """litellm is there, and loaded, which takes its time."""
    if find_spec("litellm") is None:
        pytest.skip("litellm is not there: make models")
    load()


@pytest.fixture(scope="module")
def new_provider() -> Iterator[Callable[..., FakeProvider]]:
    """Opens providers that know a workflow, ``finance/invoice_payment`` unless another is named."""
    opened: list[FakeProvider] = []

    def new(workflow: str = "finance/invoice_payment") -> FakeProvider:
        opened.append(FakeProvider(load_workflows()[workflow]))
        return opened[-1]

    yield new
    for fake in opened:
        fake.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a server that is not there: its port is taken, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@pytest.fixture
def provider(new_provider: Callable[..., FakeProvider]) -> FakeProvider:
    """A provider of the test's own."""
    return new_provider()
