"""Store labelled numbers with bounded cardinality, cheap changes and Prometheus' types at a scrape.

The client library's own counters take a lock for each change and store a second series for each;
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

OTHER_LABEL = "other"
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
        self._max_cells = max(1, max_series // lines)
        self._cells_by_raw_labels: dict[tuple[object, ...], list[float]] = {}
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def cell(self, *values: object) -> list[float]:
        """Return the numbers under these label values.

        A value, or a sum and a count for each bucket.
        """
        cell = self._cells_by_raw_labels.get(values)
        return self._add_cell(values) if cell is None else cell

    def observe(self, seconds: float, *values: object) -> None:
        """Count one observation of a histogram."""
        cell = self._cells_by_raw_labels.get(values)
        if cell is None:
            cell = self._add_cell(values)
        cell[0] += seconds
        cell[bisect_left(self.bounds, seconds) + 1] += 1

    def _add_cell(self, values: tuple[object, ...]) -> list[float]:
        label_values = tuple(SECRETS.text(str(value))[:MAX_LABEL] for value in values)
        if (
            len(self._cells) >= self._max_cells - 1 and label_values not in self._cells
        ):  # `other` has the last one
            return self._cells.setdefault((OTHER_LABEL,) * len(values), self._empty_cell())
        cell = self._cells.setdefault(label_values, self._empty_cell())
        if (
            len(self._cells_by_raw_labels) < 2 * self._max_cells
        ):  # values that look alike share a cell, and do not fill the memory
            self._cells_by_raw_labels[values] = cell
        return cell

    def _empty_cell(self) -> list[float]:
        return [0.0] * (len(self.bounds) + 2 if self.bounds else 1)

    def family(self) -> Metric:
        """Return the metric in the client library's form."""
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.text, labels=self.labels)
            names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
            for labels, (total, *counts) in list(self._cells.items()):
                histogram.add_metric(
                    labels, list(zip(names, accumulate(counts), strict=True)), total
                )
            return histogram
        family_class = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = family_class(self.name, self.text, labels=self.labels)
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
        """Yield the current metrics."""
        with self._lock:
            self._refresh()
            families = [series.family() for series in self.series]
        yield from families
