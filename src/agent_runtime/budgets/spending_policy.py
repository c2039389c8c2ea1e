"""How a call with budgets spends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from agent_runtime.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class SpendingPolicy:
    """Configure how a call with budgets spends.

    Args:
        on_exhausted: `stop` raises BudgetExceeded; `pause` ends a call that has a session as
            interrupted: resume it after the budget was raised.
        unknown_price: `refuse` a model of unknown price when the call has a budget in USD, or
            `allow` it.
        max_output_tokens: reserved for, and sent as the limit of, a model call without a limit.
        min_output_tokens: a model call that cannot afford so much output is refused.
        slab_calls: how many model calls one reservation covers.
        hold_ttl_s: seconds after which a reservation that was never settled is charged at its
            estimate: longer than a model call takes.
        input_bound: the most tokens that a request's messages and arguments can have; by default a
            third of its bytes.

    Raises ConfigurationError for an invalid value.
    """

    on_exhausted: Literal["stop", "pause"] = "stop"
    unknown_price: Literal["refuse", "allow"] = "refuse"
    max_output_tokens: int = 8192
    min_output_tokens: int = 64
    slab_calls: int = 1
    hold_ttl_s: float = 900.0
    input_bound: Callable[[list[Any], Any], int] | None = None

    def __post_init__(self) -> None:
        if self.on_exhausted not in ("stop", "pause") or self.unknown_price not in (
            "refuse",
            "allow",
        ):
            raise ConfigurationError(
                "on_exhausted is stop or pause, unknown_price is refuse or allow"
            )
        for name in ("max_output_tokens", "min_output_tokens", "slab_calls", "hold_ttl_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} is above 0, not {getattr(self, name)}")
