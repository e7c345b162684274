"""The minimal runtime as a system under test, or as a library: everything one needs to run workflows on it.

Importing this opens nothing and starts no thread, so that a launcher can fork workers from a warmed parent.
"""

from __future__ import annotations

from kintsugi.runtime.client import cancel, decide, pause, resume, retry, runs, status, submit
from kintsugi.runtime.store import provision
from kintsugi.runtime.worker import work

__all__ = ["cancel", "decide", "pause", "provision", "resume", "retry", "runs", "status", "submit", "work"]
