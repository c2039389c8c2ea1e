"""The `agent-runtime` command. Nothing here imports LangChain before a command needs it."""

from agent_runtime.cli.main import cli, main

__all__ = ["cli", "main"]
