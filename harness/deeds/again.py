"""What a SUT was told once is told again: the submission of its run, the decisions of its person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from kintsugi.harness.deeds.blow import Blow
from kintsugi.harness.processes import VerbFailed, VerbSilent

__all__ = ["redeliver", "resubmit"]


async def resubmit(blow: Blow) -> None:
    """Submit the run again with the same id and the same payload."""
    session = blow.session
    payload = session.payload()
    await _again(
        blow,
        "submitted",
        [
            session.clients.call("submit", str(session.state_folder), blow.run.id, payload)
            for _ in range(blow.action.copies)
        ],
    )


async def redeliver(blow: Blow) -> None:
    """Deliver every decision that was made in the run again, the same and with the same id."""
    session, run = blow.session, blow.run
    decided = [question for question in run.questions.values() if question["decision"] is not None]
    if not decided:
        blow.armed.missed("no decision had been made")
        return
    folder = str(session.state_folder)
    await _again(
        blow,
        "decided",
        [session.clients.call("decide", folder, run.id, q["request_id"], q["decision"]) for q in decided],
    )


async def _again(blow: Blow, what: str, calls: list[Awaitable[object]]) -> None:
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, VerbFailed):
            raise answer
    silent = sum(isinstance(answer, VerbSilent) for answer in answers)
    taken = sum(not isinstance(answer, BaseException) for answer in answers)
    blow.session.disturbed()
    if silent:
        blow.armed.missed(f"{what} again {len(answers)} time(s), but {silent} of them got no answer")
        return
    blow.armed.witness(f"{what} again {len(answers)} time(s), of which the SUT took {taken} and turned down the others")
