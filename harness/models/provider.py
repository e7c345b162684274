"""A real model, through litellm: the one place that loads it, and the only one that leaves this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from kintsugi.golden_workflows.spec import FileProblem
from kintsugi.harness.models.answers import BROKEN_OFF, TIMED_OUT, NoneAtAll
from kintsugi.harness.models.cassette import Outcome
from kintsugi.harness.models.reach import FAILURES_MAX, Reach
from kintsugi.harness.processes import SECRETS

__all__ = ["Provider", "load", "must_be_there", "redacted"]

EXTRA = "a real model needs litellm: pip install 'kintsugi-bench[models]'"
MESSAGE_CHARACTERS_MAX = 500
SECRET_CHARACTERS_MIN = 6
"""A shorter value is no key, and would be found in any text."""
IN_A_REPLY_MIN = 16
"""In what a model says, a shorter value may well be a word: `refund` is no less one where it is a password too."""
NOTHING_WORKS = {
    401: "does not take the key",
    402: "wants to be paid first",
    403: "does not allow it",
    404: "does not have it",
}
"""What no SUT can do anything about."""
UNPAID = ("insufficient_quota", "enforced_spend_limit_reached", "credit balance is too low")
"""How a provider says 402 with another status: OpenAI by the type of a 429, Anthropic by that or the words of a 400."""
TURNED_AWAY = 429
SERVER_ERROR = 500
"""From here on a status says that the provider has failed, and not whoever asks it."""
NO_KEY = "none"
"""What a server of one's own is sent where the environment holds no key."""
NO_RETRIES = {"num_retries": 0, "max_retries": 0}
RETRY_AFTER = re.compile(r"[\w ,:.+-]{1,64}")


class Provider:
    """Asks a model, named as litellm names it, for one completion after another.

    Raises FileProblem where litellm is missing, does not know the name, or lacks a key. `base` is the URL of an
    OpenAI-compatible server of one's own; then no key is needed.
    """

    def __init__(self, name: str, base: str = "") -> None:
        self.name = name
        self._where = f"{name} at {base}" if base else name
        self._reach = Reach()
        self._more: dict[str, Any] = {"api_base": base} if base else {}
        if base and (urlsplit(base).scheme not in {"http", "https"} or "@" in base or "?" in base):
            raise FileProblem("--model-base: a URL such as http://127.0.0.1:8000/v1 is needed, with no key in it")
        self._litellm = load()
        _forget_blank_keys()
        missing = self._missing(base)
        if missing and not base:
            raise FileProblem(
                f"{' and '.join(missing)}: not in the environment, or blank; {name} needs it, unless --model-base "
                "names a server of your own"
            )
        if missing:
            self._more["api_key"] = NO_KEY

    def _missing(self, base: str) -> list[str]:
        """The names of what the model needs and the environment does not hold."""
        try:
            _, provider, *_ = self._litellm.get_llm_provider(self.name, api_base=base or None)
        except Exception as error:
            like = "PROVIDER/NAME as litellm names it, such as openai/gpt-5.4-mini, is needed"
            raise FileProblem(f"--model {self.name!r}: {like}; openai/NAME for a server of your own") from error
        found = self._litellm.validate_environment(f"{provider}/{self.name.removeprefix(f'{provider}/')}")
        return [] if found["keys_in_environment"] else list(found["missing_keys"])

    @property
    def unanswered(self) -> str:
        """That it has not answered anything so far, and why, in one line; empty once it has."""
        if self._reach.answered:
            return ""
        return f"{self._where} has answered nothing in this run: {self._reach.last or 'no call has ended'}"

    def must_be_there(self) -> None:
        """Raise NoneAtAll where it has not answered anything so far, and can't be expected to."""
        if self._reach.gone:
            own = "api_base" in self._more
            see_to = "the server, or correct --model-base" if own else "the network, and the provider's status"
            raise NoneAtAll(f"{self.unanswered}; see to {see_to}")

    async def complete(self, request: Mapping[str, Any], seconds: float) -> Outcome:
        """One completion, or the provider's error, as it was given. Raises NoneAtAll where every other would fail too.

        Nothing is tried again: that is the SUT's to do.
        """
        with self._reach.call():
            return await self._complete(request, seconds)

    async def _complete(self, request: Mapping[str, Any], seconds: float) -> Outcome:
        options = {"timeout": seconds, "drop_params": True, **NO_RETRIES}
        try:
            async with asyncio.timeout(seconds):
                found = await self._litellm.acompletion(**request, **options, **self._more)
            completion = _plain(found)
        except TimeoutError:
            return self._too_slow(seconds)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong there is told to the SUT, as a server would
            if isinstance(error, self._litellm.Timeout):
                return self._too_slow(seconds)
            causes = _causes(error)
            status = BROKEN_OFF if _broken_off(causes) else _status(error)
            said = _in_one_line(error)
            if _unpaid(status, causes):
                status = 402
            if status in NOTHING_WORKS:
                why = f"{self.name}: its provider {NOTHING_WORKS[status]} ({status}): {said}"
                raise NoneAtAll(why) from None
            if _unconnected(causes):
                self._reach.fails(f"no connection can be made: {_in_one_line(causes[-1])}", counts=FAILURES_MAX)
            elif status >= SERVER_ERROR or status == TURNED_AWAY:
                self._reach.fails(f"status {status}: {said}")
            else:
                self._reach.answers()
            return _refused(status, said, _retry_after(error))
        self._reach.answers()
        return {"completion": completion}

    def _too_slow(self, seconds: float) -> Outcome:
        said = f"no answer within {seconds:.3g} s"
        self._reach.fails(said, counts=0)
        return _refused(TIMED_OUT, said)


def must_be_there() -> None:
    """Raise FileProblem where litellm is missing, without loading it."""
    if find_spec("litellm") is None:
        raise FileProblem(EXTRA)


@cache
def load() -> Any:
    """litellm, told to keep to itself, and ready for its first completion. Raises FileProblem where it is missing."""
    must_be_there()
    # Its price map and a .env of this folder are not to be read; what it would log are whole requests.
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "CRITICAL"}
    warnings.filterwarnings("ignore", module="pydantic")
    # Where a time-out meets it before it has begun.
    warnings.filterwarnings("ignore", message=r"coroutine '.*completion' was never awaited")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True
    litellm.turn_off_message_logging = True
    litellm.callbacks, litellm.success_callback, litellm.failure_callback = [], [], []
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai"):
        logging.getLogger(name).disabled = True
    asyncio.run(_warm(litellm))
    return litellm


async def _warm(litellm: Any) -> None:
    """Load what a first completion loads, which takes seconds in which no trial could be served: it asks nobody."""
    schema = {"name": "warm", "schema": {"type": "object", "properties": {}}}
    request = {
        "model": "openai/warm",
        "messages": [{"role": "user", "content": "?"}],
        "tools": [{"type": "function", "function": {"name": "warm", "parameters": schema["schema"]}}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        **NO_RETRIES,
    }
    try:
        await litellm.acompletion(**request, mock_response="ok")
        # Port 9 of loopback: refused at once.
        await litellm.acompletion(**request, api_key=NO_KEY, api_base="http://127.0.0.1:9/v1", timeout=5)
    except Exception:  # noqa: BLE001 - it is meant to fail
        litellm.in_memory_llm_clients_cache.flush_cache()


def _plain(completion: Any) -> Any:
    """A completion as JSON, as litellm gives it, whatever the provider."""
    text = json.dumps(completion.model_dump(exclude_none=True), default=str, ensure_ascii=False)
    return json.loads(redacted(text, IN_A_REPLY_MIN))


def _forget_blank_keys() -> None:
    """Have keys that are set and hold nothing be as good as not set, for us and for litellm."""
    for name, value in list(os.environ.items()):
        if SECRETS.search(name) and not value.strip():
            del os.environ[name]


def redacted(text: str, characters_min: int = SECRET_CHARACTERS_MIN) -> str:
    """Text without any key, of so many characters or more, that this process has in its environment."""
    for name, value in os.environ.items():
        if SECRETS.search(name) and len(key := value.strip()) >= characters_min:
            text = text.replace(key, f"[{name}]")
    return text


def _refused(status: int, message: str, retry_after: str = "") -> Outcome:
    return {"refused": {"status": status, "message": message, "retry_after": retry_after}}


def _status(error: Exception) -> int:
    """The status that the provider gave; 502 where there was none."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status <= 599 else 502


def _unpaid(status: int, causes: Sequence[BaseException]) -> bool:
    """Whether a provider's client error says that nothing will be answered before something is paid."""
    said = " ".join(f"{cause} {getattr(cause, 'body', '')}" for cause in causes)
    return status < SERVER_ERROR and any(word in said for word in UNPAID)


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what caused it, what caused that, and so on: of several at once the first."""
    causes = [error]
    while (cause := _cause(causes[-1])) is not None and cause not in causes:
        causes.append(cause)
    return causes


def _cause(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or error.__context__


def _unconnected(causes: Sequence[BaseException]) -> bool:
    """Whether no connection could be made, so that nothing was sent."""
    import httpx

    return any(isinstance(cause, httpx.ConnectError) for cause in causes)


def _broken_off(causes: Sequence[BaseException]) -> bool:
    """Whether the connection was lost after it had been made, so that the request may have been served."""
    import httpx

    lost = [cause for cause in causes if isinstance(cause, httpx.TransportError)]
    return any(not isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout)) for cause in lost)


def _in_one_line(error: BaseException) -> str:
    """What an error says, without any key."""
    return redacted(" ".join(str(error).split()))[:MESSAGE_CHARACTERS_MAX]


def _retry_after(error: Exception) -> str:
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", {}
    )
    found = str((headers or {}).get("retry-after") or "")
    return found if RETRY_AFTER.fullmatch(found) else ""
