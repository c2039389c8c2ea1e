"""Count tokens and money of one call."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

TOKEN_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
)
"""The counts of a model call, in usage, events and reports."""


@dataclass(slots=True)
class Usage:
    """Sum the tokens and counts of every model call of one call, nested agents included.

    `input_tokens` includes cached ones, `output_tokens` reasoning ones, as in LangChain's
    `UsageMetadata`. `estimated`: a model call ended without the provider's counts (aborted, or none
    sent); its tokens are our count. `cost_usd` is None as soon as the price of one billed call is
    unknown.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    estimated: bool = False
    cost_usd: Decimal | None = Decimal(0)
    sync_threads_left: int = 0
    """Threads of sync tools that were still running when the call ended: they cannot be stopped."""
    price_table: str = ""
    """Which prices the cost was made with."""

    @property
    def cost_kind(self) -> Literal["exact", "estimated", "unknown"]:
        """Return `exact`, `estimated` or `unknown`.

        `exact`: the provider's counts and a known price; `estimated`: our count; `unknown`: no
        price.
        """
        return "unknown" if self.cost_usd is None else "estimated" if self.estimated else "exact"

    @property
    def total_tokens(self) -> int:
        """Return input plus output tokens."""
        return self.input_tokens + self.output_tokens

    def add_cost(self, cost_usd: Decimal | None) -> None:
        """Add a model call's cost in USD; None (no known price) makes the sum unknown."""
        self.cost_usd = (
            None if cost_usd is None or self.cost_usd is None else self.cost_usd + cost_usd
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and `total_tokens`, JSON-ready; `cost_usd` is decimal text or None."""
        return {  # written out: at each call, and asdict takes thirty times as long
            "total_tokens": self.input_tokens + self.output_tokens,
            "cost_kind": self.cost_kind,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "audio_tokens": self.audio_tokens,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "estimated": self.estimated,
            "cost_usd": None if self.cost_usd is None else format(self.cost_usd, "f"),
            "sync_threads_left": self.sync_threads_left,
            "price_table": self.price_table,
        }
