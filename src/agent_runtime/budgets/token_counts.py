"""Token counts of one model call, from LangChain's usage metadata to the price table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_PLAUSIBLE_TOKENS = 50_000_000
"""More than any context window: a count above it is no count."""
TIER_PREFIXES = ("priority", "flex")
"""The prefix of langchain-openai's details for a service tier that is not the default."""


class TokenCounts(NamedTuple):
    """Count the tokens of one call.

    `input` includes all other kinds of input, `output` those of output. `cache_write_1h` is the
    part of `cache_write` that is cached for an hour. `service_tier` comes from the names of the
    details, empty for the default.
    """

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    input_image: int = 0
    output_audio: int = 0
    output_image: int = 0
    reasoning: int = 0
    service_tier: str = ""

    def to_price_table_counts(self) -> dict[str, int]:
        """Return the counts under the price table's names, without those that are 0."""
        counts = {name: count for name, count in zip(_TABLE_NAMES, self[:-1], strict=True) if count}
        return {"input_tokens": self.input, "output_tokens": self.output, **counts}


_TABLE_NAMES = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "output_reasoning_tokens",
)


def token_counts(usage: Mapping[str, Any]) -> TokenCounts | None:
    """Read LangChain's `UsageMetadata`; None for figures that are no counts.

    Text, fractions, negative or huge ones.
    """
    inputs: Mapping[str, Any] = usage.get("input_token_details") or {}
    outputs: Mapping[str, Any] = usage.get("output_token_details") or {}
    if not inputs and not outputs:  # a third of the time of the rest, at each model call
        input_tokens: Any = usage.get("input_tokens")
        output_tokens: Any = usage.get("output_tokens")
        if not (_is_count(input_tokens) and _is_count(output_tokens)):
            return None
        return TokenCounts(input_tokens, output_tokens)
    tier = next((tier for tier in TIER_PREFIXES if tier in inputs or tier in outputs), "")
    long_writes = inputs.get("ephemeral_1h_input_tokens") or 0
    short_writes = inputs.get("ephemeral_5m_input_tokens") or 0
    writes = _detail(inputs, "cache_creation", tier)
    counts = (
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        _detail(inputs, "cache_read", tier),
        writes,
        long_writes,
        inputs.get("audio") or 0,
        inputs.get("image") or 0,
        outputs.get("audio") or 0,
        outputs.get("image") or 0,
        _detail(outputs, "reasoning", tier),
        short_writes,
    )
    for count in counts:
        if not _is_count(count):
            return None
    # langchain-anthropic counts writes with a time to live under separate names, and reports 0 for
    # their sum.
    return TokenCounts(*counts[:3], writes or long_writes + short_writes, *counts[4:10], tier)  # type: ignore[arg-type]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_PLAUSIBLE_TOKENS


def _detail(details: Mapping[str, Any], name: str, tier: str) -> Any:
    plain = details.get(name) or 0
    return plain or details.get(f"{tier}_{name}") or 0 if tier else plain


def parse_text_counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage with figures that were sent as text as numbers, for an estimate."""
    return {
        name: int(value)
        if isinstance(value, str) and value.isdecimal() and len(value) < 10
        else value
        for name, value in usage.items()
        if not isinstance(value, Mapping)
    }


def is_sent_as_text(usage: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Return whether a provider sent its counts as text, which LangChain converts.

    `answer` is the raw metadata of the answer. A stream has none: there the sum of two texts
    reveals it.
    """
    raw = answer.get("token_usage") or answer.get("usage")
    if isinstance(raw, Mapping) and any(
        isinstance(value, str) for name, value in raw.items() if "token" in name
    ):
        return True
    inputs: Any = usage.get("input_tokens")
    outputs: Any = usage.get("output_tokens")
    total = usage.get("total_tokens")
    if total == (inputs or 0) + (outputs or 0):
        return False
    return str(total) == f"{inputs}{outputs}" and bool(inputs or outputs)
