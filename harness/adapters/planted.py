"""The SUTs with a planted bug, by which the benchmark proves itself. They are in no suite, and no list of SUTs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kintsugi.harness.adapters import dbos, minimal
from kintsugi.harness.adapters.adapter import Adapter
from kintsugi.harness.adapters.postgres import PostgresServer

__all__ = ["DOES_NOT_FLUSH", "PLANTED"]

RUNTIME = "kintsugi.runtime.engines.planted"
MACHINE = "kintsugi.runtime.engines.planted_machine"
CHAINS = "kintsugi.golden_workflows.chains.planted"


def _adapter(name: str, *, side: str = "", chains: str = "", runtime: str = RUNTIME) -> Adapter:
    return replace(
        minimal.ADAPTER,
        name=f"planted_{name}",
        about=f"The minimal runtime, but: {name.replace('_', ' ')}.",
        side=f"{runtime}:{side}" if side else minimal.ADAPTER.side,
        chains=f"{CHAINS}:{chains}" if chains else minimal.ADAPTER.chains,
    )


PLANTED: Mapping[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        _adapter("forgets_the_last_step", side="FORGETS_THE_LAST_STEP"),
        _adapter("records_first", side="RECORDS_FIRST"),
        _adapter("no_key", side="NO_KEY"),
        _adapter("new_key_each_time", side="NEW_KEY_EACH_TIME"),
        _adapter("sends_again_blindly", side="SENDS_AGAIN_BLINDLY"),
        _adapter("loses_approvals", side="LOSES_APPROVALS"),
        _adapter("asks_again", side="ASKS_AGAIN"),
        _adapter("acts_on_stale_reads", chains="ACTS_ON_STALE_READS"),
        _adapter("believes_the_model", side="BELIEVES_THE_MODEL"),
        _adapter("believes_the_tools", side="BELIEVES_THE_TOOLS"),
        _adapter("starts_anew", side="STARTS_ANEW"),
        _adapter("no_backoff", side="NO_BACKOFF"),
        _adapter("no_fencing", side="NO_FENCING"),
        _adapter("counts_its_steps", side="COUNTS_ITS_STEPS"),
        _adapter("forgets_a_pause", side="FORGETS_A_PAUSE"),
        _adapter("does_not_sync", side="DOES_NOT_SYNC", runtime=MACHINE),
        _adapter("goes_on_unrecorded", side="GOES_ON_UNRECORDED", runtime=MACHINE),
        _adapter("goes_by_the_wall_clock", side="GOES_BY_THE_WALL_CLOCK", runtime=MACHINE),
        _adapter("dies_silently", side="DIES_SILENTLY"),
        _adapter("says_it_is_done", side="SAYS_IT_IS_DONE"),
        _adapter("swallows_rejection", chains="SWALLOWS_REJECTION"),
    )
}
"""Every one by its name."""

DOES_NOT_FLUSH = replace(
    next(adapter for adapter in dbos.ADAPTERS if adapter.name == "dbos_postgres"),
    name="planted_does_not_flush",
    about="DBOS on a PostgreSQL that acknowledges what is not yet on the disk.",
    server=lambda: PostgresServer({"synchronous_commit": "off", "wal_writer_delay": "10s"}),
)
"""What the end of a database shows; not one of `PLANTED`, since it needs an engine and PostgreSQL."""
