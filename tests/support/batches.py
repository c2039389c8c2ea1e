"""Run batches with agents that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.runnables import RunnableLambda

from agent_runtime import AgentFactory, Event
from agent_runtime.batch import BatchSettings, ParallelAgentExecutor
from agent_runtime.batch.journal import Journal, open_journal
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.template import AgentTemplate

QUICK = {"retry": {"attempts": 3, "initial_delay": "1ms"}, "grace": "200ms"}


def workflow_template(name: str) -> AgentTemplate:
    spec = {"workflow": name, "runtime": {"retry": {"attempts": 1}}}
    content = {
        "apiVersion": "agent-runtime/v1",
        "kind": "AgentTemplate",
        "metadata": {"name": name},
        "spec": spec,
    }
    return AgentTemplate.model_validate(content)


def text_of(given: Any) -> str:
    """What a workflow was asked."""
    if isinstance(given, dict):
        given = given["messages"]
    last = given if isinstance(given, str) else given[-1]
    return str(last["content"] if isinstance(last, dict) else getattr(last, "content", last))


class Bench:
    """An executor over workflows that are plain functions.

    `asked` is what each was called with, in order.
    """

    def __init__(
        self, factory: AgentFactory, executor: ParallelAgentExecutor, dead: MemoryDeadLetters
    ) -> None:
        self.factory = factory
        self.executor = executor
        self.dead = dead
        self.asked: list[str] = []
        self.now = self.most = 0

    def told(self, kind: str) -> list[Any]:
        """The data of the events of a kind, as they come."""
        found: list[Any] = []

        async def hear(event: Event) -> None:
            found.append(event.data)

        self.factory.event_bus.subscribe(kind, handler=hear)
        return found

    def agent(self, name: str, work: Callable[[str], Any]) -> None:
        async def run(given: Any) -> Any:
            text = text_of(given)
            self.asked.append(text)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                done = work(text)
                return await done if asyncio.iscoroutine(done) else done
            finally:
                self.now -= 1

        self.factory.register_workflow(name, RunnableLambda(run))
        self.factory.register_template(workflow_template(name))


@asynccontextmanager
async def bench_of(
    settings: dict[str, Any] | None = None, *, journal: Journal | None = None, **seats: Any
) -> AsyncIterator[Bench]:
    dead = MemoryDeadLetters()
    own = journal is None
    journal = journal or open_journal("memory:")
    made = BatchSettings.parse({**QUICK, **(settings or {})})
    async with (
        AgentFactory(**seats) as factory,
        ParallelAgentExecutor(factory, made, journal=journal, dead_letters=dead) as executor,
    ):
        bench = Bench(factory, executor, dead)
        bench.agent("echo", lambda text: f"did {text}")
        yield bench
    if own:
        await journal.aclose()


async def until(condition: Callable[[], Any], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
