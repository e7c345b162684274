"""Toxics: what Toxiproxy does to the connections between the workers and a service, or their store."""

from __future__ import annotations

from kintsugi.harness.deeds.blow import Blow, Directive

__all__ = ["toxic"]

SERVICES = {"tool": "tools", "model": "model"}


async def toxic(blow: Blow) -> Directive | None:
    """Put a toxic on a link; the link lifts it again and says what was seen of it."""
    if blow.crossing is None:
        return None
    name = SERVICES[blow.crossing.kind] if blow.action.link == "service" else "store"
    return await blow.session.links[name].strike(blow)
