"""The scripted model as one that answers at the gateway: the script's reply, with the mistakes of a profile."""

from __future__ import annotations

from kintsugi.harness.injected import obedient
from kintsugi.harness.mistakes import PROFILES, vary
from kintsugi.harness.models.answers import Answer, Asked, Tokens
from kintsugi.harness.models.tokens import cached, prompt_tokens, tokens_of
from kintsugi.scenarios.trial import Trial

__all__ = ["Scripted"]


class Scripted:
    """Answers at once, with no one's help, and the same whenever it is asked the same."""

    stopped = ""

    async def answer(self, asked: Asked) -> Answer:
        """What the script says, or what it is told in the data that it reads, or a mistake."""
        trial, run, wanted, request = asked.trial, asked.crossing.run, asked.wanted, asked.request
        source = f"{trial.seed}/{run.id}/{wanted.step}/{wanted.item}/{asked.n}"
        reply = obedient(request, source) or vary(PROFILES[trial.variance], wanted, asked.right, request, source)
        tokens = Tokens(prompt_tokens(request), cached(run.prompts, request), tokens_of(reply.message))
        return Answer(reply, tokens, good=reply == asked.right)

    def vouch(self, trial: Trial) -> None:
        """It is always there."""
