"""Where the tasks of a batch run: in this process, or in processes of a pool."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Protocol

from agent_runtime.agent_keys import AgentKey
from agent_runtime.orchestration.middleware import CostTrackingMiddleware
from agent_runtime.pool.config import PoolConfig
from agent_runtime.pool.instance_pool import AgentInstancePool
from agent_runtime.pool.task import AgentTask, Assignment
from agent_runtime.template import rendered_prompt

if TYPE_CHECKING:
    from agent_runtime.batch.task import BatchTask
    from agent_runtime.event_bus.dead_letters import DeadLetters
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template import AgentTemplate
    from agent_runtime.types import AgentContext, AgentResult


class Backend(Protocol):
    """Where tasks run. All give the same results; `agent_runtime.testing.backend_conformance` checks one.

    `name` is shown in results, `slots` is how many tasks it runs at once (None: as many as it is given), `weight` its
    share when several are scheduled by weight.
    """

    name: str
    slots: int | None
    weight: float

    async def open(self) -> None:
        """Get ready; called once, before the first task."""

    async def aclose(self) -> None:
        """Give back what was opened; no task runs any more."""

    async def check(self, task: BatchTask) -> bool:
        """Raise what is wrong with a task before it is accepted; returns whether its spending is under a budget."""

    async def run(self, task: BatchTask, call: AgentContext, task_id: str) -> AgentResult:
        """Run one attempt. Cancelling stops it. Raises as `AgentExecutor.execute`.

        `task_id` is the task's name beyond its batch: the same for all its attempts.
        """


class AsyncioBackend:
    """In this process, on the event loop: agents that wait for models and tools share it well.

    A template is read once, at its first task: a batch runs with one version of it from the first task to the last.
    """

    def __init__(self, factory: AgentFactory, *, name: str = "asyncio", slots: int | None = None, weight: float = 1.0):
        self._factory, self.name, self.slots, self.weight = factory, name, slots, weight
        self._templates: dict[str, AgentTemplate] = {}
        self._agents: dict[str, AgentExecutor] = {}

    async def open(self) -> None:
        """See `Backend.open`."""

    async def aclose(self) -> None:
        """See `Backend.aclose`."""

    async def check(self, task: BatchTask) -> bool:
        """See `Backend.check`."""
        if task.agent in self._templates:
            return budgeted(self.agent(task))
        return budgeted(await asyncio.to_thread(self.agent, task))  # the first of its kind: it is built

    async def run(self, task: BatchTask, call: AgentContext, task_id: str) -> AgentResult:
        """See `Backend.run`."""
        return await self.agent(task).execute(call)

    def agent(self, task: BatchTask) -> AgentExecutor:
        """The executor of a task; raises what making it raises."""
        if not task.inputs and (known := self._agents.get(task.agent)) is not None:
            return known
        if (template := self._templates.get(task.agent)) is None:
            template = self._factory.get_template(task.agent)
        made = self._factory.create_agent(template, task.inputs)
        self._templates[task.agent] = template
        if not task.inputs:
            self._agents[task.agent] = made
        return made


class ProcessBackend:
    """In processes of an instance pool: agents that compute, or that may crash, hang or leak.

    Args:
        pool: a pool that is started and stays yours; or None, and one of `config` is started and ended here.
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
        self._factory, self.name, self.weight = factory, name, weight
        self._own = pool is None
        self.pool = pool or AgentInstancePool(factory, config, dead_letters=dead_letters)
        self.slots: int | None = self.pool.config.size
        self._templates: dict[str, AgentTemplate] = {}
        self._types: dict[AgentKey, str] = {}

    async def open(self) -> None:
        """See `Backend.open`."""
        if self._own:
            await self.pool.__aenter__()

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        if self._own:
            await self.pool.__aexit__(None, None, None)

    async def check(self, task: BatchTask) -> bool:
        """See `Backend.check`."""
        if task.agent in self._templates:
            return budgeted(self._agent(task)[1])
        return budgeted((await asyncio.to_thread(self._agent, task))[1])

    async def run(self, task: BatchTask, call: AgentContext, task_id: str) -> AgentResult:
        """See `Backend.run`."""
        name, agent = self._agent(task)
        call.assignment = Assignment(AgentTask(name, call.input, id=task_id, priority=task.priority))
        return await agent.execute(call)

    def _agent(self, task: BatchTask) -> tuple[str, AgentExecutor]:
        """The agent type of a task, and its executor with the task's own prompt.

        Tasks whose inputs only fill a prompt share instances; inputs of tools make another agent type.
        """
        if (template := self._templates.get(task.agent)) is None:
            template = self._templates[task.agent] = self._factory.get_template(task.agent)
        keys = self._factory.keys
        values, key = keys.values(template, task.inputs), keys.of(template, task.inputs)
        if (name := self._types.get(key)) is None:
            digest = hashlib.sha256(repr(key).encode()).hexdigest()[:8]
            name = self._types[key] = f"{template.metadata.name}~{digest}"
            self.pool.add_agent(name, template, task.inputs)
        agent = self.pool.agent(name)
        return name, agent.with_prompt(rendered_prompt(template, values)) if template.inputs else agent


def budgeted(agent: AgentExecutor) -> bool:
    """Whether an agent's calls pass a cost layer: only there a budget of the batch is held."""
    return any(isinstance(layer, CostTrackingMiddleware) for layer in agent.pipeline)
