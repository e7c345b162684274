"""A real model as one that answers at the gateway: from its provider, or from a cassette."""

from __future__ import annotations

from time import monotonic

from kintsugi.harness.models.answers import Answer, Asked, NoAnswer, NoneAtAll, Refused
from kintsugi.harness.models.cassette import Outcome, Place, Recording, Tape
from kintsugi.harness.models.provider import Provider
from kintsugi.harness.models.request import as_good, key_of, provider_request, read_completion
from kintsugi.harness.models.spend import Meter
from kintsugi.scenarios.trial import Trial

__all__ = ["Live", "Taped"]

MARGIN_SECONDS = 0.25
"""How long before the SUT's own time-out a provider is given up: what its reply came to is then never in doubt."""


class _Real:
    """What the two have in common: the place of a request, and the answer that an outcome is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = ""

    async def answer(self, asked: Asked) -> Answer:
        """The model's answer. Raises Refused, NoAnswer."""
        request = provider_request(self.name, asked.request)
        key = key_of(request)
        run = asked.crossing.run
        run.requests[key] += 1
        place = Place(asked.trial.id, run.id, key, run.requests[key])
        try:
            outcome = await self._outcome(asked, request, place)
        except NoneAtAll as problem:
            self.stopped = str(problem)
            raise
        if "refused" in outcome:
            raise Refused(**outcome["refused"])
        reply, tokens = read_completion(outcome["completion"], request)
        return Answer(reply, tokens, as_good(asked.workflow, asked.wanted, asked.right, reply, asked.request))

    def vouch(self, trial: Trial) -> None:
        """Raise NoAnswer where a trial that has ended says nothing of its SUT, since no model was there to ask."""

    async def _outcome(self, asked: Asked, request: dict[str, object], place: Place) -> Outcome:
        raise NotImplementedError


class Live(_Real):
    """Asked of its provider, within a limit of money, and recorded where that is wanted."""

    def __init__(self, provider: Provider, meter: Meter, recording: Recording | None = None) -> None:
        super().__init__(provider.name)
        self._provider, self._meter, self._recording = provider, meter, recording
        self._unserved: set[str] = set()
        """The trials that have asked before the first answer."""

    def vouch(self, trial: Trial) -> None:
        """Raise NoAnswer where a trial has asked, and nothing was answered in the whole run so far."""
        if trial.id in self._unserved and (why := self._provider.unanswered):
            raise NoAnswer(why)

    async def _outcome(self, asked: Asked, request: dict[str, object], place: Place) -> Outcome:
        seconds = asked.workflow.policy.model_timeout_seconds
        given_up = monotonic() + max(seconds - MARGIN_SECONDS, seconds / 2)
        self._provider.must_be_there()
        if self._provider.unanswered:
            self._unserved.add(place.trial)
        async with self._meter.call(place.trial, request) as call:
            outcome = await self._provider.complete(request, given_up - monotonic())
            call.ended(outcome)
        self._provider.must_be_there()
        if self._recording is not None:
            self._recording.add(place, _words(asked), outcome)
        return outcome


class Taped(_Real):
    """Answered from a cassette; what is not on it is an error, never a guess."""

    def __init__(self, name: str, tape: Tape) -> None:
        super().__init__(name)
        self._tape = tape

    async def _outcome(self, asked: Asked, request: dict[str, object], place: Place) -> Outcome:
        outcome = self._tape.find(place)
        if outcome is None:
            raise NoAnswer(
                f"{self._tape.folder}: holds no answer to {_words(asked)} in run {place.run} of {place.trial}: "
                f"request {place.key[:16]}, asked {place.n} times; record it again"
            )
        return outcome


def _words(asked: Asked) -> str:
    """What was asked, for whoever reads a cassette or looks for what it lacks."""
    what = asked.wanted.function if asked.wanted.kind == "call" else ""
    return " ".join(filter(None, (asked.wanted.kind, what, "at step", f"{asked.wanted.step}[{asked.wanted.item}]")))
