"""Costs against examples worked by hand from the providers' price pages (USD per million
tokens)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from tests.support.calls import run_call

from agent_runtime import (
    AgentExecutor,
    Budget,
    ConfigurationError,
    CostTrackingMiddleware,
    MemoryLedger,
    PriceTable,
    gated,
)
from agent_runtime.budgets.prices import PRICES
from agent_runtime.budgets.table_prices import PICO
from agent_runtime.budgets.token_counts import TokenCounts
from agent_runtime.testing import ScriptedChatModel, say


def usage(inputs: int, outputs: int, *, read: int = 0, write: int = 0, reasoning: int = 0) -> Any:
    made: dict[str, Any] = {
        "input_tokens": inputs,
        "output_tokens": outputs,
        "total_tokens": inputs + outputs,
    }
    made["input_token_details"] = {"cache_read": read, "cache_creation": write}
    made["output_token_details"] = {"reasoning": reasoning}
    return made


# Anthropic, Sonnet 4.5: 3 in, 3.75 cache write, 0.30 cache read, 15 out. Opus 4.5: 5, 6.25, 0.50,
# 25. OpenAI, GPT-5: 1.25 in, 0.125 cached, 10 out with the reasoning in it. GPT-5 mini: 0.25,
# 0.025, 2. Google, Gemini 2.5 Pro: 1.25 and 10 up to 200,000 tokens of input, 2.50 and 15 above.
# 2.5 Flash: 0.30 and 2.50.
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
def test_a_call_costs_what_the_price_page_says(
    provider: str, model: str, used: Any, usd: str
) -> None:
    price = PRICES.price(provider, model)
    assert price is not None
    assert price.cost_usd(used) == Decimal(usd)


# What the table knows beside the model: USD of a call of 1,000 tokens of input and 100 of output.
@pytest.mark.parametrize(
    ("provider", "model", "conditions", "usd"),
    [
        ("perplexity", "sonar", (), "0.0131"),  # 1 and 1, and 12 for a thousand requests
        ("openai", "gpt-5-mini", (("processing", "batch"),), "0.000225"),
        ("openai", "gpt-5-mini", (("service_tier", "flex"),), "0.000225"),
        ("openai", "gpt-5-mini", (("service_tier", "priority"),), "0.00081"),
        ("google_genai", "models/gemini-2.5-flash", (), "0.00055"),
        ("google_vertexai", "publishers/google/models/gemini-2.5-flash", (), "0.00055"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", (), "0.00042"),
        ("amazon_bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", (), "0.00165"),
        ("amazon_bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", (), "0.0015"),
        ("openrouter", "some/model:free", (), "0"),
        ("azure_openai", "gpt-5-mini", (), "0.00045"),
    ],
)
def test_a_price_is_asked_with_all_that_the_table_knows(
    provider: str, model: str, conditions: Any, usd: str
) -> None:
    price = PRICES.price(provider, model, conditions)
    assert price is not None
    assert (price.cost_usd(usage(1_000, 100)), price.is_exact) == (Decimal(usd), True)


def test_the_address_says_who_bills() -> None:
    deepseek = PRICES.price("deepseek", "deepseek-chat", at=1_790_000_000)
    address = "https://api.deepseek.com/v1"
    assert PRICES.price("openai", "deepseek-chat", base_url=address, at=1_790_000_000) == deepseek
    assert PRICES.price("openai", "deepseek-chat", base_url="http://127.0.0.1:8000/v1") is None
    assert (
        PRICES.price(
            "openai", "deepseek-chat", base_url="HTTPS://API.DeepSeek.com/v1", at=1_790_000_000
        )
        == deepseek
    )
    assert (
        PRICES.price("openai", "deepseek-chat", base_url="https://api.deepseek.com.example/v1")
        is None
    )
    assert PRICES.price("unknown", "gpt-5-mini") is not None
    assert PRICES.price("unknown", "gpt-5-mini", base_url="http://127.0.0.1:8000/v1") is None
    assert PRICES.price("ollama", "gpt-oss:20b", base_url="http://127.0.0.1:11434") is None


def test_a_tier_without_a_price_of_its_own_is_not_called_exact() -> None:
    price = PRICES.price("openai", "gpt-4", (("service_tier", "priority"),))
    assert price is not None
    assert not price.is_exact


def test_a_fee_of_one_s_own_is_part_of_the_cost_and_of_the_worst_case() -> None:
    table = PriceTable({"local:m": {"input": 1, "output": 2, "request": 0.01}})
    price = table.price("local", "m")
    highest = table.highest("local", "m")
    assert price is not None
    assert highest is not None
    assert price.cost_usd(usage(1_000_000, 0)) == Decimal("1.01")
    assert highest.request == 10**10
    with pytest.raises(ConfigurationError):
        PriceTable({"local:m": {"input": 1, "output": 2, "request": 1000}})


def test_cache_reads_and_writes_of_one_s_own_may_be_free() -> None:
    table = PriceTable({"local:m": {"input": 1, "output": 2, "cache_read": 0, "cache_write": 0}})
    price = table.price("local", "m")
    assert price is not None
    assert price.cost_usd(usage(1_000_000, 0, read=500_000, write=400_000)) == Decimal("0.1")
    with pytest.raises(ConfigurationError):
        PriceTable({"local:m": {"input": 0, "output": 2}})


KNOWN = [
    (p.id, m.id)
    for p in get_snapshot().providers
    for m in p.models
    if p.id
    in ("openai", "anthropic", "google", "deepseek", "perplexity", "mistral", "groq", "x-ai")
]
counts = st.integers(0, 400_000)


@settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(KNOWN),
    at=st.integers(1_790_000_000, 1_800_000_000),
    later=st.integers(0, 900),
    parts=st.tuples(counts, counts, counts, counts, counts, counts),
    tier=st.sampled_from(["", "priority", "flex", "fast", "default"]),
    asked=st.sampled_from(["", "auto", "same"]),
)
def test_no_call_costs_more_than_the_worst_case_that_was_reserved(
    model: tuple[str, str], at: int, later: int, parts: Any, tier: str, asked: str
) -> None:
    plain, read, write, long_write, outputs, reasoning = parts
    inputs = plain + read + write + long_write
    used = TokenCounts(
        inputs, outputs + reasoning, read, write + long_write, long_write, reasoning=reasoning
    )
    table = PriceTable(clock=lambda: float(at))
    requested = {"": (), "auto": (("service_tier", "auto"),), "same": (("service_tier", tier),)}[
        asked
    ]
    highest = table.highest(*model, requested if tier else (), 900.0)
    if highest is None:
        return
    price = table.price(*model, (("service_tier", tier),) if tier else (), float(at + later))
    assert price is not None
    cost = price.cost_usd(used)
    assert cost is not None
    input_rate, output_rate = highest.rates_for(inputs)
    assert cost * PICO <= input_rate * inputs + output_rate * used.output + highest.request


class Priced(ScriptedChatModel):
    """Says that it is a real model, so that it has a real price."""

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {
            "ls_provider": "anthropic",
            "ls_model_name": "claude-sonnet-4-5",
            "ls_model_type": "chat",
        }


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "used", [usage(10_000, 500, read=8_000, write=1_000), usage(2_000, 700, reasoning=650)]
)
async def test_a_cached_prompt_and_a_reasoning_model_settle_to_the_micro_dollar(
    used: Any, streaming: bool
) -> None:
    ledger = MemoryLedger()
    layer = CostTrackingMiddleware(ledger, [Budget("global", usd=10)])
    model = gated(Priced(script=[say("ok", usage=used)]))
    agent = AgentExecutor(create_agent(model, []), pipeline=[layer], gated=True)
    result = await run_call(agent, "x", streaming=streaming)
    price = PRICES.price("anthropic", "claude-sonnet-4-5")
    assert price is not None
    assert result.cost_usd is not None
    assert result.cost_usd == price.cost_usd(used)
    assert result.usage.cost_kind == "exact"
    (balance,) = ledger.balances().run().values()
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (
        int(result.cost_usd * 1_000_000),
        0,
    )
    ((_, spend),) = ledger.report(0, 1e12).run()
    details = used["input_token_details"]
    assert (spend.cache_read_tokens, spend.cache_write_tokens) == (
        details["cache_read"],
        details["cache_creation"],
    )
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
