"""Chat models: how a template's model is made, and the gate around each of its calls."""

from agent_runtime.models.gate import ModelGate, RunLimits

__all__ = ["ModelGate", "RunLimits"]
