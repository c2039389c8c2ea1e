"""How long a call, its silences and its model calls may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_runtime.budgets.prices import preload_price
from agent_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_runtime.run.gate import ModelGate


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limit times in seconds; None is unlimited.

    `run_s` is the whole call with all layers and a slow reader; `idle_s` the agent's longest
    silence; `model_call_s` one model call, provider time only. Raises ConfigurationError unless
    positive.
    """

    run_s: float | None = None
    idle_s: float | None = None
    model_call_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigurationError(
                    f"timeout {name} must be a positive number of seconds, not {value}"
                )


NO_TIMEOUTS = Timeouts()


def check_gated(gate: ModelGate, *, gated: bool) -> None:
    """Raise ConfigurationError for a limit that requires gated models."""
    if gated:
        return
    preload_price("unknown", "")
    if gate.model_call_timeout_s is not None:
        raise ConfigurationError(
            "a model_call timeout needs models that the runtime builds or gates; use the run or "
            "idle timeout, "
            "or build the graph with agent_runtime.run.gated_model.gated(model)"
        )
