"""What model calls cost: the `genai-prices` table, and prices of one's own beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

FREE_PROVIDERS = frozenset({"offline", "scripted"})
"""Providers that run in this process and bill nobody."""
MILLION = 1_000_000
PICO = 10**12
"""Pico-USD in a USD: a worst case is computed before each call, and decimals are slow."""
MAX_USD_PER_MILLION = 10_000
"""No price is higher: a figure above it was meant for another unit."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD for one token of each kind; cached, audio and reasoning tokens are parts of the input and the output."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    input_audio: Decimal
    output_audio: Decimal
    reasoning: Decimal
    table: Any = None
    """Prices that depend on how much or when: asked for each call. The rates above are then the highest."""
    highest_pico_usd: tuple[int, int] = field(init=False, default=(0, 0))
    """The most that a token of input, and one of output, can cost, in whole pico-USD, rounded up."""

    def cost_usd(self, usage: UsageMetadata) -> Decimal | None:
        """The price of one model call in USD; None when its figures contradict each other."""
        counts = _counts(usage)
        if self.table is not None:
            return self.table(counts)  # type: ignore[no-any-return]
        parts_in = counts["cache_read_tokens"], counts["cache_write_tokens"], counts["input_audio_tokens"]
        parts_out = counts["output_audio_tokens"], counts["output_reasoning_tokens"]
        plain_in, plain_out = counts["input_tokens"] - sum(parts_in), counts["output_tokens"] - sum(parts_out)
        long_writes = counts["cache_write_1h_tokens"]
        if min(*counts.values(), plain_in, plain_out, parts_in[1] - long_writes) < 0:
            return None
        charged = (
            (plain_in, self.input),
            (parts_in[0], self.cache_read),
            (parts_in[1] - long_writes, self.cache_write),
            (long_writes, self.cache_write_1h),
            (parts_in[2], self.input_audio),
            (plain_out, self.output),
            (parts_out[0], self.output_audio),
            (parts_out[1], self.reasoning),
        )
        return sum((count * rate for count, rate in charged if count), Decimal(0))

    def __post_init__(self) -> None:
        highest_input = max(self.input, self.cache_read, self.cache_write, self.cache_write_1h, self.input_audio)
        highest_output = max(self.output, self.output_audio, self.reasoning)
        rates = tuple(int((rate * PICO).to_integral_value(ROUND_CEILING)) for rate in (highest_input, highest_output))
        object.__setattr__(self, "highest_pico_usd", rates)


FREE = Price(*[Decimal(0)] * 8)


def _counts(usage: UsageMetadata) -> dict[str, int]:
    """LangChain's figures under the price table's names."""
    inputs: Mapping[str, Any] = usage.get("input_token_details") or {}
    outputs: Mapping[str, Any] = usage.get("output_token_details") or {}
    long_writes = inputs.get("ephemeral_1h_input_tokens") or 0
    short_writes = inputs.get("ephemeral_5m_input_tokens") or 0
    return {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": inputs.get("cache_read") or 0,
        "cache_write_tokens": (inputs.get("cache_creation") or 0) or long_writes + short_writes,
        "cache_write_1h_tokens": long_writes,
        "input_audio_tokens": inputs.get("audio") or 0,
        "output_audio_tokens": outputs.get("audio") or 0,
        "output_reasoning_tokens": outputs.get("reasoning") or 0,
    }


class PriceTable:
    """Prices by provider and model, as LangChain names them (`openai`, `gpt-5-mini`).

    Args:
        own: prices of one's own, which go before the table's: `{"openai:gpt-5-mini": {"input": 0.25, "output": 2}}`,
            in USD for a million tokens; further kinds are cache_read, cache_write, cache_write_1h, input_audio,
            output_audio and reasoning. `"free"` instead of a map: costs nothing. `provider:*` is any model.

    `version` says which prices these are. Raises ConfigurationError for a price that cannot be one.
    """

    def __init__(self, own: Mapping[str, Any] | None = None) -> None:
        self._own = {name: _own_price(name, given) for name, given in (own or {}).items()}
        digest = hashlib.sha256(repr(sorted((own or {}).items())).encode()).hexdigest()[:8]
        self.version = f"genai-prices {version('genai-prices')}" + (f" + own {digest}" if own else "")

    @classmethod
    def from_file(cls, path: str | Path) -> PriceTable:
        """The table with the prices in a YAML file; raises ConfigurationError, FileNotFoundError."""
        import yaml

        found = yaml.safe_load(Path(path).read_text())
        if not isinstance(found, dict):
            raise ConfigurationError(f"'{path}' is no map of prices by provider:model")
        return cls(found)

    def price(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None when nobody knows it."""
        if self._own and (found := self._own.get(f"{provider}:{model}") or self._own.get(f"{provider}:*")):
            return found
        return FREE if provider in FREE_PROVIDERS else _table_price(provider, model)


PRICES = PriceTable()
"""Without prices of one's own."""


def preload_price(provider: str, model: str) -> None:
    """Look a model's price up ahead of its first call: loading the table takes most of a second."""
    PRICES.price(provider, model)


def _own_price(name: str, given: Any) -> Price:
    if given == "free":
        return FREE
    kinds = set(Price.__slots__) - {"table", "highest_pico_usd"}
    if not isinstance(given, Mapping) or not {"input", "output"} <= set(given) <= kinds:
        raise ConfigurationError(f"the price of '{name}' is 'free', or a map with input and output, of {sorted(kinds)}")
    rates: dict[str, Decimal] = {}
    for kind, value in given.items():
        try:
            usd = Decimal("nan" if isinstance(value, bool) else str(value))
        except InvalidOperation:
            usd = Decimal("nan")
        if not usd.is_finite() or not 0 < usd <= MAX_USD_PER_MILLION:
            raise ConfigurationError(
                f"the {kind} price of '{name}' is USD for a million tokens, above 0 and up to {MAX_USD_PER_MILLION}: "
                f"not {value!r}"
            )
        rates[kind] = usd / MILLION
    defaults = {kind: rates["output" if kind in ("reasoning", "output_audio") else "input"] for kind in kinds}
    return Price(**{**defaults, **rates})


@lru_cache(maxsize=512)
def _table_price(provider: str, model: str) -> Price | None:
    # Asking the table takes 130 us and pricing with it 170: where rates are constant, a call pays neither.
    from genai_prices import data_snapshot

    snapshot = data_snapshot.get_snapshot()
    try:
        # Only where nobody said who bills is the model's name enough: a local one has no provider's price.
        found_provider, found = snapshot.find_provider_model(
            model, None, provider if provider != "unknown" else None, None
        )
    except LookupError:
        return None
    return _rates(
        lambda counts: _table_cost(found, found_provider, counts), constant=not isinstance(found.prices, list)
    )


def _table_cost(model: Any, provider: Any, counts: Mapping[str, int]) -> Decimal | None:
    from genai_prices import Usage

    try:
        usage = Usage(
            **{name: count for name, count in counts.items() if count or name in ("input_tokens", "output_tokens")}
        )
        total: Decimal = model.calc_price(usage, provider).total_price
    except (ValueError, LookupError):  # figures that contradict each other: the cost is unknown, the answer is not lost
        return None
    return total


def _rates(table: Any, *, constant: bool) -> Price | None:
    def rate(count: int, **parts: str) -> Decimal | None:
        """USD for a token of one kind, bought by the `count`."""
        counts = {"input_tokens": 0, "output_tokens": 0, **dict.fromkeys(parts.values(), count)}
        cost: Decimal | None = table(counts)
        return None if cost is None else cost / count

    kinds: dict[str, dict[str, str]] = {
        "input": {"a": "input_tokens"},
        "output": {"a": "output_tokens"},
        "cache_read": {"a": "input_tokens", "b": "cache_read_tokens"},
        "cache_write": {"a": "input_tokens", "b": "cache_write_tokens"},
        "cache_write_1h": {"a": "input_tokens", "b": "cache_write_tokens", "c": "cache_write_1h_tokens"},
        "input_audio": {"a": "input_tokens", "b": "input_audio_tokens"},
        "output_audio": {"a": "output_tokens", "b": "output_audio_tokens"},
        "reasoning": {"a": "output_tokens", "b": "output_reasoning_tokens"},
    }
    few = {kind: rate(1_000, **parts) for kind, parts in kinds.items()}
    many = {kind: rate(10 * MILLION, **parts) for kind, parts in kinds.items()}
    highest = {kind: max(value, many[kind] or value) for kind, value in few.items() if value is not None}
    if "input" not in highest or "output" not in highest:
        return None
    # The output's price may depend on how long the input is.
    long_input, both = {"input_tokens": 10 * MILLION, "output_tokens": 0}, {"output_tokens": 10 * MILLION}
    of_input, of_both = table(long_input), table({**long_input, **both})
    if of_input is not None and of_both is not None:
        highest["output"] = max(highest["output"], (of_both - of_input) / (10 * MILLION))
    for kind in kinds:
        highest.setdefault(kind, highest["output" if kind in ("reasoning", "output_audio") else "input"])
    return Price(**highest, table=None if constant and few == many else table)
