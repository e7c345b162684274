"""One attempt at a time of each outside call, over HTTP: what every Python SUT uses inside its own retry.

Nothing here retries, waits or remembers. An attempt ends as an `Outcome`, so that what may have happened is
never confused with what can't have.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import aiohttp

from kintsugi.runtime.protocol import Decision, ModelRequest, Question, ToolCall, ToolReply
from kintsugi.runtime.rules import Outcome

__all__ = ["Endpoints", "Services", "Unanswered"]


class Unanswered(ConnectionError):
    """No usable answer came: a time-out, a broken connection, or an error status (`status`, 0 where none)."""

    def __init__(self, reason: str, status: int = 0, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Endpoints:
    """Where the outside world is, as a worker is told in its environment."""

    tools_url: str
    model_url: str
    human_url: str
    token: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Endpoints:
        """Read KINTSUGI_TOOLS_URL, _MODEL_URL, _HUMAN_URL and _TOKEN. KeyError where one is missing."""
        names = ("TOOLS_URL", "MODEL_URL", "HUMAN_URL", "TOKEN")
        return cls(*(environment[f"KINTSUGI_{name}"] for name in names))


class Services:
    """An HTTP session to the tools, the model and the human. Time-outs are in seconds."""

    def __init__(self, endpoints: Endpoints, *, tool_timeout_seconds: float, model_timeout_seconds: float) -> None:
        self._to = endpoints
        self._tool_timeout = tool_timeout_seconds
        self._model_timeout = model_timeout_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Authorization": f"Bearer {endpoints.token}"},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _post(
        self, url: str, body: object, headers: Mapping[str, str], timeout_seconds: float
    ) -> tuple[int, Any, Mapping[str, str]]:
        """An answer's status, JSON body (None where it is no JSON) and headers, whose names know no case.

        Raises ConnectionRefusedError where nothing was sent, Unanswered where no whole answer came.
        """
        try:
            # A redirect would send a write again without anyone having decided to.
            async with self._session.post(
                url,
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_seconds),
                allow_redirects=False,
            ) as response:
                content = await response.read()
                return response.status, _json_or_none(content), response.headers
        except aiohttp.ClientConnectorError as error:
            raise ConnectionRefusedError(str(error)) from error
        except TimeoutError as error:
            raise Unanswered(f"no answer within {timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(f"{type(error).__name__}: {error}") from error

    async def tool(self, run_id: str, call: ToolCall, *, key: str | None, reference: str | None) -> Outcome:
        """One attempt of a tool call, with its idempotency key or client reference where it takes one."""
        headers = {"Kintsugi-Run": run_id}
        optional = {
            "Idempotency-Key": key,
            "Client-Reference": reference,
            "Approval-Token": call.approval,
            "If-Match": call.if_match,
        }
        headers.update({name: value for name, value in optional.items() if value is not None})
        try:
            status, body, answer = await self._post(
                f"{self._to.tools_url}/{call.tool}", dict(call.arguments), headers, self._tool_timeout
            )
        except ConnectionRefusedError as error:
            return Outcome("refused", ToolReply(ok=False, status=0, error=str(error)), retryable=True)
        except Unanswered as error:
            return Outcome("unknown", ToolReply(ok=False, status=0, error=str(error)), retryable=True)
        return _outcome(status, body, answer)

    async def find_effect(self, run_id: str, tool: str, reference: str) -> ToolReply | None:
        """The result of the effect of this client reference; None if there is none. Raises Unanswered."""
        headers = {"Kintsugi-Run": run_id, "Client-Reference": reference}
        try:
            status, body, answer = await self._post(
                f"{self._to.tools_url}/{tool}/find", {}, headers, self._tool_timeout
            )
        except ConnectionRefusedError as error:
            raise Unanswered(str(error)) from error
        # Only the service's own answer, which has a JSON body, is trusted to say that there is no effect: the
        # bare 404 of something in between would otherwise allow a second one.
        if status == HTTPStatus.NOT_FOUND and isinstance(body, Mapping):
            return None
        if status != HTTPStatus.OK or not isinstance(body, Mapping) or "result" not in body:
            raise Unanswered(f"status {status}", status, _retry_after(answer))
        return ToolReply(ok=True, result=body["result"], version=answer.get("ETag"))

    async def model(self, run_id: str, request: ModelRequest, messages: list[Any], model: str) -> Mapping[str, Any]:
        """The first choice of one chat completion, with the ``usage`` of the whole. Raises Unanswered."""
        body: dict[str, Any] = {"model": model, "messages": messages}
        if request.schema is not None:
            schema = {"name": request.step, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.tools is not None:
            body["tools"] = request.tools
        try:
            status, answer, headers = await self._post(
                f"{self._to.model_url}/chat/completions", body, {"Kintsugi-Run": run_id}, self._model_timeout
            )
        except ConnectionRefusedError as error:
            raise Unanswered(str(error)) from error
        if status != HTTPStatus.OK:
            raise Unanswered(f"the model answered status {status}", status, _retry_after(headers))
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            raise Unanswered("the model's answer held no choice", status)
        return {"usage": answer.get("usage"), **choices[0]}

    async def ask(self, run_id: str, request_id: str, question: Question) -> None:
        """Post a question to the human's inbox; posting the same `request_id` again is no new question."""
        body = {"request_id": request_id, **asdict(question)}
        await self._must("requests", body, run_id)

    async def decision(self, run_id: str, request_id: str) -> Decision | None:
        """The decision on a question, None while there is none. Raises Unanswered."""
        answer = await self._must(f"requests/{request_id}", {}, run_id)
        decision = answer.get("decision") if isinstance(answer, Mapping) else None
        try:
            return Decision.from_json(decision) if decision else None
        except ValueError as error:
            raise Unanswered(str(error)) from error

    async def report_end(self, run_id: str, status: str, detail: str) -> None:
        """Tell the harness that the run ended, ``completed`` or ``failed``. Raises Unanswered."""
        await self._must("end", {"status": status, "detail": detail}, run_id)

    async def _must(self, path: str, body: object, run_id: str) -> object:
        try:
            status, answer, headers = await self._post(
                f"{self._to.human_url}/{path}", body, {"Kintsugi-Run": run_id}, self._tool_timeout
            )
        except ConnectionRefusedError as error:
            raise Unanswered(str(error)) from error
        if status != HTTPStatus.OK:
            raise Unanswered(f"status {status}", status, _retry_after(headers))
        return answer


def _json_or_none(content: bytes) -> object:
    """The JSON value of a body. An error's page, in whatever format, still has a status that says enough."""
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that Retry-After asks for, given as a number or a date (RFC 9110 section 10.2.3)."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _outcome(status: int, body: object, headers: Mapping[str, str]) -> Outcome:
    if status == HTTPStatus.OK and isinstance(body, Mapping) and "result" in body:
        return Outcome("done", ToolReply(ok=True, result=body["result"], version=headers.get("ETag")))
    error = body.get("error") if isinstance(body, Mapping) else None
    text = error.get("message") if isinstance(error, Mapping) else error
    reply = ToolReply(ok=False, status=status, error=str(text or f"status {status}"))
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        # Both say that the request was turned away unprocessed (RFC 6585 section 4, RFC 9110 section 15.6.4).
        return Outcome("refused", reply, retryable=True, retry_after_seconds=_retry_after(headers))
    if status // 100 == 4 and status != HTTPStatus.REQUEST_TIMEOUT:
        return Outcome("refused", reply)
    return Outcome("unknown", reply, retryable=True)
