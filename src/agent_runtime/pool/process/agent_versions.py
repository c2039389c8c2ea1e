"""Versions of a pool's agents, by their templates, tools and secrets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.factory.template_cache import TemplateFiles
from agent_runtime.remote.agent_spec import recipe_of
from agent_runtime.remote.frames import packed
from agent_runtime.remote.host_resources import Desk
from agent_runtime.template import AgentTemplate, resolve_inputs

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.core import Agent
    from agent_runtime.orchestration.executor import AgentExecutor


@dataclass(frozen=True, slots=True)
class Version:
    """An agent type as it is now.

    Its executor, what its workers are made of, and what they may ask for.
    """

    agent: str
    key: tuple[Any, ...]
    executor: AgentExecutor
    recipe: bytes
    desk: Desk


class Catalog:
    """Agent types by name.

    Args:
        factory: makes the agents.
        setup: the function that registers components in a worker, as `module:name`, or None.
        remote: makes what an executor awaits, from the agent's name and its checkpointer.
    """

    def __init__(
        self, factory: AgentFactory, setup: str | None, remote: Callable[[str, Any], Agent]
    ) -> None:
        self._factory = factory
        self._setup = setup
        self._remote = remote
        self._files = TemplateFiles(factory)
        self._said: dict[str, tuple[Any, Mapping[str, Any] | None, Mapping[str, Any]]] = {}
        self._versions: dict[str, Version] = {}
        self._older: list[Version] = []
        self._lock = threading.RLock()

    def add(
        self,
        agent: str,
        template: str | Path | AgentTemplate | None,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
    ) -> None:
        """Say what an agent type is made of."""
        self._said[agent] = (agent if template is None else template, inputs, overrides)

    async def refresh(self, agent: str) -> None:
        """See that `current` is what holds now.

        What takes time (a server to be asked, a build) is done in a thread.
        """
        if not self._is_known(agent):
            await asyncio.to_thread(self.current, agent)

    def current(self, agent: str) -> Version:
        """The version that is valid now; raises what making it raises. May block, see `refresh`."""
        template, inputs = self._template(agent)
        with self._lock:
            key = self._factory.keys.of(template, inputs)
            known = self._versions.get(agent)
            if known is None or known.key != key:
                if known is not None:
                    self._older = [each for each in [*self._older, known] if each.executor.busy]
                known = self._versions[agent] = self._made(agent, template, inputs, key)
            return known

    def latest(self, agent: str) -> Version | None:
        """The version made last; what holds, right after `refresh`."""
        return self._versions.get(agent)

    def is_outdated(self, version: Version) -> bool:
        """Tell whether a version is outdated, as far as no server has to be called."""
        try:
            template, inputs = self._template(version.agent)
            key, _ = self._factory.keys.known(template, inputs)
        except (AgentRuntimeError, OSError):  # what it was made of is broken, or gone
            return True
        return key is not None and key != version.key

    def executors(self) -> list[AgentExecutor]:
        """Those of the versions that hold, and of older ones that still have calls."""
        return [version.executor for version in [*self._versions.values(), *self._older]]

    def _template(self, agent: str) -> tuple[AgentTemplate, Mapping[str, Any] | None]:
        source, inputs, overrides = self._said.get(agent, (agent, None, {}))
        return self._files.get(source, overrides), inputs

    def _is_known(self, agent: str) -> bool:
        version = self._versions.get(agent)
        if version is None:
            return False
        template, inputs = self._template(agent)
        key, aged = self._factory.keys.known(template, inputs)
        return key == version.key and not aged

    def _made(
        self,
        agent: str,
        template: AgentTemplate,
        inputs: Mapping[str, Any] | None,
        key: tuple[Any, ...],
    ) -> Version:
        factory = self._factory
        bare = factory.create_from_template(template, inputs)
        saver = getattr(bare.agent, "checkpointer", None) or None
        values = resolve_inputs(template, inputs)
        recipe = recipe_of(
            agent, template, values, factory.registry, self._setup, keeps=saver is not None
        )
        desk = Desk(template, factory.registry, partial(factory.inner_agent, template), saver)
        return Version(agent, key, bare.run_by(self._remote(agent, saver)), packed(recipe), desk)
