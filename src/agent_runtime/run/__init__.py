"""One run: its state, the gate of each model call, and the models and tools that pass it."""

from agent_runtime.run.gate import ModelGate
from agent_runtime.run.limits import RunLimits

__all__ = ["ModelGate", "RunLimits"]
