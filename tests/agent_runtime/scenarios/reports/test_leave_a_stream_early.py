"""pydantic-ai #1524, openai-agents-js #995.

A reader that leaves stops the provider, and pays for what was said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.providers import template

from agent_runtime import AgentContext, AgentFactory, Budget, MemoryLedger

WORDS = 400


class EndlessProvider:
    """Streams a word every 5 ms until its client hangs up.

    `sent` counts them, `hung_up` says that it did.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.hung_up = asyncio.Event()
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"}
        try:
            while self.sent < WORDS:
                choice = {
                    "index": 0,
                    "delta": {"content": f"word{self.sent} "},
                    "finish_reason": None,
                }
                writer.write(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode())
                await writer.drain()
                self.sent += 1
                await asyncio.sleep(0.005)
        except ConnectionError:
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def endless_provider() -> AsyncIterator[EndlessProvider]:
    served = EndlessProvider()
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()


async def test_the_provider_is_stopped_and_what_was_said_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")
    ledger = MemoryLedger()
    before = asyncio.all_tasks()
    async with (
        endless_provider() as served,
        AgentFactory(ledger=ledger, budgets=[Budget("tenant", usd=1, per="day")]) as factory,
    ):
        model = {
            "id": "openai:gpt-5-mini",
            "base_url": served.url,
            "api_key": {"from_env": "DUMMY_KEY"},
            "params": {"max_tokens": 2000},
        }
        agent = factory.create_agent(template(model=model))
        texts = 0
        async with agent.execute_stream(AgentContext("hello there, write much")) as stream:
            async for _ in stream:
                texts += 1
                if texts == 20:
                    break
        usage = stream.context.usage
        async with asyncio.timeout(5):
            await served.hung_up.wait()
        assert served.sent < WORDS / 2
        assert usage.estimated
        assert 15 <= usage.output_tokens <= WORDS
        assert usage.input_tokens > 0
        assert usage.cost_usd is not None
        assert usage.cost_usd > 0
        [balance] = ledger.balances().run().values()
        assert balance.spent_micro_usd > 0
        assert balance.held_micro_usd == 0
        assert not asyncio.all_tasks() - before
