"""The operator's command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kintsugi.runtime import minimal
from kintsugi.runtime.__main__ import main
from kintsugi.runtime.protocol import DurableContext, ToolCall
from kintsugi.runtime.store import connect, read_signals

if TYPE_CHECKING:
    from tests.runtime.conftest import MakePlan, Plan, Working, World


def test_controls_and_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    minimal.submit(folder, "b", {"chain": "c", "plan": {"tools": {}}})
    minimal.submit(folder, "a", {"chain": "c", "plan": {"tools": {}}})
    assert main([folder, "list"]) == 0
    assert capsys.readouterr().out == "b  submitted\na  submitted\n"
    for verb in ("pause", "resume", "retry", "cancel"):
        assert main([folder, verb, "a"]) == 0
    assert main([folder, "decide", "a", "q", "approve", "--token", "t"]) == 0
    connection = connect(folder)
    signals = read_signals(connection, run_id="a")
    connection.close()
    assert [signal.kind for signal in signals] == ["pause", "resume", "retry", "cancel", "decision"]
    assert main([folder, "status", "a"]) == 0
    assert capsys.readouterr().out.startswith("run a (c): submitted, no worker has taken it up yet\n")
    assert main([folder, "status", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == "a"


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "pause", "x"]) == 1
    assert capsys.readouterr().err == "there is no run 'x'; submit it first\n"
    with pytest.raises(SystemExit):
        main([str(tmp_path), "explode", "x"])


async def test_a_halt_is_read_and_answered(
    world: World, working: Working, plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing but what the view says, a person puts a run right."""

    async def chain(ctx: DurableContext, _plan: Plan) -> str:
        return str((await ctx.tool("pay", ToolCall("opaque", {}), step="pay")).result)

    world.after = world.reset
    minimal.submit(world.state_dir, "run", {"chain": "chain", "plan": plan()})
    async with working(chain):
        await world.until_recorded("run", "asked")
        main([world.state_dir, "status", "run"])
        shown = capsys.readouterr().out
        assert "  in doubt pay: it may have had its effect\n" in shown
        (line,) = [line for line in shown.splitlines() if line.startswith("  next")]
        assert line.endswith(": happened (with its result), not_happened or stop")
        request = line.split("request ")[1].split(":")[0]
        assert main([world.state_dir, "decide", "run", request, "happened", "--result", '{"id": 1}']) == 0
        await world.until_ended()
    assert world.ends[0] == ("run", "completed", "{'id': 1}")
