"""Where most faults strike, in the words that their files share: predicates over sites."""

from __future__ import annotations

from kintsugi.faults.points import Site

__all__ = [
    "ATTEMPTS_MAX",
    "ask_made",
    "call_committed",
    "call_made",
    "exact",
    "in_flight",
    "met_again",
    "parked",
    "reply_generated",
    "request_made",
]

ATTEMPTS_MAX = 6
"""As many as any workflow's policy allows: what is done so often outlasts every retry budget."""


def exact(site: Site) -> bool:
    """At a request or a wait, where nothing of the moment is left to chance."""
    return site.point.phase != "after"


def call_made(site: Site) -> bool:
    """A tool has been called, and nothing is done yet."""
    return site.point.kind == "tool" and site.point.phase == "before"


def call_committed(site: Site) -> bool:
    """A tool's effect is in the ledger, and nothing of it has been told."""
    return site.point.kind == "tool" and site.point.phase == "committed"


def ask_made(site: Site) -> bool:
    """The model has been asked, and nothing is done yet."""
    return site.point.kind == "model" and site.point.phase == "before"


def reply_generated(site: Site) -> bool:
    """The model has generated and charged, and nothing of it has been told."""
    return site.point.kind == "model" and site.point.phase == "during"


def request_made(site: Site) -> bool:
    """A tool has been called or the model asked, and nothing is done yet."""
    return call_made(site) or ask_made(site)


def met_again(site: Site) -> bool:
    """Nothing has come of the request yet, so that every recovery has to make it again."""
    return site.point.phase in {"before", "during"} and site.point.kind != "decision"


def parked(site: Site) -> bool:
    """The run waits for a person or a timer, and all is quiet."""
    return site.point.kind in {"human", "timer"} and site.point.phase == "waiting"


def in_flight(site: Site) -> bool:
    """A request whose answer may be heard by one worker and asked for again by another.

    That is any request to the model or of a read, and a write that carries a key; of another write nobody could tell
    whether the first one's has happened.
    """
    if site.point.phase not in {"before", "during", "committed"}:
        return False
    return site.point.kind == "model" or site.effect == "read" or site.idempotency == "key"
