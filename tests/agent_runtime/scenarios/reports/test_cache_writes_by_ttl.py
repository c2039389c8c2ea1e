"""langsmith-sdk PR #2519, litellm #15055, langfuse #12306: Anthropic's cache writes by their time to live."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.support.providers import provider, template

from agent_runtime import AgentFactory, MemoryLedger

WRITES = {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000}
USAGE = {
    "input_tokens": 5, "output_tokens": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 3000,
    "cache_creation": WRITES,
}  # fmt: skip
# claude-haiku-4-5: 1 in, 0.10 read, 1.25 and 2 written, 5 out
TRUE = (5 * Decimal(1) + 1000 * Decimal("0.1") + 2000 * Decimal("1.25") + 1000 * Decimal(2) + 100 * Decimal(5)) / 10**6


def whole(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "hi"}], "usage": usage,
    }  # fmt: skip


def events(usage: dict[str, Any]) -> list[Any]:
    def event(kind: str, **more: Any) -> str:
        import json

        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

    start = {**whole(usage), "content": [], "stop_reason": None}
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage),
        event("message_stop"),
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_cost_and_the_usage_have_them(streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")
    ledger = MemoryLedger()
    answer = events(USAGE) if streamed else whole(USAGE)
    async with provider(lambda r, p: answer) as (url, _), AgentFactory(ledger=ledger) as factory:
        model = {"id": "anthropic:claude-haiku-4-5", "base_url": url, "api_key": {"from_env": "DUMMY_KEY"}}
        agent = factory.create_agent(template(model=model))
        if streamed:
            async with agent.execute_stream("hi") as stream:
                async for _ in stream:
                    pass
            result = stream.result
        else:
            result = await agent.execute("hi")
    usage = result.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (4005, 1000, 3000)
    assert (result.cost_usd, usage.cost_kind) == (TRUE, "exact")
    [(_, spend)] = ledger.call("report", 0, 1e12)
    assert spend.cache_write_tokens == 3000
