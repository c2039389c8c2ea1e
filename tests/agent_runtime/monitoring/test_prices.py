"""Costs against examples worked by hand from the providers' price pages (USD per million tokens)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent

from agent_runtime import (
    AgentExecutor,
    Budget,
    ConfigurationError,
    CostTrackingMiddleware,
    MemoryLedger,
    PriceTable,
    gated,
)
from agent_runtime.monitoring.prices import PRICES
from agent_runtime.testing import ScriptedChatModel, say


def usage(inputs: int, outputs: int, *, read: int = 0, write: int = 0, reasoning: int = 0) -> Any:
    made: dict[str, Any] = {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs}
    made["input_token_details"] = {"cache_read": read, "cache_creation": write}
    made["output_token_details"] = {"reasoning": reasoning}
    return made


# Anthropic, Sonnet 4.5: 3 in, 3.75 cache write, 0.30 cache read, 15 out. Opus 4.5: 5, 6.25, 0.50, 25.
# OpenAI, GPT-5: 1.25 in, 0.125 cached, 10 out with the reasoning in it. GPT-5 mini: 0.25, 0.025, 2.
# Google, Gemini 2.5 Pro: 1.25 and 10 up to 200,000 tokens of input, 2.50 and 15 above. 2.5 Flash: 0.30 and 2.50.
EXAMPLES = [
    ("anthropic", "claude-sonnet-4-5", usage(2_000, 500), "0.0135"),
    ("anthropic", "claude-sonnet-4-5", usage(10_000, 500, read=8_000, write=1_000), "0.01665"),
    ("anthropic", "claude-opus-4-5", usage(1_000_000, 0, read=1_000_000), "0.5"),
    ("openai", "gpt-5", usage(1_000_000, 100_000), "2.25"),
    ("openai", "gpt-5", usage(100_000, 10_000, read=90_000, reasoning=9_000), "0.12375"),
    ("openai", "gpt-5-mini", usage(1_000, 2_000, reasoning=1_900), "0.00425"),
    ("google_genai", "gemini-2.5-pro", usage(100_000, 1_000), "0.135"),
    ("google_genai", "gemini-2.5-pro", usage(300_000, 1_000), "0.765"),
    ("google_genai", "gemini-2.5-flash", usage(10_000, 2_000, reasoning=1_500), "0.008"),
]


@pytest.mark.parametrize(("provider", "model", "used", "usd"), EXAMPLES)
def test_a_call_costs_what_the_price_page_says(provider: str, model: str, used: Any, usd: str) -> None:
    price = PRICES.price(provider, model)
    assert price is not None
    assert price.cost_usd(used) == Decimal(usd)


class Priced(ScriptedChatModel):
    """Says that it is a real model, so that it has a real price."""

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "anthropic", "ls_model_name": "claude-sonnet-4-5", "ls_model_type": "chat"}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("used", [usage(10_000, 500, read=8_000, write=1_000), usage(2_000, 700, reasoning=650)])
async def test_a_cached_prompt_and_a_reasoning_model_settle_to_the_micro_dollar(used: Any, streaming: bool) -> None:
    ledger = MemoryLedger()
    layer = CostTrackingMiddleware(ledger, [Budget("global", usd=10)])
    model = gated(Priced(script=[say("ok", usage=used)]))
    agent = AgentExecutor(create_agent(model, []), pipeline=[layer], gated=True)
    if streaming:
        async with agent.execute_stream("x") as stream:
            async for _ in stream:
                pass
        result = stream.result
    else:
        result = await agent.execute("x")
    price = PRICES.price("anthropic", "claude-sonnet-4-5")
    assert price is not None
    assert result.cost_usd is not None
    assert result.cost_usd == price.cost_usd(used)
    assert result.usage.cost_kind == "exact"
    (balance,) = ledger.call("balances").values()
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (int(result.cost_usd * 1_000_000), 0)
    ((_, spend),) = ledger.call("report", 0, 1e12)
    details = used["input_token_details"]
    assert (spend.cache_read_tokens, spend.cache_write_tokens) == (details["cache_read"], details["cache_creation"])
    assert spend.reasoning_tokens == used["output_token_details"]["reasoning"]


def test_own_prices_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("'openai:gpt-5': {input: 1, output: 2}\n'local:*': free\n")
    table = PriceTable.from_file(path)
    found = table.price("openai", "gpt-5")
    assert found is not None
    assert found.cost_usd(usage(1_000_000, 1_000_000)) == 3
    free = table.price("local", "anything")
    assert free is not None
    assert free.cost_usd(usage(10**6, 10**6)) == 0
    assert table.version != PRICES.version
    for bad in (
        "openai:gpt-5: {input: -1, output: 2}",
        "x: {input: .inf, output: 1}",
        "x: 7",
        "x: {input: 'a', output: 1}",
    ):
        path.write_text(bad + "\n")
        with pytest.raises(ConfigurationError):
            PriceTable.from_file(path)
