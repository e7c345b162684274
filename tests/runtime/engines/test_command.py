"""The side of a SUT in any language: its verbs as programs and requests, and the worker that becomes its program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import kintsugi
from kintsugi.runtime.engines import command

Use = Callable[[str], None]

PAYLOAD = {"chain": "own", "plan": {"task": "naïve"}}


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Has the verbs go by a file with this text beside its name and worker."""
    command._file.cache_clear()

    def used(text: str) -> None:
        (tmp_path / "sut.toml").write_text(text)
        monkeypatch.setenv(command.FILE, str(tmp_path / "sut.toml"))

    yield used
    command._file.cache_clear()


def script(folder: Path, text: str) -> str:
    """A line of TOML that runs a shell script; what it was given is in $1, $2, …, and on its standard input."""
    (folder / "verb.sh").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "verb.sh").chmod(0o755)
    return 'argv = ["./verb.sh", "{state_dir}", "{run_id}", "${HOME}", "{request_id}"]\n'


# --- nothing given ------------------------------------------------------------------------------------------


def test_without_verbs_a_run_is_a_file_and_its_state_is_not_known(tmp_path: Path, use: Use) -> None:
    use("")
    state = str(tmp_path / "state")
    command.provision(state)
    command.submit(state, "r3", PAYLOAD)
    assert [path.name for path in Path(state, "inbox").iterdir()] == ["r3.json"]
    assert json.loads(Path(state, "inbox", "r3.json").read_text()) == PAYLOAD
    assert command.status(state, "r3") == {"state": "unknown"}


# --- programs -----------------------------------------------------------------------------------------------


def test_a_program_is_given_its_words_and_the_payload(tmp_path: Path, use: Use) -> None:
    use("[decide]\n" + script(tmp_path, 'printf "%s|" "$@" > words; pwd >> words; cat > payload'))
    command.decide("/a state", "r0", "q 1", PAYLOAD)
    # The words of no placeholder stay as they are, and no shell looks at any of them.
    assert (tmp_path / "words").read_text() == f"/a state|r0|${{HOME}}|q 1|{tmp_path}\n"
    assert json.loads((tmp_path / "payload").read_text()) == PAYLOAD


def test_a_verb_has_the_environment_of_the_file(tmp_path: Path, use: Use) -> None:
    use('environment = { COLOUR = "gold" }\n[retire]\n' + script(tmp_path, 'echo "$COLOUR" > colour'))
    command.retire("s")
    assert (tmp_path / "colour").read_text() == "gold\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo too bad >&2; exit 3", "ended with 3: too bad"),
        ("echo on the other channel; exit 1", "ended with 1: on the other channel"),
        ("exit 1", "ended with 1: it said nothing"),
    ],
)
def test_a_program_that_fails_is_told_of_with_its_last_words(tmp_path: Path, use: Use, text: str, said: str) -> None:
    use("[submit]\n" + script(tmp_path, text))
    with pytest.raises(RuntimeError, match=rf"^submit: .*verb\.sh {said}$"):
        command.submit("s", "r0", PAYLOAD)


def test_a_program_that_does_not_end_is_ended_with_all_that_it_has_started(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VERB_SECONDS", 0.5)
    use("[submit]\n" + script(tmp_path, "sleep 300 & sleep 300"))
    began = time.monotonic()
    with pytest.raises(command.NoAnswer, match=r"^submit: .*verb\.sh did not end within 0\.5 s$"):
        command.submit("s", "r0", PAYLOAD)
    # Its output has no end before the last of them has ended.
    assert time.monotonic() - began < 300


def test_a_program_that_is_not_there_is_told_of(use: Use) -> None:
    use('[provision]\nargv = ["./none"]\n')
    with pytest.raises(RuntimeError, match=r"^provision: .*/none can't be started: No such file"):
        command.provision("s")


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ('{"state": "running", "step": 3}', {"state": "running", "step": 3}),
        ("[]", {"state": "unknown", "problem": 'status: the answer is no JSON object with a "state", a text'}),
        (
            '{"state": 4}',
            {"state": "unknown", "problem": 'status: the answer is no JSON object with a "state", a text'},
        ),
    ],
)
def test_a_status_is_what_is_printed(tmp_path: Path, use: Use, said: str, known: Mapping[str, Any]) -> None:
    use("[status]\n" + script(tmp_path, f"echo '{said}'"))
    assert command.status("s", "r0") == known


def test_a_status_that_could_not_be_told_breaks_nothing(tmp_path: Path, use: Use) -> None:
    use("[status]\n" + script(tmp_path, "exit 9"))
    told = command.status("s", "r0")
    assert told["state"] == "unknown"
    assert "ended with 9" in told["problem"]


# --- requests -----------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """Keeps what was asked, and answers as it is told to."""

    asked: ClassVar[list[tuple[str, str, bytes]]] = []
    answer: ClassVar[tuple[int, bytes]] = (200, b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.asked.append((self.command, self.path, self.rfile.read(length)))
        status, body = self.answer
        self.send_response(status)
        if status // 100 == 3:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - the names that the base class looks for

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked, Server.answer = [], (200, b"")
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_request_carries_the_payload_to_the_url_filled_in(
    use: Use, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    use(f'[decide]\nhttp = {{ method = "PUT", url = "{server}/{{run_id}}/{{request_id}}?at={{state_dir}}" }}\n')
    command.decide("/a/b", "r0", "q 1&x=2", PAYLOAD)
    ((method, path, body),) = Server.asked
    assert (method, path) == ("PUT", "/r0/q%201%26x%3D2?at=%2Fa%2Fb")
    assert json.loads(body) == PAYLOAD


def test_a_status_may_be_asked_for_over_http(use: Use, server: str) -> None:
    use(f'[status]\nhttp = {{ method = "GET", url = "{server}/{{run_id}}" }}\n')
    Server.answer = (200, b'{"state": "done"}')
    assert command.status("s", "r7") == {"state": "done"}
    assert Server.asked == [("GET", "/r7", b"")]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(500, b"out of\norder", "was answered with 500: out of order"), (302, b"", "was answered with 302")],
)
def test_any_status_but_2xx_is_a_failure_and_no_redirect_is_followed(
    use: Use, server: str, status: int, body: bytes, said: str
) -> None:
    use(f'[submit]\nhttp = {{ url = "{server}/x" }}\n')
    Server.answer = (status, body)
    with pytest.raises(RuntimeError, match=f"^submit: POST {server}/x {said}"):
        command.submit("s", "r0", PAYLOAD)
    assert len(Server.asked) == 1


def test_a_server_that_is_not_there_is_told_of(use: Use) -> None:
    use('[retire]\nhttp = { url = "http://127.0.0.1:1/x" }\n')
    with pytest.raises(RuntimeError, match=r"^retire: POST http://127\.0\.0\.1:1/x: .*refused"):
        command.retire("s")


# --- the worker ---------------------------------------------------------------------------------------------

PROGRAM = """
import json, os, signal, sys
interruptible = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ), interruptible]))
"""
BECOME = """
import asyncio, os, signal
from kintsugi.runtime.engines import command
signal.signal(signal.SIGINT, signal.SIG_IGN)
asyncio.run(command.work(dict(os.environ), command.CHAINS))
"""


@pytest.mark.process
def test_a_worker_becomes_the_program_under_the_same_pid_with_a_clean_environment(tmp_path: Path) -> None:
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(Path(kintsugi.__file__).parent.parent), *sys.path[1:]]),
        command.FILE: str(tmp_path / "sut.toml"),
        "KINTSUGI_STATE_DIR": "/state",
        "KINTSUGI_SCRATCH_DIR": "/scratch",
        "KINTSUGI_WORKER_ID": "node1",
    }
    (tmp_path / "sut.py").write_text(PROGRAM)
    (tmp_path / "sut.toml").write_text(
        'environment = { COLOUR = "gold" }\n'
        f'[worker]\nargv = ["{sys.executable}", "{{here}}/sut.py", "{{scratch_dir}}", "{{worker_id}}"]\n'
    )
    with subprocess.Popen([sys.executable, "-c", BECOME], env=given, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=60)
    pid, words, environment, interruptible = json.loads(said)
    assert pid == process.pid
    assert words == ["/scratch", "node1"]
    assert {name for name in environment if name.startswith("KINTSUGI_")} == {
        "KINTSUGI_STATE_DIR",
        "KINTSUGI_SCRATCH_DIR",
        "KINTSUGI_WORKER_ID",
    }
    assert "PYTHONPATH" not in environment
    assert environment["COLOUR"] == "gold"
    assert interruptible


def test_it_is_written_on_the_standard_library_alone() -> None:
    program = "import json, sys, kintsugi.runtime.engines.command; print(json.dumps(sorted(sys.modules)))"
    path = str(Path(kintsugi.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env={"PYTHONPATH": path}, capture_output=True, check=True
    )
    ours = {name for name in json.loads(done.stdout) if name.startswith("kintsugi.")}
    assert ours == {"kintsugi.runtime", "kintsugi.runtime.engines", "kintsugi.runtime.engines.command"}
