"""``python -m kintsugi.runtime``: an operator's view of a state directory, and the means to steer its runs.

    python -m kintsugi.runtime STATE_DIR list
    python -m kintsugi.runtime STATE_DIR status RUN [--json]
    python -m kintsugi.runtime STATE_DIR pause|resume|retry|cancel RUN
    python -m kintsugi.runtime STATE_DIR decide RUN REQUEST ANSWER [--result JSON] [--token TEXT]

ANSWER is what ``status`` names: approve or reject; happened (with its result), not_happened, continue or stop.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys

from kintsugi.runtime import client
from kintsugi.runtime.legible import describe
from kintsugi.runtime.store import JournalUnavailable

CONTROLS = {
    "pause": client.pause,
    "resume": client.resume,
    "retry": client.retry,
    "cancel": client.cancel,
}


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi.runtime", description="Steer durable runs.")
    parser.add_argument("state_dir", metavar="STATE_DIR")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every run and its state")
    status = verbs.add_parser("status", help="all there is to know of a run")
    status.add_argument("run", metavar="RUN")
    status.add_argument("--json", action="store_true", help="for a program")
    for verb, act in CONTROLS.items():
        help_text = (act.__doc__ or "").partition(".")[0]
        verbs.add_parser(verb, help=help_text).add_argument("run", metavar="RUN")
    decide = verbs.add_parser("decide", help="answer a question of a run")
    for name in ("run", "request", "answer"):
        decide.add_argument(name, metavar=name.upper())
    decide.add_argument("--result", type=json.loads, help="what came of it, as JSON, where it happened")
    decide.add_argument("--token", help="the approval's token, where the tool wants one")
    try:
        _do(parser.parse_args(arguments))
    except (LookupError, ValueError, JournalUnavailable) as error:
        print(error.args[0], file=sys.stderr)  # noqa: T201 - it is a command
        return 1
    return 0


def _do(asked: argparse.Namespace) -> None:
    if asked.verb == "list":
        lines = [
            f"{run_id}  {client.status(asked.state_dir, run_id)['state']}" for run_id in client.runs(asked.state_dir)
        ]
        _say(*lines)
    elif asked.verb == "status":
        shown = client.status(asked.state_dir, asked.run)
        _say(json.dumps(shown, indent=2) if asked.json else describe(shown))
    elif asked.verb == "decide":
        decision = {"decision_id": secrets.token_hex(8), "decision": asked.answer}
        decision |= {key: value for key in ("result", "token") if (value := getattr(asked, key)) is not None}
        client.decide(asked.state_dir, asked.run, asked.request, decision)
    else:
        CONTROLS[asked.verb](asked.state_dir, asked.run)


def _say(*lines: str) -> None:
    for line in lines:
        print(line)  # noqa: T201 - it is a command


if __name__ == "__main__":
    sys.exit(main())
