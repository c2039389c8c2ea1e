"""Prices of the `genai-prices` table.

They depend on the day, the hour, the service tier, the length of the input.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from agent_runtime.budgets.model_names import names_of, provider_of

Conditions: TypeAlias = tuple[tuple[str, str], ...]
"""Conditions of a price beside the time, in the table's terms: `(("service_tier", "priority"),)`.
"""
PICO = 10**12
"""Pico-USD in a USD: a worst case is computed before each call, and decimals are slow."""
MILLION = 1_000_000
MAX_CONDITIONS = 100
DEFAULT_TIERS = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand"})
"""Names of the service tier that the plain price is of."""


class HighestRates(NamedTuple):
    """Bound the cost of a call, in whole pico-USD per token of input, of output, and per request.

    `starts` are the lengths of input from which the rates at the same index apply, the first one 0.
    """

    starts: tuple[int, ...]
    rates: tuple[tuple[int, int], ...]
    request: int = 0

    def rates_for(self, input_tokens: int) -> tuple[int, int]:
        """Return the rates of input and output for an input of this length."""
        return self.rates[bisect.bisect_left(self.starts, input_tokens, lo=1) - 1]


def to_pico_usd(usd: Decimal) -> int:
    """Return an amount in whole pico-USD, rounded up."""
    return int((usd * PICO).to_integral_value(ROUND_CEILING))


class TableModel:
    """One model of the table: its prices by time and conditions."""

    def __init__(self, model: Any) -> None:
        self._model = model
        constraints = (
            [conditional_price.constraint for conditional_price in model.prices]
            if isinstance(model.prices, list)
            else []
        )
        self._variants = list(model.price_variants or ())
        constraints += [variant.constraint for variant in self._variants]
        self._constraints = [constraint for constraint in constraints if constraint is not None]
        self._price_cache: dict[Conditions, tuple[float, float, Any]] = {}
        self._highest_rates_cache: dict[
            tuple[Conditions, float], tuple[float, float, HighestRates]
        ] = {}

    @property
    def has_token_price(self) -> bool:
        """Return whether tokens have a price.

        Some models are billed by the second or the image alone.
        """
        prices = self._lookup_prices(0.0, ())
        return prices.output_mtok is not None

    def has_tier(self, name: str, value: str) -> bool:
        """Return whether the table has a separate price for this condition."""
        return any(variant.when.get(name) == value for variant in self._variants)

    def prices_at(self, at: float, conditions: Conditions) -> Any:
        """Return the prices (genai-prices' `ModelPrice`) at a time in Unix seconds."""
        cached = self._price_cache.get(conditions)
        if cached is None or not cached[0] <= at < cached[1]:
            moments = list(self._boundaries(at - 86_400, at + 86_400))
            starts_at = max((moment for moment in moments if moment <= at), default=at - 86_400)
            ends_at = min((moment for moment in moments if moment > at), default=at + 86_400)
            if len(self._price_cache) >= MAX_CONDITIONS:  # they are words of answers
                self._price_cache.clear()
            cached = self._price_cache[conditions] = (
                starts_at,
                ends_at,
                self._lookup_prices(at, conditions),
            )
        return cached[2]

    def highest(self, at: float, for_s: float, requested: Conditions) -> HighestRates:
        """Return the highest rates from `at` on, for `for_s` seconds, for such a request."""
        cached = self._highest_rates_cache.get((requested, for_s))
        if cached is None or not cached[0] <= at < cached[1]:
            until = at + for_s
            upcoming_moments = list(self._boundaries(at, until + 86_400))
            moments_in_range = [moment for moment in upcoming_moments if moment <= until]
            moments = [at, *moments_in_range]
            possible_prices = [
                self._lookup_prices(moment, conditions)
                for moment in moments
                for conditions in self._possible_conditions(requested)
            ]
            recheck_at = (
                min(
                    (moment for moment in upcoming_moments if moment > until),
                    default=until + 86_400,
                )
                - for_s
            )
            cached = self._highest_rates_cache[requested, for_s] = (
                at,
                min([recheck_at, *moments_in_range]),
                highest_rates(possible_prices),
            )
        return cached[2]

    def _possible_conditions(self, requested: Conditions) -> Iterator[Conditions]:
        """Yield the conditions under which a request may be billed.

        A tier that it does not name is the account's.
        """
        yield ()
        requested_by_name = dict(requested)
        for variant in self._variants:
            if all(
                self._may_apply(name, value, requested_by_name)
                for name, value in variant.when.items()
            ):
                yield tuple(sorted(variant.when.items()))

    @staticmethod
    def _may_apply(name: str, value: str, requested_by_name: Mapping[str, str]) -> bool:
        if name == "service_tier":
            return requested_by_name.get(name, "auto") in ("auto", value)
        # Fast modes and batches are requested; a route or a kind of search may be the provider's
        # choice.
        return requested_by_name.get(name) == value if name in ("speed", "processing") else True

    def _lookup_prices(self, at: float, conditions: Conditions) -> Any:
        return self._model.get_prices(datetime.fromtimestamp(at, UTC), dict(conditions) or None)

    def _boundaries(self, since: float, until: float) -> Iterator[float]:
        """Yield the moments between the two at which a price may change."""
        first = datetime.fromtimestamp(since, UTC).date() - timedelta(days=1)
        days = [first + timedelta(days=n) for n in range(int((until - since) // 86_400) + 4)]
        for constraint in self._constraints:
            if (start := getattr(constraint, "start_date", None)) is not None:
                moments = [datetime(start.year, start.month, start.day, tzinfo=UTC)]
            else:
                times = [_as_utc(constraint.start_time), _as_utc(constraint.end_time)]
                moments = [datetime.combine(day, time) for day in days for time in times]
            for moment in moments:
                if since < moment.timestamp() <= until:
                    yield moment.timestamp()


def _as_utc(time: Any) -> Any:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def highest_rates(prices: Iterable[Any]) -> HighestRates:
    """Return the highest of several `ModelPrice`s, kind by kind."""
    inputs: list[Any] = []
    outputs: list[Any] = []
    request = Decimal(0)
    for price in prices:
        for name, rate in vars(price).items():
            if rate is None or name.startswith("_"):
                continue
            if name == "requests_kcount":
                request = max(request, rate / 1000)
            elif name.endswith("_mtok"):
                (outputs if name.startswith("output") else inputs).append(rate)
    starts = sorted(
        {0, *(tier.start for rate in (*inputs, *outputs) for tier in getattr(rate, "tiers", ()))}
    )
    rates = tuple(
        (_highest_rate_pico_usd(inputs, start), _highest_rate_pico_usd(outputs, start))
        for start in starts
    )
    return HighestRates(tuple(starts), rates, to_pico_usd(request))


def _highest_rate_pico_usd(rates: list[Any], start: int) -> int:
    """Return the highest rate per token for an input above `start`, in pico-USD."""
    usd = Decimal(0)
    for rate in rates:
        base = getattr(rate, "base", rate)
        usd = max(
            usd, base, *(tier.price for tier in getattr(rate, "tiers", ()) if tier.start <= start)
        )
    return to_pico_usd(usd / MILLION)


@lru_cache(maxsize=512)
def find_table_model(provider: str, model: str, base_url: str) -> TableModel | None:
    """Find a model in the table, or None.

    Its first use loads the table, which takes most of a second.
    """
    from genai_prices import data_snapshot

    snapshot = data_snapshot.get_snapshot()
    provider_id, is_own_address = provider_of(snapshot, provider, base_url)
    for name in names_of(model, is_own_address=is_own_address):
        try:
            _, model_info = snapshot.find_provider_model(name, None, provider_id, None)
        except LookupError:
            continue
        table_entry = TableModel(model_info)
        return table_entry if table_entry.has_token_price else None
    return None
