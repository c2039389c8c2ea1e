"""Numbers under labels.

Few instructions to change one, a bound on how many there are, Prometheus' types at a scrape.

The client library's own counters take a lock for each change and keep a second series for each;
here one lock serves all changes of an event.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent_runtime.secrets.redaction import SECRETS

OTHER = "other"
MAX_LABEL = 128
"""Characters of a label's value."""


class Series:
    """One metric. When its share of the series is used up, new label values count as `other`.

    Args:
        kind: `counter`, `gauge`, or `histogram` with its upper `bounds`.
        max_series: how many lines it may have at a scrape.
    """

    def __init__(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        text: str,
        labels: Sequence[str],
        max_series: int,
        bounds: Sequence[float] = (),
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.labels = labels
        self.bounds = list(bounds)
        lines = (
            len(bounds) + 3 if bounds else 1
        )  # one for each bucket, the infinite one, count and sum
        self._max = max(1, max_series // lines)
        self._known: dict[tuple[object, ...], list[float]] = {}
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def cell(self, *values: object) -> list[float]:
        """The numbers under these label values: the value.

        Or the sum, then a count for each bucket.
        """
        found = self._known.get(values)
        return self._new(values) if found is None else found

    def observe(self, seconds: float, *values: object) -> None:
        """Count one observation of a histogram."""
        cell = self._known.get(values)
        if cell is None:
            cell = self._new(values)
        cell[0] += seconds
        cell[bisect_left(self.bounds, seconds) + 1] += 1

    def _new(self, values: tuple[object, ...]) -> list[float]:
        shown = tuple(SECRETS.text(str(value))[:MAX_LABEL] for value in values)
        if (
            len(self._cells) >= self._max - 1 and shown not in self._cells
        ):  # `other` has the last place
            return self._cells.setdefault((OTHER,) * len(values), self._empty())
        cell = self._cells.setdefault(shown, self._empty())
        if (
            len(self._known) < 2 * self._max
        ):  # values that look alike share a cell, and do not fill the memory
            self._known[values] = cell
        return cell

    def _empty(self) -> list[float]:
        return [0.0] * (len(self.bounds) + 2 if self.bounds else 1)

    def family(self) -> Metric:
        """The metric as the client library shows it."""
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.text, labels=self.labels)
            names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
            for labels, (total, *counts) in list(self._cells.items()):
                histogram.add_metric(
                    labels, list(zip(names, accumulate(counts), strict=True)), total
                )
            return histogram
        made = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = made(self.name, self.text, labels=self.labels)
        for labels, (value,) in list(self._cells.items()):
            family.add_metric(labels, value)
        return family


class SeriesCollector(Collector):
    """Shows all series at a scrape; `lock` is held for it, as for every change.

    `refresh` is called before.
    """

    def __init__(self, lock: threading.Lock, refresh: Callable[[], None]) -> None:
        self._lock = lock
        self._refresh = refresh
        self.series = list[Series]()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand at one moment."""
        with self._lock:
            self._refresh()
            families = [series.family() for series in self.series]
        yield from families
