"""Where the tasks of a batch run: in this process, or in processes of a pool."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from agent_runtime.factory.cache_keys import AgentKey
from agent_runtime.orchestration.middleware import CostTrackingMiddleware
from agent_runtime.pool.config import PoolConfig
from agent_runtime.pool.process.instance_pool import AgentInstancePool
from agent_runtime.pool.task import AgentTask, Assignment
from agent_runtime.template import render_prompt

if TYPE_CHECKING:
    from agent_runtime.batch.task import BatchTask
    from agent_runtime.event_bus.dead_letter import DeadLetters
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template import AgentTemplate
    from agent_runtime.types import AgentContext, AgentResult


class Backend(Protocol):
    """Run tasks somewhere; all backends give the same results.

    `agent_runtime.testing.conformance.batch_backend` checks one. `name` appears in results, `slots`
    is how many tasks it runs at once (None: unlimited), `weight` its share in weighted scheduling.
    """

    name: str
    slots: int | None
    weight: float

    async def open(self) -> None:
        """Get ready; called once, before the first task."""

    async def aclose(self) -> None:
        """Release its resources; no task runs any more."""

    async def check(self, task: BatchTask, execution_id: str) -> bool:
        """Raise any fault of a task before it is accepted.

        Returns whether a budget limits its spending.
        """

    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        """Run one attempt. Cancelling stops it. Raises as `AgentExecutor.execute`."""

    def forget(self, execution_id: str) -> None:
        """Drop the cached agents of an execution that no longer runs here."""


class AsyncioBackend(Backend):
    """In this process, on the event loop: agents that wait for models and tools share it well.

    A template is read once for each execution, at its first task: a batch runs with one version of
    it.
    """

    def __init__(
        self,
        factory: AgentFactory,
        *,
        name: str = "asyncio",
        slots: int | None = None,
        weight: float = 1.0,
    ):
        self._factory = factory
        self.name = name
        self.slots = slots
        self.weight = weight
        self._agent_cache: dict[str, dict[str, tuple[AgentTemplate, AgentExecutor | None]]] = {}

    @override
    async def open(self) -> None: ...

    @override
    async def aclose(self) -> None: ...

    @override
    async def check(self, task: BatchTask, execution_id: str) -> bool:
        if task.agent in self._agent_cache.get(execution_id, ()):
            return has_cost_layer(self._agent(task, execution_id))
        return has_cost_layer(
            await asyncio.to_thread(self._agent, task, execution_id)
        )  # the first of its kind: it is built

    @override
    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        return await self._agent(task, execution_id).execute(call)

    @override
    def forget(self, execution_id: str) -> None:
        self._agent_cache.pop(execution_id, None)

    def _agent(self, task: BatchTask, execution_id: str) -> AgentExecutor:
        """Return a task's executor; raises the errors of building it."""
        cached_agents = self._agent_cache.setdefault(execution_id, {})
        template, cached_agent = cached_agents.get(task.agent, (None, None))
        if cached_agent is not None and not task.inputs:
            return cached_agent
        template = template or self._factory.get_template(task.agent)
        agent = self._factory.create_agent(template, task.inputs)
        cached_agents[task.agent] = template, cached_agent if task.inputs else agent
        return agent


class ProcessBackend(Backend):
    """In processes of an instance pool: agents that compute, or that may crash, hang or leak.

    Args:
        pool: a pool that is started and stays yours; or None, and one of `config` is started and
            ended here.
    """

    def __init__(
        self,
        factory: AgentFactory,
        config: PoolConfig | None = None,
        *,
        pool: AgentInstancePool | None = None,
        dead_letters: DeadLetters | None = None,
        name: str = "process",
        weight: float = 1.0,
    ) -> None:
        self._factory = factory
        self.name = name
        self.weight = weight
        self._owns_pool = pool is None
        self.pool = pool or AgentInstancePool(factory, config, dead_letters=dead_letters)
        self.slots: int | None = self.pool.config.size
        self._templates: dict[str, dict[str, AgentTemplate]] = {}
        self._agent_type_names: dict[AgentKey, str] = {}

    @override
    async def open(self) -> None:
        if self._owns_pool:
            await self.pool.__aenter__()

    @override
    async def aclose(self) -> None:
        if self._owns_pool:
            await self.pool.__aexit__(None, None, None)

    @override
    async def check(self, task: BatchTask, execution_id: str) -> bool:
        if task.agent in self._templates.get(execution_id, ()):
            return has_cost_layer(self._agent(task, execution_id)[1])
        return has_cost_layer((await asyncio.to_thread(self._agent, task, execution_id))[1])

    @override
    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        name, agent = self._agent(task, execution_id)
        # the same for all attempts: the pool counts whom a task has killed
        task_id = f"{execution_id}:{task.id}"
        call.assignment = Assignment(
            AgentTask(name, call.input, id=task_id, priority=task.priority)
        )
        return await agent.execute(call)

    @override
    def forget(self, execution_id: str) -> None:
        self._templates.pop(execution_id, None)

    def _agent(self, task: BatchTask, execution_id: str) -> tuple[str, AgentExecutor]:
        """Return the agent type of a task, and its executor with the task's own prompt.

        Tasks whose inputs only fill a prompt share instances; inputs of tools make another agent
        type.
        """
        templates = self._templates.setdefault(execution_id, {})
        if (template := templates.get(task.agent)) is None:
            template = templates[task.agent] = self._factory.get_template(task.agent)
        keys = self._factory.keys
        values = keys.resolve_inputs(template, task.inputs)
        key = keys.compute(template, task.inputs)
        if (name := self._agent_type_names.get(key)) is None:
            digest = hashlib.sha256(repr(key).encode()).hexdigest()[:8]
            name = self._agent_type_names[key] = f"{template.metadata.name}~{digest}"
            self.pool.add_agent(name, template, task.inputs)
        agent = self.pool.agent(name)
        return name, agent.with_prompt(
            render_prompt(template, values)
        ) if template.inputs else agent


def has_cost_layer(agent: AgentExecutor) -> bool:
    """Return whether an agent's calls pass a cost layer, which enforces the batch's budget."""
    return any(isinstance(layer, CostTrackingMiddleware) for layer in agent.pipeline)
