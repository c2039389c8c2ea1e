"""langsmith-sdk PR #2519, litellm #15055, langfuse #12306.

Anthropic's cache writes by their time to live.
"""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.support.calls import run_call
from tests.support.provider_answers import anthropic_answer, anthropic_stream
from tests.support.providers import provider, template

from agent_runtime import AgentFactory, MemoryLedger

WRITES = {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000}
USAGE = {
    "input_tokens": 5, "output_tokens": 100, "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 3000,
    "cache_creation": WRITES,
}  # fmt: skip
# claude-haiku-4-5: 1 in, 0.10 read, 1.25 and 2 written, 5 out
TRUE = (
    5 * Decimal(1)
    + 1000 * Decimal("0.1")
    + 2000 * Decimal("1.25")
    + 1000 * Decimal(2)
    + 100 * Decimal(5)
) / 10**6


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_cost_and_the_usage_have_them(
    streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")
    ledger = MemoryLedger()
    make = anthropic_stream if streamed else anthropic_answer
    async with (
        provider(lambda r, p: make("claude-haiku-4-5", USAGE)) as (url, _),
        AgentFactory(ledger=ledger) as factory,
    ):
        model = {
            "id": "anthropic:claude-haiku-4-5",
            "base_url": url,
            "api_key": {"from_env": "DUMMY_KEY"},
        }
        agent = factory.create_agent(template(model=model))
        result = await run_call(agent, "hi", streaming=streamed)
    usage = result.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (
        4005,
        1000,
        3000,
    )
    assert (result.cost_usd, usage.cost_kind) == (TRUE, "exact")
    [(_, spend)] = ledger.report(0, 1e12).run()
    assert spend.cache_write_tokens == 3000
