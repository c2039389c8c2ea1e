"""Export the callback handler of a run by its published path."""

from agent_runtime.monitoring.callback_handler import AgentCallbackHandler

__all__ = ["AgentCallbackHandler"]
