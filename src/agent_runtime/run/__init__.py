"""Track one run, and pass each model and tool call through its gate."""

from agent_runtime.run.gate import ModelGate
from agent_runtime.run.limits import RunLimits

__all__ = ["ModelGate", "RunLimits"]
