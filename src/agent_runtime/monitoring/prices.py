"""What a model call costs, from the `genai-prices` table."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

FREE_PROVIDERS = frozenset({"offline", "scripted"})
"""Providers that run in this process and bill nobody."""


@lru_cache(maxsize=512)
def _price_entry(provider: str, model: str) -> tuple[Any, Any] | None:
    # The look-up scans the table (130 us); a call must not pay that each time.
    from genai_prices import data_snapshot

    snapshot = data_snapshot.get_snapshot()
    # Only where nobody said who bills is the model's name enough: a local one has no provider's price.
    for provider_id in (provider,) if provider != "unknown" else (None,):
        try:
            return snapshot.find_provider_model(model, None, provider_id, None)
        except LookupError:
            continue
    return None


def preload_price(provider: str, model: str) -> None:
    """Look a model's price up ahead of its first call: loading the table takes most of a second."""
    if provider not in FREE_PROVIDERS:
        _price_entry(provider, model)


def price_usd(provider: str, model: str, usage: UsageMetadata) -> Decimal | None:
    """Price one model call in USD, or None when the table does not know the model.

    `provider` and `model` are LangChain's names (`openai`, `gpt-5-mini`); `usage` counts cached tokens
    within its input and reasoning tokens within its output, as LangChain does.
    """
    if provider in FREE_PROVIDERS:
        return Decimal(0)
    entry = _price_entry(provider, model)
    if entry is None:
        return None
    from genai_prices import Usage

    cached = usage.get("input_token_details") or {}
    billed = Usage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cache_read_tokens=cached.get("cache_read") or None,
        cache_write_tokens=cached.get("cache_creation") or None,
    )
    found_provider, found_model = entry
    try:
        total: Decimal = found_model.calc_price(billed, found_provider).total_price
    except (ValueError, LookupError):  # figures that contradict each other: the cost is unknown, the answer is not lost
        return None
    return total
