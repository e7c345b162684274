"""The tasks of τ²-bench as workflows, from a checkout that the user names; nothing of it is shipped here.

``checkout`` imports a domain's tools, ``world`` serves them, ``tasks`` makes a workflow of each task that has one.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from kintsugi.golden_workflows.tau2.checkout import open_checkout
from kintsugi.golden_workflows.tau2.tasks import Converted, convert

__all__ = ["Converted", "load_domain"]


@lru_cache(maxsize=1)
def load_domain(checkout: Path, domain: str) -> Converted:
    """The tasks of a domain as workflows, and those that are none with the reason. Raises FileProblem."""
    return convert(open_checkout(checkout, domain))
