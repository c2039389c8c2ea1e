"""Restrict a principal's batch to registered agents in its scopes, and no files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError, InputInvalid, UnknownComponent
from agent_runtime.template.spec import is_path

if TYPE_CHECKING:
    from agent_runtime.batch.task import BatchTask
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import Principal


class CallerRules:
    """Check a principal's submission, before anything is built or read for it.

    The principal None is the application itself, which may name files and any agent.
    """

    def __init__(self, factory: AgentFactory, principal: Principal | None) -> None:
        self._factory = factory
        self._principal = principal
        self._checked: set[str] = set()

    def check_source(self, tasks: Any, agent: str) -> None:
        """Raise InputInvalid for tasks that are a file's name, and as `check_agent`."""
        if self._principal is not None and isinstance(tasks, str | Path):
            raise InputInvalid(
                "a principal submits tasks as a list: a file is the application's to read", "tasks"
            )
        self.check_agent(agent)

    def check_agent(self, name: str) -> None:
        """Raise ConfigurationError for an unknown agent, Forbidden for one not allowed."""
        if self._principal is None or not name or name in self._checked:
            return
        if is_path(name):
            raise ConfigurationError(
                "a principal names a registered agent: a file is the application's to load"
            )
        try:
            template = self._factory.get_template(name)
        except UnknownComponent:  # its text lists all templates of the application
            raise ConfigurationError(f"no agent '{name[:64]}' is registered") from None
        self._factory.check_scopes(self._principal, "run", template)
        self._checked.add(name)

    def check_task(self, task: BatchTask) -> None:
        """Raise InputInvalid for an input that is a path, and as `check_agent`."""
        self.check_agent(task.agent)
        if self._principal is not None and task.agent and task.inputs:
            self._check_inputs(task)

    def _check_inputs(self, task: BatchTask) -> None:
        properties = self._factory.get_template(task.agent).inputs.get("properties", {})
        for name, schema in properties.items():
            if name in task.inputs and schema.get("format") == "path":
                raise InputInvalid(
                    f"'{name}' is a path, and so the application's to give", f"inputs.{name}"
                )
