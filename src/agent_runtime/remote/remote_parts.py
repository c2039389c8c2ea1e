"""Define stand-ins in a worker for what stays in the application: savers, stores, tools, agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.store.base import BaseStore, Op, Result
from typing_extensions import override

from agent_runtime.mcp.remote_tool import RemoteTool
from agent_runtime.remote.channel import channel


class RemoteCheckpointer(BaseCheckpointSaver[Any]):
    """Forward a LangGraph saver's operations to the application, for the running session only."""

    def with_allowlist(self, extra_allowlist: Any) -> RemoteCheckpointer:
        """Return itself: types are checked where they are stored."""
        return self

    @override
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        checkpoint_tuple: CheckpointTuple | None = await channel().call(
            "saver_get", _checkpoint_config(config)
        )
        return checkpoint_tuple

    @override
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        stored_config: RunnableConfig = await channel().call(
            "saver_put", _put_config(config), checkpoint, metadata, new_versions
        )
        return stored_config

    @override
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await channel().call(
            "saver_writes", _checkpoint_config(config), list(writes), task_id, task_path
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield at most 100 checkpoints at a time."""
        before_config = None if before is None else _checkpoint_config(before)
        for checkpoint_tuple in await channel().call(
            "saver_list", _checkpoint_config(config or {}), filter, before_config, limit
        ):
            yield checkpoint_tuple

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Run `aget_tuple` for sync callers."""
        checkpoint_tuple: CheckpointTuple | None = channel().call_blocking(
            "saver_get", _checkpoint_config(config)
        )
        return checkpoint_tuple

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Run `aput` for sync callers."""
        args = _put_config(config), checkpoint, metadata, new_versions
        stored_config: RunnableConfig = channel().call_blocking("saver_put", *args)
        return stored_config

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Run `aput_writes` for sync callers."""
        channel().call_blocking(
            "saver_writes", _checkpoint_config(config), list(writes), task_id, task_path
        )


def _checkpoint_config(config: Mapping[str, Any]) -> dict[str, Any]:
    configurable = config.get("configurable", {})
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return {"configurable": {name: configurable[name] for name in names if name in configurable}}


def _put_config(config: Mapping[str, Any]) -> dict[str, Any]:
    # The run and the caller's labels go into the checkpoint's metadata.
    return {**_checkpoint_config(config), "metadata": dict(config.get("metadata") or {})}


class RemoteTurn:
    """The turn that the call holds, as `Turn` has it."""

    def __init__(self, thread: str, status: str, *, unfinished: bool) -> None:
        self.thread = thread
        self.unfinished = unfinished
        self.fencing_token = None
        self.session = SimpleNamespace(status=status)

    def mark_running(self) -> None:
        """Record that the turn's graph is running."""
        channel().notify("turn_begins")

    async def tool_started(self, key: str) -> tuple[str, Any]:
        """Record the start of a tool; return whether it had started, and its result."""
        status_and_result: tuple[str, Any] = await channel().call("turn", "tool_started", key)
        return status_and_result

    async def tool_ended(self, key: str, result: Any) -> None:
        """Record the result of a tool."""
        await channel().call("turn", "tool_ended", key, result)

    async def tool_failed(self, key: str) -> None:
        """Record that a tool failed without an effect."""
        await channel().call("turn", "tool_failed", key)

    async def tool_results(self) -> dict[str, Any]:
        """Return the recorded results of tools."""
        results: dict[str, Any] = await channel().call("turn", "tool_results")
        return results

    async def settled(self) -> None:
        """Record that the turn's tools are settled."""
        await channel().call("turn", "settled")


class RemoteStore(BaseStore):
    """A LangGraph store that is the application's."""

    def __init__(self, name: str) -> None:
        self._name = name

    @override
    def batch(self, ops: Any) -> list[Result]:
        results: list[Result] = channel().call_blocking("store", self._name, list(ops))
        return results

    @override
    async def abatch(self, ops: Any) -> list[Result]:
        operations: list[Op] = list(ops)
        results: list[Result] = await channel().call("store", self._name, operations)
        return results


@dataclass(frozen=True, slots=True)
class RemoteToolInfo:
    """A tool that runs in the application: an MCP server's. `key` is its number there."""

    key: int
    name: str
    description: str
    args_schema: Any
    response_format: str
    metadata: Any

    @classmethod
    def from_tool(cls, key: int, tool: BaseTool) -> RemoteToolInfo:
        """Describe a tool."""
        schema: Any = tool.tool_call_schema
        json_schema = schema if isinstance(schema, dict) else schema.model_json_schema()
        return cls(
            key, tool.name, tool.description, json_schema, tool.response_format, tool.metadata
        )

    def make_tool(self) -> BaseTool:
        """Return the worker's stand-in of the tool."""
        key = self.key
        returns_artifact = self.response_format == "content_and_artifact"

        async def call_tool(arguments: dict[str, Any]) -> Any:
            content, artifact = await channel().call("tool", key, arguments)
            return (content, artifact) if returns_artifact else content

        return RemoteTool(
            name=self.name,
            description=self.description,
            args_schema=self.args_schema,
            call=call_tool,
            response_format="content_and_artifact" if returns_artifact else "content",
            metadata=self.metadata,
            handle_tool_error=True,
        )


@dataclass(frozen=True, slots=True)
class RemoteAgentInfo:
    """An agent as another agent's tool: it runs behind its own onion, on the host."""

    key: int
    name: str
    description: str

    async def execute(self, call: Any) -> Any:
        """Return the agent's answer, as an object with `output`."""
        return SimpleNamespace(output=await channel().call("agent", self.key, call.input))
