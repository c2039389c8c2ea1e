"""A tool that runs elsewhere.

On an MCP server, or in the application that a worker process belongs to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.tools import BaseTool

from agent_runtime.orchestration.sync import LOOP_THREAD


class RemoteTool(BaseTool):
    """Pass a tool's arguments as one map to `call`, whatever their names.

    LangChain passes arguments by name to a function, and reserves `config`, `run_manager` and
    `runtime`; one named `self` raises TypeError. `args_schema` is a JSON Schema.
    """

    call: Callable[[dict[str, Any]], Awaitable[Any]]

    def _to_args_and_kwargs(
        self, tool_input: Any, tool_call_id: str | None
    ) -> tuple[Any, dict[str, Any]]:
        arguments = self._parse_input(tool_input, tool_call_id)
        return (arguments,), {}

    def _run(self, arguments: dict[str, Any]) -> Any:
        return LOOP_THREAD.run(self._call_remote(arguments))

    async def _arun(self, arguments: dict[str, Any]) -> Any:
        return await self._call_remote(arguments)

    async def _call_remote(self, arguments: dict[str, Any]) -> Any:
        return await self.call(dict(arguments))
