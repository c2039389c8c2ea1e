"""A cancel that meets another exception ends the call as a cancel, unary and streamed, with both
linked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentResult,
    CallCancelled,
    CallTimeout,
    Handler,
    Middleware,
    SessionManager,
    SessionMiddleware,
    Timeouts,
    gated,
)
from agent_runtime.errors import StaleWriter
from agent_runtime.testing import ScriptedChatModel, say


class Untidy(Middleware):
    """Fails while it cleans up."""

    def __init__(self, error: BaseException) -> None:
        self.entered = asyncio.Event()
        self.error = error

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        self.entered.set()
        try:
            return await next_call(context)
        finally:
            raise self.error


class Slow(Untidy):
    """Waits itself, so that nothing is written."""

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        return await super().process(context, self._wait)

    async def _wait(self, context: AgentContext) -> AgentResult:
        await asyncio.sleep(5)
        raise AssertionError("not cancelled")


ERRORS = [ValueError("untidy"), SystemExit(3), TimeoutError("untidy")]
errors = pytest.mark.parametrize("error", ERRORS, ids=repr)


def agent_of(layer: Middleware, **more: Any) -> AgentExecutor:
    model = gated(ScriptedChatModel(script=[say("late")], delay_s=5))
    return AgentExecutor(create_agent(model, []), pipeline=[layer], gated=True, **more)


def linked(error: BaseException) -> list[type[BaseException]]:
    chain: list[type[BaseException]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(type(current))
        current = current.__cause__ or current.__context__
    return chain


@errors
async def test_a_unary_call_ends_cancelled(error: BaseException) -> None:
    layer = Untidy(error)
    task = asyncio.create_task(agent_of(layer).execute("hi"))
    await layer.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as ended:
        await task
    assert type(error) in linked(ended.value)


@errors
async def test_the_reader_of_a_stream_is_cancelled_alike(error: BaseException) -> None:
    layer = Untidy(error)

    async def read() -> None:
        async with agent_of(layer).execute_stream("hi") as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    await layer.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@errors
async def test_a_stream_that_is_left_early_is_over(error: BaseException) -> None:
    layer = Untidy(error)
    async with agent_of(layer).execute_stream("hi") as stream:
        await layer.entered.wait()
    with pytest.raises(CallCancelled) as ended:
        _ = stream.result
    assert type(error) in linked(ended.value)


@errors
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_ends_as_a_timeout(error: BaseException, streamed: bool) -> None:
    agent = agent_of(Untidy(error), timeouts=Timeouts(run_s=0.05))
    with pytest.raises(CallTimeout) as ended:
        if streamed:
            async with agent.execute_stream("hi") as stream:
                async for _ in stream:
                    pass
        else:
            await agent.execute("hi")
    assert type(error) in linked(ended.value)


async def test_the_runnable_face_ends_cancelled() -> None:
    layer = Untidy(ValueError("untidy"))
    task = asyncio.create_task(agent_of(layer).ainvoke({"messages": "hi"}))
    await layer.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_lease_is_said_whatever_was_raised_on_the_way_out() -> None:
    manager = SessionManager(lease_s=0.15)
    layer = Slow(ValueError("untidy"))
    model = gated(ScriptedChatModel(script=[say("late")]))
    graph = create_agent(model, [], checkpointer=manager.checkpointer)
    agent = AgentExecutor(graph, pipeline=[SessionMiddleware(manager), layer], gated=True)
    task = asyncio.create_task(agent.execute(AgentContext("hi", session_id="s")))
    await layer.entered.wait()
    await manager.checkpointer.backend.revoke_lease("default:s")
    with pytest.raises(StaleWriter) as ended:
        await task
    assert ValueError in linked(ended.value)
