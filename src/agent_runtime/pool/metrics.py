"""Pools, MCP servers and provider accounts as Prometheus metrics, read at each scrape.

Nothing is paid on a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent_runtime.monitoring.metrics import NAMESPACE, RuntimeMetrics

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.pool.process.instance_pool import AgentInstancePool
    from agent_runtime.pool.warm.session_pool import AgentSessionPool

MAX_AGENTS = 200
"""Most agent types, servers and accounts with separate series."""


def watch_pools(
    metrics: RuntimeMetrics,
    factory: AgentFactory,
    *,
    instances: AgentInstancePool | None = None,
    sessions: AgentSessionPool | None = None,
) -> None:
    """Show a factory's pools, MCP servers and provider accounts among its metrics."""
    metrics.registry.register(PoolCollector(factory, instances, sessions))


class PoolCollector(Collector):
    """Collect the metrics of pools."""

    def __init__(
        self,
        factory: AgentFactory,
        instances: AgentInstancePool | None,
        sessions: AgentSessionPool | None,
    ) -> None:
        self._factory = factory
        self._instances = instances
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        if self._instances is not None:
            yield from _instance_metrics(self._instances.get_pool_status())
        if self._sessions is not None:
            yield from _session_metrics(self._sessions.status())
        accounts = self._factory.registry.providers.status()[:MAX_AGENTS]
        yield _family_by_label(
            "gauge",
            "provider_in_flight",
            "Model calls in flight.",
            "provider",
            accounts,
            "in_flight",
        )
        yield _family_by_label(
            "gauge",
            "provider_waiting",
            "Model calls that wait for a place.",
            "provider",
            accounts,
            "waiting",
        )
        limited = [account for account in accounts if account["limit"] is not None]
        yield _family_by_label(
            "gauge",
            "provider_limit",
            "Most model calls in flight at present.",
            "provider",
            limited,
            "limit",
        )
        yield _family_by_label(
            "counter",
            "provider_overloads",
            "Answers that said it was too much.",
            "provider",
            accounts,
            "overloads",
        )
        servers = self._factory.mcp_broker.status()[:MAX_AGENTS]
        yield _family_by_label(
            "gauge", "mcp_calls", "Calls of MCP tools under way.", "server", servers, "calls"
        )
        yield _family_by_label(
            "counter",
            "mcp_opened",
            "Sessions opened with MCP servers.",
            "server",
            servers,
            "opened",
        )


def _instance_metrics(status: dict[str, Any]) -> Iterator[Metric]:
    instance_counts: dict[tuple[str, str], int] = {}
    memory_mb_by_agent: dict[str, float] = {}
    for instance in status["instances"][:MAX_AGENTS]:
        label_values = (instance["agent"], instance["status"])
        instance_counts[label_values] = instance_counts.get(label_values, 0) + 1
        memory_mb_by_agent[instance["agent"]] = (
            memory_mb_by_agent.get(instance["agent"], 0.0) + instance["memory_mb"]
        )
    family = GaugeMetricFamily(
        f"{NAMESPACE}_pool_instances", "Instances.", labels=["agent", "status"]
    )
    for label_values, count in instance_counts.items():
        family.add_metric(list(label_values), count)
    yield family
    family = GaugeMetricFamily(
        f"{NAMESPACE}_pool_memory_bytes", "Resident memory of instances.", labels=["agent"]
    )
    for agent, memory_mb in memory_mb_by_agent.items():
        family.add_metric([agent], memory_mb * 2**20)
    yield family
    family = GaugeMetricFamily(
        f"{NAMESPACE}_pool_queue", "Calls that wait for an instance.", labels=["priority"]
    )
    for priority in ("low", "normal", "high", "urgent"):
        family.add_metric([priority], status["queue"][priority])
    yield family
    for name, text in (
        ("starts", "Instances started."),
        ("start_failures", "Starts that failed."),
        ("kills", "Instances that tasks have ended."),
    ):
        yield CounterMetricFamily(f"{NAMESPACE}_pool_{name}", text, value=status[name])
    yield CounterMetricFamily(
        f"{NAMESPACE}_pool_start_seconds", "Seconds spent in starts.", value=status["start_seconds"]
    )


def _session_metrics(status: dict[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"{NAMESPACE}_warm_contexts", "Agents kept warm.", value=status["size"])
    yield GaugeMetricFamily(
        f"{NAMESPACE}_warm_bytes", "Approximate memory of warm agents.", value=status["size_bytes"]
    )
    yield GaugeMetricFamily(
        f"{NAMESPACE}_warm_hit_ratio",
        "Share of callers whose agent was warm.",
        value=status["hit_rate"],
    )
    for name, text in (
        ("hits", "Callers whose agent was warm."),
        ("misses", "Callers who waited for a build."),
        ("builds", "Agents built."),
        ("failures", "Builds that failed."),
        ("build_seconds", "Seconds spent in builds."),
    ):
        yield CounterMetricFamily(f"{NAMESPACE}_warm_{name}", text, value=status[name])
    family = CounterMetricFamily(f"{NAMESPACE}_warm_dropped", "Agents dropped.", labels=["why"])
    for reason in ("evictions", "expired", "outdated"):
        family.add_metric([reason], status[reason])
    yield family


def _family_by_label(
    kind: str, name: str, text: str, label: str, rows: list[dict[str, Any]], value_key: str
) -> Metric:
    family_class = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = family_class(f"{NAMESPACE}_{name}", text, labels=[label])
    sums: dict[str, float] = {}
    for row in rows:  # several scopes have servers of one name
        label_value = str(row[label])[:128]
        sums[label_value] = sums.get(label_value, 0) + row[value_key]
    for label_value, total in sums.items():
        family.add_metric([label_value], total)
    return family
