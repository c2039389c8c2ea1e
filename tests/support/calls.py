"""Ways to make a call that tests of both kinds, unary and streamed, share."""

from __future__ import annotations

from typing import Any

from agent_runtime import AgentExecutor, AgentResult


async def run_call(agent: AgentExecutor, call: Any, *, streaming: bool) -> AgentResult:
    """The result of a call; a streamed one is read to its end."""
    if not streaming:
        return await agent.execute(call)
    async with agent.execute_stream(call) as stream:
        _ = [chunk async for chunk in stream.chunks()]
    return stream.result
