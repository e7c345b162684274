"""The server or database in which a runtime keeps its state is killed, and comes back with what it had made durable."""

from __future__ import annotations

from kintsugi.faults.actions import Kill, RestartStore
from kintsugi.faults.fault import FaultClass, Form
from kintsugi.faults.where import exact

__all__ = ["FAULT"]

DOWN_SECONDS = 1.0
LONG_SECONDS = 5.0


FAULT = FaultClass(
    name="store_restart",
    layer="execution",
    what="SIGKILL of the engine's own server or database, which is started again on the same ports and data.",
    witness="The server reaped by signal 9, its port refusing connections meanwhile, and accepting them again.",
    dealt_with_by="engine",
    scope="server",
    forms=(
        Form("server", exact, (RestartStore(DOWN_SECONDS),), wants=("own_server",)),
        Form("server_for_long", exact, (RestartStore(LONG_SECONDS),), wants=("own_server",)),
        Form("with_worker", exact, (Kill(), RestartStore(DOWN_SECONDS)), wants=("own_server",)),
    ),
)
