"""Forecast the cost of a batch from a sample of its tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from statistics import NormalDist, fmean, stdev
from typing import Any


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast a batch of `tasks` from `sample` of them.

    Cost in USD with an interval, tokens, time.

    The total lies between `low_usd` and `high_usd` with `confidence`, if the other tasks are like
    the sample. Costs are None when a price is unknown. `unsuccessful` tasks of the sample failed.
    """

    tasks: int
    sample: int
    confidence: float
    cost_usd: float | None
    low_usd: float | None
    high_usd: float | None
    tokens: int
    seconds: float
    unsuccessful: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return asdict(self)


def make_forecast(
    costs: Sequence[Decimal | None],
    tokens: Sequence[int],
    seconds: Sequence[float],
    *,
    tasks: int,
    concurrent: int,
    confidence: float = 0.95,
    unsuccessful: int = 0,
) -> Forecast:
    """Return the forecast for `tasks` from the measured costs of a sample.

    The interval is Student's prediction interval for the sum of the others: their own spread, and
    that of the measured mean. A sample of one has no spread: the interval is twice its size to
    either side.
    """
    sample = len(costs)
    remaining_tasks = max(0, tasks - sample)
    low_usd = high_usd = estimate_usd = None
    if all(cost is not None for cost in costs) and sample:
        costs_usd = [float(cost) for cost in costs if cost is not None]
        spent_usd = sum(costs_usd)
        mean_usd = fmean(costs_usd)
        estimate_usd = spent_usd + remaining_tasks * mean_usd
        if sample == 1:
            margin_usd = remaining_tasks * mean_usd
        else:
            spread = math.sqrt(
                remaining_tasks + remaining_tasks * remaining_tasks / sample
            ) * stdev(costs_usd)
            margin_usd = student_t_quantile(confidence, sample - 1) * spread
        low_usd = max(spent_usd, estimate_usd - margin_usd)
        high_usd = estimate_usd + margin_usd
    total_s = fmean(seconds) * tasks / max(1, min(concurrent, tasks)) if seconds else 0.0
    total_tokens = round(fmean(tokens) * tasks) if tokens else 0
    return Forecast(
        tasks,
        sample,
        confidence,
        estimate_usd,
        low_usd,
        high_usd,
        total_tokens,
        total_s,
        unsuccessful,
    )


def student_t_quantile(confidence: float, degrees: int) -> float:
    """Return Student's t for a two-sided interval.

    It is exact for one and two degrees of freedom, else Hill's approximation (G. W. Hill, Algorithm
    396, CACM 13 (1970) 619), accurate to 1e-4 there.
    """
    p = 1 - confidence
    if degrees == 1:
        return 1 / math.tan(p * math.pi / 2)
    if degrees == 2:
        return math.sqrt(2 / (p * (2 - p)) - 2)
    a = 1 / (degrees - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * degrees
    y = (d * p) ** (2 / degrees)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(p / 2)
        y = x * x
        if degrees < 5:
            c += 0.3 * (degrees - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        inner = ((degrees + 6) / (degrees * y) - 0.089 * d - 0.822) * (degrees + 2) * 3
        y = ((1 / inner + 0.5 / (degrees + 4)) * y - 1) * (degrees + 1) / (degrees + 2) + 1 / y
    return math.sqrt(degrees * y)


def pilot_positions(tasks: int, share: float, at_least: int) -> list[int]:
    """Return the positions (from 1) of the sampled tasks.

    They are evenly spread, so that a file sorted by size does not bias the sample.
    """
    count = min(tasks, max(at_least, math.ceil(tasks * share)))
    return sorted({1 + int((n + 0.5) * tasks / count) for n in range(count)}) if count else []
