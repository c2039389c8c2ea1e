"""Provide fakes for tests of agents, layers and applications."""

from agent_runtime.testing.scripted_model import Say, ScriptedChatModel, say
from agent_runtime.testing.sinks import RecordingSink, run_layer

__all__ = ["RecordingSink", "Say", "ScriptedChatModel", "run_layer", "say"]
