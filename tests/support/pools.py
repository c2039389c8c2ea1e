"""Make factories and templates for pools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent_runtime import AgentFactory
from agent_runtime.pool import (
    AgentInstancePool,
    PoolConfig,
)
from agent_runtime.template import AgentTemplate
from tests.support.tools_that_misbehave import TOOLS


def template(name: str = "worker", **spec: Any) -> AgentTemplate:
    """A template with all the tools."""
    content = {"model": "scripted", "tools": list(TOOLS), **spec}
    return AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": name},
            "spec": content,
        }
    )


Make = Callable[..., AgentFactory]


@asynccontextmanager
async def pool_of(
    make: Make, config: dict[str, Any] | None = None, **seats: Any
) -> AsyncIterator[AgentInstancePool]:
    async with (
        make(**seats) as factory,
        AgentInstancePool(factory, PoolConfig.parse(config or {})) as pool,
    ):
        yield pool


async def until(condition: Callable[[], Any], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
