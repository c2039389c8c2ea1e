"""What is counted about calls."""

from agent_runtime.monitoring.prices import PriceTable

__all__ = ["PriceTable"]
