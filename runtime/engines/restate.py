"""The durable context on Restate: a run is a workflow of its service, an act a durable step, a decision a promise.

Restate's server keeps every journal and calls the workers, which serve their workflow over HTTP/2. So each trial is a
deployment of its own, at a port that all its workers share, with a service of its own name. Its server's addresses
come in KINTSUGI_RESTATE_ADMIN and KINTSUGI_RESTATE_INGRESS (URLs).
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hypercorn.asyncio import serve
from hypercorn.config import Config
from restate import (
    DurablePromise,
    RunOptions,
    SdkInternalBaseException,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    app,
)
from restate.exceptions import RetryableError
from restate.serde import JsonSerde
from restate.server_context import DisconnectedException

from kintsugi.runtime.engines.acts import Acts, TryAgain
from kintsugi.runtime.engines.durable import (
    Chains,
    DefaultContext,
    Spent,
    TunedContext,
    carry,
    dated,
    once_by_mark,
)
from kintsugi.runtime.rules import Budget

__all__ = ["DEFAULT", "TUNED", "Restate", "service_name"]

WORKER_SECONDS = 20.0
"""How long a submission waits for a worker that listens."""
CLIENT_SECONDS = 10.0
"""How long a request to the server may take."""
POLL_SECONDS = 0.005
BACKLOG = 128

STATES = {"completed": "completed", "suspended": "waiting", "paused": "waiting"}
"""Restate's states of an invocation that are not simply ``running``; a paused one waits for an operator."""

_registering: dict[str, threading.Lock] = {}
"""For each trial: of several runs that are submitted at once, one registers the deployment."""
_held: dict[str, socket.socket] = {}
"""The port of every trial that this process has provisioned, bound but not listening, so that no one else gets it."""


class _Run:
    """One run: the engine's primitives on the context of its workflow's handler."""

    control: tuple[type[BaseException], ...] = (SdkInternalBaseException, DisconnectedException)
    side_by_side = False

    def __init__(self, ctx: WorkflowContext, acts: Acts, *, tuned: bool) -> None:
        self.run_id = ctx.key()
        self._ctx = ctx
        self._acts = acts
        self._tuned = tuned

    async def act(self, name: str, act: str, argument: Mapping[str, Any], retry: Budget | None) -> Mapping[str, Any]:
        """The result of a durable step; an attempt that fails is the server's to repeat, wherever a worker listens."""
        options: RunOptions[dict[str, Any]] = RunOptions(serde=JsonSerde())
        if retry is not None and self._tuned:
            options.max_attempts = retry.attempts
            options.initial_retry_interval = timedelta(seconds=retry.base_seconds)
            options.retry_interval_factor = 2.0
            options.max_retry_interval = timedelta(seconds=retry.cap_seconds)
        try:
            return await self._ctx.run_typed(name, self._attempt, options, act, argument)
        except TerminalError as error:
            raise Spent(error.message) from error

    async def _attempt(self, act: str, argument: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._acts.perform(act, argument)
        except TryAgain as error:
            if error.retry_after_seconds is None or not self._tuned:
                raise
            after = timedelta(seconds=error.retry_after_seconds)
            raise RetryableError(str(error), retry_after=after) from error

    async def once(self, name: str, argument: Mapping[str, Any]) -> Mapping[str, Any]:
        """At most once by a mark: Restate's steps are at least once, whatever their number of attempts."""
        return await once_by_mark(self, name, argument)

    async def decision(self, request_id: str) -> Mapping[str, Any]:
        """The value of the durable promise that bears the request's id."""
        decision: dict[str, Any] = await self._ctx.promise(request_id, serde=JsonSerde()).value()
        return decision

    async def sleep(self, name: str, seconds: float) -> None:
        """A durable timer, which counts in milliseconds."""
        await self._ctx.sleep(timedelta(milliseconds=math.ceil(seconds * 1000)), name=name)


class Restate:
    """The SUT's side, in one of the two profiles."""

    def __init__(self, *, tuned: bool) -> None:
        self._tuned = tuned

    # --- client verbs ---------------------------------------------------------------------------------------

    def provision(self, state_dir: str) -> None:
        """Choose the port of the trial's workers."""
        held = _held[state_dir] = _bound(0)
        Path(state_dir, "port").write_text(str(held.getsockname()[1]), encoding="utf-8")

    def submit(self, state_dir: str, run_id: str, payload: Mapping[str, Any]) -> None:
        """Start a run's workflow, which is started once however often it is submitted.

        Its deployment is registered before, as soon as a worker listens. Raises RuntimeError.
        """
        with _registering.setdefault(state_dir, threading.Lock()):
            if not Path(state_dir, "deployment").exists():
                self._register(state_dir)
        path = f"/{service_name(state_dir)}/{quote(run_id)}/run/send"
        _must(_ask("INGRESS", "POST", path, dated(payload)), "the run was not accepted")

    @staticmethod
    def _register(state_dir: str) -> None:
        port = _port(state_dir)
        deadline = time.monotonic() + WORKER_SECONDS
        while not _listens(port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no worker listened within {WORKER_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        body = {"uri": f"http://127.0.0.1:{port}/"}
        registered = _must(_ask("ADMIN", "POST", "/deployments", body), "the deployment was not registered")
        Path(state_dir, "deployment").write_text(registered["id"], encoding="utf-8")

    def decide(self, state_dir: str, run_id: str, request_id: str, decision: Mapping[str, Any]) -> None:
        """Send a decision to the run's workflow. It is durable once the server has accepted the request.

        The same `decision_id` again is the same request, by its idempotency key. Raises RuntimeError.
        """
        path = f"/{service_name(state_dir)}/{quote(run_id)}/decide/send"
        headers = {"idempotency-key": str(decision["decision_id"])}
        body = {"request_id": request_id, "decision": dict(decision)}
        _must(_ask("INGRESS", "POST", path, body, headers), "the decision was not accepted")

    def status(self, state_dir: str, run_id: str) -> dict[str, Any]:
        """``state``: what the server knows of a run."""
        for found in _invocations(state_dir):
            if (found["target_handler_name"], found["target_service_key"]) == ("run", run_id):
                failed = found.get("completion_result") == "failure"
                return {"state": "failed" if failed else STATES.get(found["status"], "running")}
        return {"state": "unknown"}

    def retire(self, state_dir: str) -> None:
        """Remove what the server holds of the trial: its open invocations, and its deployment. Raises RuntimeError."""
        held = _held.pop(state_dir, None)
        if held is not None:
            held.close()
        deployment = Path(state_dir, "deployment")
        if not deployment.exists():
            return
        for found in _invocations(state_dir):
            if found["status"] != "completed":
                _ask("ADMIN", "PATCH", f"/invocations/{found['id']}/kill")
        name = deployment.read_text(encoding="utf-8")
        _must(_ask("ADMIN", "DELETE", f"/deployments/{name}?force=true"), "the deployment was not removed")

    # --- worker ---------------------------------------------------------------------------------------------

    async def work(self, environment: Mapping[str, str], chains: Chains) -> None:
        """Serve the trial's workflow at the port that its workers share, until killed."""
        state_dir = environment["KINTSUGI_STATE_DIR"]
        listening = _bound(_port(state_dir))
        config = Config()
        config.bind = [f"fd://{listening.detach()}"]
        config.backlog = BACKLOG
        config.loglevel = "ERROR"
        acts = Acts(environment)
        workflow = self._workflow(service_name(state_dir), acts, chains, float(environment["KINTSUGI_TIME_SCALE"]))
        await serve(app([workflow]), config, shutdown_trigger=asyncio.Event().wait)

    def _workflow(self, name: str, acts: Acts, chains: Chains, time_scale: float) -> Workflow:
        # Its time-outs for an attempt that says nothing stay as they are: they have to be longer than any step is, and
        # a model may take a minute. Who is dead or hung is found by the server's keep-alive.
        workflow = Workflow(name)

        @workflow.main()
        async def run(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
            engine = _Run(ctx, acts, tuned=self._tuned)
            context: TunedContext | DefaultContext
            if self._tuned:
                context = TunedContext(engine, payload, time_scale)
            else:
                context = DefaultContext(engine, payload, time_scale, stable_keys=True)
            ended = await carry(context, payload, chains)
            if ended["status"] == "failed":
                raise TerminalError(ended["detail"])
            return ended

        @workflow.handler()
        async def decide(ctx: WorkflowSharedContext, given: dict[str, Any]) -> None:
            promise: DurablePromise[dict[str, Any]] = ctx.promise(given["request_id"], serde=JsonSerde())
            # Of two different decisions the first stands.
            if await promise.peek() is None:
                await promise.resolve(given["decision"])

        return workflow


TUNED = Restate(tuned=True)
DEFAULT = Restate(tuned=False)


def service_name(state_dir: str) -> str:
    """The name of a trial's service: of no other trial's, and the same in every process of the trial."""
    return f"Kintsugi{hashlib.sha256(state_dir.encode()).hexdigest()[:16]}"


def _port(state_dir: str) -> int:
    return int(Path(state_dir, "port").read_text(encoding="utf-8"))


def _bound(port: int) -> socket.socket:
    """A socket bound to a loopback port (0: a free one) that others of ours may bind as well."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _invocations(state_dir: str) -> list[dict[str, Any]]:
    """What the server knows of every invocation of a trial. Raises RuntimeError."""
    what = "id, status, completion_result, target_handler_name, target_service_key"
    query = f"SELECT {what} FROM sys_invocation WHERE target_service_name = '{service_name(state_dir)}'"  # noqa: S608
    found = _must(_ask("ADMIN", "POST", "/query", {"query": query}), "the server could not be asked")
    return list(found["rows"])


def _ask(
    server: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """The status and the JSON body of an answer of the server. Raises OSError, http.client.HTTPException."""
    where = urlsplit(os.environ[f"KINTSUGI_RESTATE_{server}"])
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=CLIENT_SECONDS)
    try:
        given = {"accept": "application/json", "content-type": "application/json", **(headers or {})}
        connection.request(method, path, None if body is None else json.dumps(body), given)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(content) if content else None
    except ValueError:
        return answer.status, content.decode(errors="replace")


def _must(answer: tuple[int, Any], problem: str) -> Any:
    status, body = answer
    if status // 100 != 2:
        raise RuntimeError(f"{problem}: status {status}: {body}")
    return body
