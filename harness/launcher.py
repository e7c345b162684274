"""The launcher: a small process that starts, feeds, signals and reaps the workers of one SUT.

Run as a program, by its path, and written on the standard library alone: a worker is forked from it, and a worker
must not carry any of the harness. It speaks JSON lines. On standard input:

    {"do": "start", "id", "environment", "folder", "log", "cold"}    fork a worker that waits for its go
    {"do": "go", "id"}                                                let it run
    {"do": "signal", "id", "signal"}                                  send it a signal, if it has not been reaped,
                                                                      and to all it has started
    {"do": "call", "id", "verb", "arguments"}                         call a client verb of the SUT, in a thread

and on standard output, in answer or when it happens:

    {"id", "pid"}    {"id", "exited": status, "signal": number or 0, "cpu_seconds"}    {"id", "result" or "error"}
    {"id", "error", "silent": whether the verb's client got no answer}
    {"id", "running": whether it goes on again or has stopped}

A cold-started worker executes the chains that KINTSUGI_CHAINS names in its environment, if it is there.
A launcher either starts workers or calls verbs, never both, so that no client's connection is forked into a worker.
Every worker dies with it, and it dies with the harness. What the SUT's own code prints there goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PROGRAM = str(Path(__file__).resolve())


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, and end now if it already has."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def sweep(pid: int) -> None:
    """End what an ended worker has started, while its process id still can't be anyone else's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def send(pid: int, number: int) -> None:
    """Signal a worker and what it has started; one that was only just forked has no group of its own yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)


def load(side: str, chains: str) -> tuple[Any, Any]:
    """The SUT's side (a module, or ``module:NAME``) and the chains (``module:NAME``) that its workers run."""
    return _named(side), _named(chains)


def _named(where: str) -> Any:
    module, _, name = where.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def run_worker(side: str, chains: str) -> None:
    """Be a worker, with the environment that this process has, until the work is done."""
    module, table = load(side, chains)
    asyncio.run(module.work(dict(os.environ), table))


class Launcher:
    """The loop over commands and ended children."""

    def __init__(self, side: str, chains: str) -> None:
        self.side, self.chains = side, chains
        # The answers have a pipe of their own, so that a SUT that prints when it is loaded does not garble them.
        self.answers = os.dup(1)
        os.dup2(2, 1)
        self.module, self.table = load(side, chains)
        sys.stdout.flush()
        self.speaking = threading.Lock()
        self.provisioning = threading.Lock()
        self.children: dict[int, str] = {}
        self.pids: dict[str, int] = {}
        self.gates: dict[str, int] = {}

    def say(self, **message: Any) -> None:
        """Send a line to the harness, whole, whoever else has something to say."""
        left = (json.dumps(message) + "\n").encode()
        with self.speaking:
            while left:
                left = left[os.write(self.answers, left) :]

    def loop(self) -> None:
        """Serve until standard input ends, then kill what is left."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()
        self.say(ready=True)
        pending = b""
        while True:
            for key, _ in selector.select():
                if key.fd == wake_read:
                    os.read(wake_read, 4096)
                    continue
                data = os.read(0, 65536)
                if not data:
                    self.end()
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line))
            self.reap()
            self.notice()

    def obey(self, command: dict[str, Any]) -> None:
        """Carry out one command."""
        what, name = command["do"], command["id"]
        if what == "start":
            self.start(command)
        elif what == "go":
            # A worker that ended before it was let go has been reaped, with its gate, or will be in a moment.
            if name in self.gates:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self.gates[name], b"g")
                os.close(self.gates.pop(name))
        elif what == "signal":
            if name in self.pids:
                send(self.pids[name], command["signal"])
        elif what == "call":
            # Each in a thread of its own: one that has to wait must not hold up those of other trials.
            threading.Thread(target=self.call, args=(command,), daemon=True).start()

    def call(self, command: dict[str, Any]) -> None:
        """Call a client verb and say what came of it. What is provisioned is so one after another."""
        verb = command["verb"]
        try:
            with self.provisioning if verb == "provision" else contextlib.nullcontext():
                result = getattr(self.module, verb)(*command["arguments"])
            self.say(id=command["id"], result=result)
        except Exception as error:  # noqa: BLE001 - whatever the SUT's client raises is the harness's to judge
            self.say(id=command["id"], error=f"{type(error).__name__}: {error}", silent=_silent(error))

    def start(self, command: dict[str, Any]) -> None:
        """Fork a worker that waits at its gate."""
        parent = os.getpid()
        gates: tuple[int, ...] = ()
        try:
            gates = gate_read, gate_write = os.pipe()
            pid = os.fork()
        except OSError as error:
            for gate in gates:
                os.close(gate)
            self.say(id=command["id"], error=f"no worker could be started: {error.strerror}")
            return
        if pid == 0:
            try:
                for descriptor in (*self.gates.values(), gate_write, self.answers):
                    os.close(descriptor)
                self.become(command, gate_read, parent)
            except BaseException:  # noqa: BLE001 - a forked child must never return into the launcher's loop
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)
        os.close(gate_read)
        self.children[pid], self.pids[command["id"]], self.gates[command["id"]] = command["id"], pid, gate_write
        self.say(id=command["id"], pid=pid)

    def become(self, command: dict[str, Any], gate: int, parent: int) -> None:
        """Turn the forked child into a worker: its own session, its own output, dead with the launcher."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(parent)
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(command["folder"])
        if os.read(gate, 1) != b"g":
            os._exit(0)
        os.close(gate)
        if command["cold"]:
            chains = command["environment"].get("KINTSUGI_CHAINS", self.chains)
            words = [sys.executable, PROGRAM, "--worker", self.side, chains]
            os.execve(sys.executable, words, command["environment"])  # noqa: S606 - no shell is wanted
        os.environ.clear()
        os.environ.update(command["environment"])
        asyncio.run(self.module.work(dict(os.environ), self.table))
        sys.stderr.flush()
        os._exit(0)

    def reap(self) -> None:
        """Take in every child that has ended, and say how it did."""
        while self.children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            sweep(ended.si_pid)
            pid, status, usage = os.wait4(ended.si_pid, 0)
            name = self.children.pop(pid, "")
            if not name:  # A process that the SUT's own code started here.
                continue
            del self.pids[name]
            if name in self.gates:
                os.close(self.gates.pop(name))
            self.say(
                id=name,
                exited=os.waitstatus_to_exitcode(status),
                signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                cpu_seconds=usage.ru_utime + usage.ru_stime,
            )

    def notice(self) -> None:
        """Say which worker stands still now, with all its threads, and which goes on again."""
        # Where every child has ended since, and is only to be reaped, there is none to tell of.
        with contextlib.suppress(ChildProcessError):
            while turned := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG):
                if turned.si_pid in self.children:
                    self.say(id=self.children[turned.si_pid], running=turned.si_code == os.CLD_CONTINUED)

    def end(self) -> None:
        """Kill and reap what is left."""
        for pid in list(self.children):
            os.kill(pid, signal.SIGKILL)
        for pid in list(self.children):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            sweep(pid)
            os.waitpid(pid, 0)


def _silent(error: BaseException | None) -> bool:
    """Whether a client got no answer at all, by what it raised or by the cause of that."""
    while error is not None:
        if isinstance(error, TimeoutError | ConnectionError):
            return True
        error = error.__cause__
    return False


def main() -> None:
    """``launcher.py PARENT_PID SIDE CHAINS``, or ``launcher.py --worker SIDE CHAINS`` for a cold-started worker."""
    # Being run by its path puts this folder first on sys.path, where the harness's modules would shadow others.
    sys.path.pop(0)
    if sys.argv[1] == "--worker":
        run_worker(sys.argv[2], sys.argv[3])
        return
    die_with_parent(int(sys.argv[1]))
    Launcher(sys.argv[2], sys.argv[3]).loop()
    # Threads of a client that is stuck are not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
