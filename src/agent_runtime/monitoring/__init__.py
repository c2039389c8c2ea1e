"""Observe calls: callback events, logs, metrics and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.monitoring.logs import JsonFormatter, LogSink, configure_logging, redact
    from agent_runtime.monitoring.metrics import RuntimeMetrics
    from agent_runtime.monitoring.tracing import RuntimeTracing

# Loaded at first use: a program without Prometheus does not pay for its client.
_HOME = {
    "JsonFormatter": "agent_runtime.monitoring.logs",
    "LogSink": "agent_runtime.monitoring.logs",
    "RuntimeMetrics": "agent_runtime.monitoring.metrics",
    "RuntimeTracing": "agent_runtime.monitoring.tracing",
    "configure_logging": "agent_runtime.monitoring.logs",
    "redact": "agent_runtime.monitoring.logs",
}

__all__ = [
    "JsonFormatter",
    "LogSink",
    "RuntimeMetrics",
    "RuntimeTracing",
    "configure_logging",
    "redact",
]

__getattr__ = lazy_exports(__name__, _HOME)
