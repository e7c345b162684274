"""A SUT in any language: its worker is a program, and each verb a program or an HTTP request, as a file says.

The file is a TOML file named by KINTSUGI_ADAPTER_FILE; who started this has made sure that it is sound. What it
leaves out is done the plainest way: a run is left as ``inbox/RUN.json`` in the state directory, and no status is kept.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["CHAINS", "FILE", "PLACEHOLDER", "PLACEHOLDERS", "decide", "provision", "retire", "status", "submit", "work"]

CHAINS: Mapping[str, Any] = {}
"""It runs none of ours: its program is an agent of its own."""

FILE = "KINTSUGI_ADAPTER_FILE"
"""The environment variable that names the file."""

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "worker": frozenset({"here", "state_dir", "scratch_dir", "worker_id"}),
    "provision": frozenset({"here", "state_dir"}),
    "submit": frozenset({"here", "state_dir", "run_id"}),
    "decide": frozenset({"here", "state_dir", "run_id", "request_id"}),
    "status": frozenset({"here", "state_dir", "run_id"}),
    "retire": frozenset({"here", "state_dir"}),
}
"""What may stand in braces in the words of each verb; ``here`` is the file's own folder."""

VERB_SECONDS = 10.0
"""How long one verb may take."""
SAID_CHARACTERS = 300
OURS = frozenset({FILE, "PYTHONPATH"})
"""What a worker has in its environment for this module's sake, and its program is not given."""
AS_BEFORE = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""The signals that Python, or a launcher, ignores, and that a program expects to find as the system has them."""


@cache
def _file() -> tuple[Mapping[str, Any], str]:
    """The file's content, and its folder."""
    path = Path(os.environ[FILE])
    return tomllib.loads(path.read_text(encoding="utf-8-sig")), str(path.parent.resolve())


class NoAnswer(RuntimeError, ConnectionError):
    """A verb got no answer: its program did not end in time, or died, or nobody was reached."""


# --- the client's verbs -------------------------------------------------------------------------------------


def provision(state_dir: str) -> None:
    """Make ready what the runs of one state directory need. Raises RuntimeError."""
    file, _ = _file()
    if "submit" not in file:
        _inbox(state_dir).mkdir(parents=True, exist_ok=True)
    if "provision" in file:
        _call("provision", None, state_dir=state_dir)


def submit(state_dir: str, run_id: str, payload: Mapping[str, Any]) -> None:
    """Hand a run over: to the verb, or as a file that is there whole or not at all. Raises RuntimeError."""
    file, _ = _file()
    if "submit" in file:
        _call("submit", payload, state_dir=state_dir, run_id=run_id)
        return
    partial = _inbox(state_dir) / f".{run_id}.partial"
    partial.write_text(json.dumps(payload), encoding="utf-8")
    partial.replace(_inbox(state_dir) / f"{run_id}.json")


def decide(state_dir: str, run_id: str, request_id: str, decision: Mapping[str, Any]) -> None:
    """Deliver a person's decision. Raises RuntimeError where it was not acknowledged."""
    _call("decide", decision, state_dir=state_dir, run_id=run_id, request_id=request_id)


def status(state_dir: str, run_id: str) -> Mapping[str, Any]:
    """What the SUT says of a run: its ``state``, ``unknown`` (and the ``problem``) where it could not tell."""
    file, _ = _file()
    if "status" not in file:
        return {"state": "unknown"}
    try:
        said = json.loads(_call("status", None, state_dir=state_dir, run_id=run_id))
    except (RuntimeError, ValueError) as error:
        return {"state": "unknown", "problem": str(error)}
    if not isinstance(said, dict) or not isinstance(said.get("state"), str):
        return {"state": "unknown", "problem": 'status: the answer is no JSON object with a "state", a text'}
    return said


def retire(state_dir: str) -> None:
    """Remove what a trial has left in a shared server. Raises RuntimeError."""
    _call("retire", None, state_dir=state_dir)


def _inbox(state_dir: str) -> Path:
    return Path(state_dir, "inbox")


def _call(name: str, payload: Mapping[str, Any] | None, **values: str) -> str:
    """What a verb answered. Raises RuntimeError, which says what went wrong."""
    file, here = _file()
    verb = file[name]
    values["here"] = here
    text = "" if payload is None else json.dumps(payload)
    if "http" in verb:
        return _request(name, verb["http"], text, values)
    return _run(name, _words(verb["argv"], values), text)


def _words(argv: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """A program and its arguments, filled in; a program named by a relative path is beside the file."""
    words = [PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word) for word in argv]
    if "/" in words[0]:
        words[0] = str(Path(values["here"], words[0]))
    return words


def _run(name: str, words: Sequence[str], text: str) -> str:
    file, here = _file()
    try:
        process = subprocess.Popen(
            words,
            cwd=here,
            env={**os.environ, **file.get("environment", {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeError(f"{name}: {words[0]} can't be started: {error.strerror}") from error
    try:
        said, complaint = process.communicate(text, timeout=VERB_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NoAnswer(f"{name}: {words[0]} did not end within {VERB_SECONDS:g} s") from None
    if process.returncode < 0:
        raise NoAnswer(f"{name}: {words[0]} died of signal {-process.returncode}")
    if process.returncode != 0:
        raise RuntimeError(f"{name}: {words[0]} ended with {process.returncode}: {_last(complaint or said)}")
    return said


def _request(name: str, http: Mapping[str, str], text: str, values: Mapping[str, str]) -> str:
    def quoted(found: re.Match[str]) -> str:
        return urllib.parse.quote(values[found[1]], safe="") if found[1] in values else found[0]

    method, url = http.get("method", "POST"), PLACEHOLDER.sub(quoted, http["url"])
    request = urllib.request.Request(  # noqa: S310 - the file's form allows http and https only
        url, data=text.encode() or None, headers={"Content-Type": "application/json"}, method=method
    )
    # Straight to where the file says: no proxy of the user's, and no redirect that would change what was asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=VERB_SECONDS) as answer:
            body: bytes = answer.read()
            return body.decode(errors="replace")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise RuntimeError(f"{name}: {method} {url} was answered with {error.code}: {_last(said)}") from error
    except OSError as error:
        raise NoAnswer(f"{name}: {method} {url}: {error}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect; its status is then an error."""


def _last(text: str) -> str:
    return " ".join(text.split())[-SAID_CHARACTERS:] or "it said nothing"


# --- the worker ---------------------------------------------------------------------------------------------


async def work(environment: Mapping[str, str], chains: Mapping[str, Any]) -> NoReturn:
    """Become the file's program, under the same process id. Raises OSError where it can't be started."""
    del chains
    file, here = _file()
    values = {"here": here}
    values |= {name: environment[f"KINTSUGI_{name.upper()}"] for name in ("state_dir", "scratch_dir", "worker_id")}
    words = _words(file["worker"]["argv"], values)
    for number in AS_BEFORE:
        signal.signal(number, signal.SIG_DFL)
    given = {name: value for name, value in environment.items() if name not in OURS}
    os.execvpe(words[0], words, {**given, **file.get("environment", {})})  # noqa: S606 - no shell is wanted
