"""Toxiproxy, as far as it is used here: toxiproxy-python with the checks that it does not make itself.

That package asks `requests` for everything, without a time-out, through whatever proxy the environment names, and takes
an error's body for an answer. It is given a `requests` of ours in its place. All of it blocks: call it in threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import requests
import toxiproxy.api
from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.proxy import Proxy

__all__ = ["Control", "ToxiproxyProblem", "lost_bytes", "taken_bytes"]

HOST = "127.0.0.1"
ANSWER_SECONDS = 10.0
CHECKED_THERE = (400, 404, 409)
"""The statuses that toxiproxy-python makes exceptions of."""
PROBLEMS = (requests.RequestException, InvalidToxic, NotFound, ProxyExists, ValueError, LookupError)
COUNT = re.compile(
    r"^toxiproxy_proxy_(?P<what>received|sent)_bytes_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE
)


class ToxiproxyProblem(RuntimeError):
    """The Toxiproxy server did not do what it was asked; the message says what."""


class _Requests:
    """What toxiproxy-python uses of `requests`: with a time-out, without the environment's proxies, and checked."""

    def __init__(self, session_of: Any) -> None:
        self._session_of = session_of

    def get(self, url: str, **named: Any) -> requests.Response:
        return self._ask("GET", url, **named)

    def post(self, url: str, **named: Any) -> requests.Response:
        return self._ask("POST", url, **named)

    def delete(self, url: str, **named: Any) -> requests.Response:
        return self._ask("DELETE", url, **named)

    def _ask(self, method: str, url: str, **named: Any) -> requests.Response:
        # A session for each request: they come from several threads.
        with self._session_of() as session:
            session.trust_env = False
            answer: requests.Response = session.request(method, url, timeout=ANSWER_SECONDS, **named)
        if answer.status_code >= 400 and answer.status_code not in CHECKED_THERE:
            raise ToxiproxyProblem(f"{method} {url} was answered {answer.status_code}: {answer.text[:200]}")
        return answer


class Control:
    """One Toxiproxy server, by the port of its API. There is one at a time: its address is toxiproxy-python's global.

    Every method blocks, and raises ToxiproxyProblem.
    """

    def __init__(self, port: int) -> None:
        self._requests = _Requests(requests.Session)
        self._url = f"http://{HOST}:{port}"
        self._server = Toxiproxy()
        self._server.update_api_consumer(HOST, port)
        toxiproxy.api.requests = self._requests

    def create(self, name: str, port: int, upstream: int) -> Proxy:
        """A proxy that listens on a loopback port for another one. `name` is of letters, digits and dashes."""
        return self._done(lambda: self._server.create(f"{HOST}:{upstream}", name, f"{HOST}:{port}"))

    def destroy(self, proxy: Proxy) -> None:
        """Remove a proxy and end its connections."""
        self._done(proxy.destroy)

    def add(self, proxy: Proxy, kind: str, attributes: Mapping[str, int]) -> None:
        """Put a toxic on what the far side sends. Returns once Toxiproxy itself lists it."""

        def add() -> None:
            proxy.add_toxic(name=kind, type=kind, stream="downstream", attributes=dict(attributes))
            found = proxy.get_toxic(kind)
            if found is None or {**found.attributes, **attributes} != found.attributes:
                raise ToxiproxyProblem(f"the toxic {kind} was not put on {proxy.name} as asked")

        self._done(add)

    def remove(self, proxy: Proxy, kind: str) -> None:
        """Take a toxic off again. Returns once Toxiproxy lists it no longer."""

        def remove() -> None:
            proxy.destroy_toxic(kind)
            if proxy.get_toxic(kind) is not None:
                raise ToxiproxyProblem(f"the toxic {kind} is still on {proxy.name}")

        self._done(remove)

    def switch(self, proxy: Proxy, *, on: bool) -> None:
        """Have a proxy listen, or end its connections and have it refuse new ones."""
        self._done(proxy.enable if on else proxy.disable)

    def metrics(self) -> str:
        """The server's counters. Bytes of a connection are counted when it ends."""
        return str(self._done(lambda: self._requests.get(f"{self._url}/metrics").text))

    @staticmethod
    def _done(work: Any) -> Any:
        try:
            return work()
        except PROBLEMS as error:
            raise ToxiproxyProblem(f"{type(error).__name__}: {error}") from error


def lost_bytes(metrics: str, proxy: str) -> int:
    """How many bytes of the far side a proxy has taken in and not passed on, over the connections that have ended."""
    return _count(metrics, proxy, "received", "downstream") - _count(metrics, proxy, "sent", "downstream")


def taken_bytes(metrics: str, proxy: str) -> int:
    """How many bytes of its clients a proxy has taken in, over the connections that have ended."""
    return _count(metrics, proxy, "received", "upstream")


def _count(metrics: str, proxy: str, what: str, direction: str) -> int:
    wanted = (f'proxy="{proxy}"', f'direction="{direction}"')
    found = (m for m in COUNT.finditer(metrics) if m["what"] == what and all(w in m["labels"] for w in wanted))
    return sum(int(float(match["count"])) for match in found)
