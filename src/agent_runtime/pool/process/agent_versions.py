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
from agent_runtime.pool.template_cache import TemplateCache
from agent_runtime.remote.agent_spec import make_agent_spec
from agent_runtime.remote.frames import dumps
from agent_runtime.remote.host_resources import HostResources
from agent_runtime.template import AgentTemplate, resolve_inputs

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.core import Agent
    from agent_runtime.orchestration.executor import AgentExecutor


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """Hold an agent type's present executor, and the spec and resources of its workers."""

    agent: str
    key: tuple[Any, ...]
    executor: AgentExecutor
    pickled_spec: bytes
    resources: HostResources


class AgentVersions:
    """Build and update agent types by name.

    Args:
        factory: builds the agents.
        setup: the function that registers components in a worker, as `module:name`, or None.
        make_remote_agent: builds the agent for an executor, from the agent's name and its
            checkpointer.
    """

    def __init__(
        self,
        factory: AgentFactory,
        setup: str | None,
        make_remote_agent: Callable[[str, Any], Agent],
    ) -> None:
        self._factory = factory
        self._setup = setup
        self._make_remote_agent = make_remote_agent
        self._files = TemplateCache(factory)
        self._sources: dict[str, tuple[Any, Mapping[str, Any] | None, Mapping[str, Any]]] = {}
        self._versions: dict[str, AgentVersion] = {}
        self._superseded: list[AgentVersion] = []
        self._lock = threading.RLock()

    def add(
        self,
        agent: str,
        template: str | Path | AgentTemplate | None,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
    ) -> None:
        """Define an agent type."""
        self._sources[agent] = (agent if template is None else template, inputs, overrides)

    async def refresh(self, agent: str) -> None:
        """Update the current version; blocking work (a server query, a build) runs in a thread."""
        if not self._is_current(agent):
            await asyncio.to_thread(self.current, agent)

    def current(self, agent: str) -> AgentVersion:
        """Return the valid version; raises the errors of building it. May block (`refresh`)."""
        template, inputs = self._template(agent)
        with self._lock:
            key = self._factory.keys.compute(template, inputs)
            version = self._versions.get(agent)
            if version is None or version.key != key:
                if version is not None:
                    self._superseded = [
                        outdated
                        for outdated in [*self._superseded, version]
                        if outdated.executor.busy
                    ]
                version = self._versions[agent] = self._build_version(agent, template, inputs, key)
            return version

    def latest(self, agent: str) -> AgentVersion | None:
        """Return the version built last, which is valid directly after `refresh`."""
        return self._versions.get(agent)

    def is_outdated(self, version: AgentVersion) -> bool:
        """Tell whether a version is outdated, as far as no server has to be called."""
        try:
            template, inputs = self._template(version.agent)
            key, _ = self._factory.keys.cached(template, inputs)
        except (AgentRuntimeError, OSError):  # one of its sources is broken or deleted
            return True
        return key is not None and key != version.key

    def executors(self) -> list[AgentExecutor]:
        """Return the executors of valid versions, and of older ones that still have calls."""
        return [version.executor for version in [*self._versions.values(), *self._superseded]]

    def _template(self, agent: str) -> tuple[AgentTemplate, Mapping[str, Any] | None]:
        source, inputs, overrides = self._sources.get(agent, (agent, None, {}))
        return self._files.get(source, overrides), inputs

    def _is_current(self, agent: str) -> bool:
        version = self._versions.get(agent)
        if version is None:
            return False
        template, inputs = self._template(agent)
        key, is_stale = self._factory.keys.cached(template, inputs)
        return key == version.key and not is_stale

    def _build_version(
        self,
        agent: str,
        template: AgentTemplate,
        inputs: Mapping[str, Any] | None,
        key: tuple[Any, ...],
    ) -> AgentVersion:
        factory = self._factory
        local_executor = factory.create_from_template(template, inputs)
        saver = getattr(local_executor.agent, "checkpointer", None) or None
        values = resolve_inputs(template, inputs)
        agent_spec = make_agent_spec(
            agent, template, values, factory.registry, self._setup, has_sessions=saver is not None
        )
        resources = HostResources(
            template, factory.registry, partial(factory.inner_agent, template), saver
        )
        return AgentVersion(
            agent,
            key,
            local_executor.with_agent(self._make_remote_agent(agent, saver)),
            dumps(agent_spec),
            resources,
        )
