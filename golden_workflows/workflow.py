"""A golden workflow, loaded: the parts of its file, the world that its runs act on, and what a SUT may see of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from kintsugi.golden_workflows.expressions import fields_in
from kintsugi.golden_workflows.forms import Step, Tool, WorkflowFile, is_free_text
from kintsugi.golden_workflows.records import Records, Servable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Workflow"]


class Workflow:
    """Its file's parts, and the tools it uses. `name` is ``class/name``. Nothing of it changes while trials run."""

    def __init__(
        self,
        name: str,
        file: WorkflowFile,
        tools: Mapping[str, Tool],
        path: Path | None = None,
        opens: Callable[[], Servable] | None = None,
    ) -> None:
        self.name = name
        self.workflow_class = name.split("/", maxsplit=1)[0]
        self.path = path
        """The file it was loaded from, for messages."""
        self.task = file.task
        self.world = file.world
        self.steps = {step.id: step for step in file.plan}
        self.policy = file.policy
        self.script = file.script
        self.drifts = {drift.name: drift for drift in file.drift}
        self.truth = file.truth
        self.tools = dict(tools)
        self._opens = opens

    def records(self, now: Callable[[], float] = float) -> Servable:
        """What the world of a new run acts on: the seed records, unless the workflow brings a world of its own.

        `now` tells workflow seconds; time stands still where it is left out.
        """
        if self._opens is not None:
            return self._opens()
        polled = {step.tool: step.every_seconds for step in self.steps.values() if step.tool and step.every_seconds}
        return Records.seeded(self.world, now, polled)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What a SUT may see, as JSON: steps, tools, policy; no script, no seed records, no truth."""
        return {
            "schema": 1,
            "workflow": self.name,
            "task": self.task.goal.strip(),
            "model": "scripted",
            "steps": [
                step.model_dump(exclude_defaults=True) | ({"args": step.args} if step.tool else {})
                for step in self.steps.values()
            ],
            "tools": {name: tool.public() for name, tool in self.tools.items()},
            "policy": self.policy.model_dump(),
        }

    @cached_property
    def free_fields(self) -> dict[str, frozenset[str]]:
        """For each step of the script, the fields of the model's answer that are its prose."""
        return {
            step: frozenset(name for name, value in fields.items() if is_free_text(value))
            for step, fields in self.script.items()
        }

    @cached_property
    def free_arguments(self) -> dict[str, frozenset[str]]:
        """For each tool step, the arguments that carry the model's prose and so have no literal truth."""
        prose: set[tuple[str, str | None]] = {
            (step, field) for step, fields in self.free_fields.items() for field in fields
        }
        prose |= {(step, None) for step, _ in prose}
        return {
            step.id: frozenset(name for name, value in step.args.items() if prose & fields_in(value))
            for step in self.steps.values()
            if step.tool
        }

    def literal(self, step: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a step's call that have a literal truth; all of them, where it is none of the plan's."""
        free = self.free_arguments.get(step, frozenset())
        return {name: value for name, value in arguments.items() if name not in free}

    def writes(self) -> list[Step]:
        """The plan's steps that change the world."""
        return [step for step in self.steps.values() if step.tool and self.tools[step.tool].effect == "write"]
