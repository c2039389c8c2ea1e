"""Price model calls by the `genai-prices` table and by custom prices."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.bounded_file import read_bounded
from agent_runtime.budgets.table_prices import (
    DEFAULT_TIERS,
    MILLION,
    Conditions,
    HighestRates,
    TableModel,
    find_table_model,
    to_pico_usd,
)
from agent_runtime.budgets.token_counts import TokenCounts, token_counts
from agent_runtime.errors import ConfigurationError
from agent_runtime.size_limits import size_limit

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

FREE_PROVIDERS = frozenset({"offline", "scripted"})
"""Providers that run in this process and charge nothing."""
MAX_USD_PER_MILLION = 10_000
"""No price is higher: a figure above it was meant for another unit."""
MAX_USD_PER_REQUEST = 100


@dataclass(frozen=True, slots=True)
class Price:
    """Define USD per token of each kind, and per request.

    Parts of the input and the output have rates of their own. `is_exact` is False for the nearest
    known price: the table has none for the service tier.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    input_audio: Decimal
    input_image: Decimal
    output_audio: Decimal
    output_image: Decimal
    reasoning: Decimal
    request: Decimal = Decimal(0)
    is_exact: bool = True
    table: Callable[[TokenCounts], Decimal | None] | None = field(default=None, compare=False)
    """Computes prices that depend on the quantity, for each call, instead of the rates above."""

    def cost_usd(self, usage: UsageMetadata | TokenCounts) -> Decimal | None:
        """Return the price of one model call in USD.

        None for missing or contradictory counts.
        """
        counts = usage if isinstance(usage, TokenCounts) else token_counts(usage)
        if counts is None:
            return None
        if self.table is not None:
            return self.table(counts)
        short_writes = counts.cache_write - counts.cache_write_1h
        plain_in = (
            counts.input
            - counts.cache_read
            - counts.cache_write
            - counts.input_audio
            - counts.input_image
        )
        plain_out = counts.output - counts.output_audio - counts.output_image - counts.reasoning
        if min(plain_in, plain_out, short_writes) < 0:
            return None
        charged = (
            (plain_in, self.input),
            (counts.cache_read, self.cache_read),
            (short_writes, self.cache_write),
            (counts.cache_write_1h, self.cache_write_1h),
            (counts.input_audio, self.input_audio),
            (counts.input_image, self.input_image),
            (plain_out, self.output),
            (counts.output_audio, self.output_audio),
            (counts.output_image, self.output_image),
            (counts.reasoning, self.reasoning),
        )
        return sum((count * rate for count, rate in charged if count), self.request)

    def highest(self) -> HighestRates:
        """Return the most that a call can cost at these rates."""
        inputs = (
            self.input,
            self.cache_read,
            self.cache_write,
            self.cache_write_1h,
            self.input_audio,
            self.input_image,
        )
        outputs = self.output, self.output_audio, self.output_image, self.reasoning
        return HighestRates(
            (0,),
            ((to_pico_usd(max(inputs)), to_pico_usd(max(outputs))),),
            to_pico_usd(self.request),
        )


_TOKEN_KINDS = tuple(
    name for name in Price.__slots__ if name not in ("request", "is_exact", "table")
)
_OUTPUT_KINDS = frozenset({"output", "output_audio", "output_image", "reasoning"})


def _price_from_rates(rates: Mapping[str, Decimal], **extra_fields: Any) -> Price:
    """Build a price from rates by kind; a missing kind costs as much as input or output."""
    all_rates: dict[str, Any] = {
        kind: rates.get(kind, rates["output" if kind in _OUTPUT_KINDS else "input"])
        for kind in _TOKEN_KINDS
    }
    return Price(**all_rates, **extra_fields)


FREE = _price_from_rates(dict.fromkeys(_TOKEN_KINDS, Decimal(0)))
FREE_RATES = FREE.highest()

MAX_FILE_BYTES = size_limit("prices_bytes")


class PriceTable:
    """Look up prices by provider and model, as LangChain names them (`openai`, `gpt-5-mini`).

    `version` identifies the prices. Raises ConfigurationError for an invalid price.

    Args:
        custom_prices: prices that precede the table's: `{"openai:gpt-5-mini": {"input": 0.25,
            "output": 2}}`, in USD for a million tokens; further kinds are cache_read, cache_write,
            cache_write_1h, input_audio, input_image, output_audio, output_image and reasoning, and
            request, in USD for each call. `"free"` instead of a map: costs nothing. `provider:*` is
            any model.
        clock: Unix seconds, for prices that depend on the date and the hour.
    """

    def __init__(
        self,
        custom_prices: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._custom_prices = {
            name: _parse_custom_price(name, value) for name, value in (custom_prices or {}).items()
        }
        self._custom_highest_rates = {
            name: price.highest() for name, price in self._custom_prices.items()
        }
        self._price_cache: dict[tuple[int, Conditions], tuple[Any, Price]] = {}
        digest = hashlib.sha256(repr(sorted((custom_prices or {}).items())).encode()).hexdigest()[
            :8
        ]
        self.version = f"genai-prices {version('genai-prices')}" + (
            f" + own {digest}" if custom_prices else ""
        )

    @classmethod
    def from_file(cls, path: str | Path) -> PriceTable:
        """Make a table with the prices in a YAML file.

        Raises ConfigurationError, FileNotFoundError.
        """
        import yaml

        content = yaml.safe_load(read_bounded(path, MAX_FILE_BYTES))
        if not isinstance(content, dict):
            raise ConfigurationError(f"'{path}' is not a map of prices by provider:model")
        return cls(content)

    def price(
        self,
        provider: str,
        model: str,
        conditions: Conditions = (),
        at: float | None = None,
        *,
        base_url: str = "",
    ) -> Price | None:
        """Return the price of a model, or None when it is unknown.

        Args:
            provider: LangChain's name of it, or `unknown`.
            model: the requested name, or the one in an answer.
            conditions: further conditions of the price in the answer: service tier, speed,
                processing.
            at: when the call was made, in Unix seconds; now by default.
            base_url: the server's address, where it is not the client's default.
        """
        if (custom_name := self._custom_price_name(provider, model)) is not None:
            return self._custom_prices[custom_name]
        if _is_free(provider, model):
            return FREE
        table_entry = find_table_model(provider, model, base_url)
        if table_entry is None:
            return None
        prices = table_entry.prices_at(self.clock() if at is None else at, conditions)
        cached = self._price_cache.get((id(prices), conditions))
        if cached is None or cached[0] is not prices:
            if len(self._price_cache) > MAX_CACHED:
                self._price_cache.clear()
            cached = self._price_cache[id(prices), conditions] = (
                prices,
                _exact_price(table_entry, prices, conditions),
            )
        return cached[1]

    def highest(
        self,
        provider: str,
        model: str,
        requested: Conditions = (),
        for_s: float = 0.0,
        *,
        base_url: str = "",
    ) -> HighestRates | None:
        """Return the highest rates that a call within `for_s` seconds may be billed at.

        `requested` has the conditions of the request; a service tier that it leaves out is the
        account's default, so the highest one counts.
        """
        if (custom_name := self._custom_price_name(provider, model)) is not None:
            return self._custom_highest_rates[custom_name]
        if _is_free(provider, model):
            return FREE_RATES
        table_entry = find_table_model(provider, model, base_url)
        return None if table_entry is None else table_entry.highest(self.clock(), for_s, requested)

    def _custom_price_name(self, provider: str, model: str) -> str | None:
        if not self._custom_prices:
            return None
        return next(
            (
                name
                for name in (f"{provider}:{model}", f"{provider}:*")
                if name in self._custom_prices
            ),
            None,
        )


MAX_CACHED = 1_000
PRICES = PriceTable()
"""The table without custom prices."""


def preload_price(provider: str, model: str) -> None:
    """Look a model's price up ahead of its first call: loading the table takes most of a second."""
    PRICES.price(provider, model)


def _is_free(provider: str, model: str) -> bool:
    return provider in FREE_PROVIDERS or (provider == "openrouter" and model.endswith(":free"))


def _parse_custom_price(name: str, value: Any) -> Price:
    if value == "free":
        return FREE
    kinds = {*_TOKEN_KINDS, "request"}
    if not isinstance(value, Mapping) or not {"input", "output"} <= set(value) <= kinds:
        raise ConfigurationError(
            f"the price of '{name}' is 'free', or a map with input and output, of {sorted(kinds)}"
        )
    rates: dict[str, Decimal] = {}
    for kind, amount in value.items():
        maximum, unit = (
            (MAX_USD_PER_REQUEST, "a call")
            if kind == "request"
            else (MAX_USD_PER_MILLION, "a million tokens")
        )
        try:
            usd = Decimal("nan" if isinstance(amount, bool) else str(amount))
        except InvalidOperation:
            usd = Decimal("nan")
        is_free_part = kind.startswith("cache_") and usd == 0
        if not usd.is_finite() or not (0 < usd <= maximum or is_free_part):
            raise ConfigurationError(
                f"the {kind} price of '{name}' is USD for {unit}, above 0 and up to {maximum}: not "
                f"{amount!r}"
            )
        rates[kind] = usd if kind == "request" else usd / MILLION
    return _price_from_rates(rates, request=rates.get("request", Decimal(0)))


def _exact_price(model: TableModel, prices: Any, conditions: Conditions) -> Price:
    """Build the price of calls that are billed by one `ModelPrice`; it takes 3 ms."""

    def cost(counts: TokenCounts) -> Decimal | None:
        from genai_prices import Usage

        try:
            total: Decimal = prices.calc_price(Usage(**counts.to_price_table_counts()))[
                "total_price"
            ]
        except (
            ValueError,
            LookupError,
        ):  # figures that contradict each other: the answer is not lost for that
            return None
        return total

    request = cost(TokenCounts(0, 0)) or Decimal(0)
    rates: dict[str, Decimal] = {}
    for kind in _TOKEN_KINDS:
        total_per_million = cost(_counts_of_kind(kind, MILLION))
        fallback = rates.get("output" if kind in _OUTPUT_KINDS else "input", Decimal(0))
        rates[kind] = (
            fallback if total_per_million is None else (total_per_million - request) / MILLION
        )
    depends_on_length = any(getattr(rate, "tiers", None) for rate in vars(prices).values())
    is_exact = all(
        (name == "service_tier" and value in DEFAULT_TIERS) or model.has_tier(name, value)
        for name, value in conditions
    )
    return _price_from_rates(
        rates, request=request, is_exact=is_exact, table=cost if depends_on_length else None
    )


def _counts_of_kind(kind: str, count: int) -> TokenCounts:
    """Return the counts of a call that has nothing but tokens of one kind."""
    counts: dict[str, Any] = {
        "input": 0,
        "output": 0,
        "output" if kind in _OUTPUT_KINDS else "input": count,
    }
    if kind == "cache_write_1h":
        counts["cache_write"] = count
    counts[kind] = count
    return TokenCounts(**counts)
