"""Run the `agent-runtime` command by `python -m agent_runtime`."""

from agent_runtime.cli import main

main()
