"""What is counted about calls."""

from agent_runtime.monitoring.prices import price_usd

__all__ = ["price_usd"]
