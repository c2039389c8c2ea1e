"""Build the agent in a worker: the template's graph with stand-ins for the application's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from agent_runtime.chunks import HAS_CAPACITY, Chunk, Emit, TextChunk, discard
from agent_runtime.factory.build_agent import build_agent
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.local_agent import LocalAgent
from agent_runtime.registry import Registry
from agent_runtime.remote.agent_spec import RemoteAgentSpec
from agent_runtime.remote.channel import channel, current_job
from agent_runtime.remote.frames import dumps
from agent_runtime.remote.remote_parts import RemoteCheckpointer, RemoteStore, RemoteTurn
from agent_runtime.remote.worker_run import WorkerRun
from agent_runtime.run.limits import RunLimits
from agent_runtime.run.state import current_run
from agent_runtime.tools import register_builtin_tools
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool

    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.template.parts_spec import ModelSpec, ToolSpec

WORKER_LIMITS = ("calls_per_answer", "tool_result_bytes", "tool_media_bytes")
"""Limits that apply in this process; the others are counted in the application."""


class JobRequest(NamedTuple):
    """Describe a call for a worker: the transferable part of an AgentContext."""

    input: Any
    run_id: str
    session_id: str | None
    streaming: bool
    silent: bool
    options: Mapping[str, Any]
    context: Any
    metadata: Mapping[str, Any]
    config: Mapping[str, Any] | None
    prompt: str | None
    turn: tuple[str, str, bool] | None
    content: bool
    limits_loops: bool

    def agent_context(self, emit: Emit) -> AgentContext:
        """Return the call's context in this process."""
        context = AgentContext(
            self.input,
            run_id=self.run_id,
            session_id=self.session_id,
            streaming=self.streaming,
            config=cast("Any", self.config),
            context=self.context,
            options=dict(self.options),
            metadata=dict(self.metadata),
            emit=discard if self.silent else emit,
        )
        if self.turn is not None:
            thread, status, unfinished = self.turn
            context = context.with_turn(RemoteTurn(thread, status, unfinished=unfinished))
        return context


class WorkerRegistry(Registry):
    """The components of a recipe; models, stores and MCP tools are the application's."""

    def model(self, spec: ModelSpec) -> BaseChatModel:
        """Return a stand-in for the model."""
        model: BaseChatModel = channel().call_blocking("describe_model", spec).make_model()
        return model

    def mcp(self, spec: ToolSpec, folder: Path | None) -> Sequence[BaseTool]:
        """Stand-ins for the tools of an MCP server."""
        return [
            tool_info.make_tool() for tool_info in channel().call_blocking("describe_mcp", spec)
        ]


class WorkerAgent:
    """Makes a recipe's agent and runs jobs with it, one after the other."""

    def __init__(self, spec: RemoteAgentSpec) -> None:
        registry = WorkerRegistry(spec.allowed_refs)
        register_builtin_tools(registry)
        spec.register_into(registry)
        memory = spec.template.spec.memory
        if memory:
            registry.memories[memory] = RemoteStore(memory)
        saver = RemoteCheckpointer() if spec.has_sessions else None
        built = build_agent(spec.template, registry, spec.values, _remote_agent, saver)
        self.call_tracker = CallTracker()
        limits = spec.template.spec.runtime.limits
        self._limits = RunLimits(**{name: getattr(limits, name) for name in WORKER_LIMITS})
        self._local_agent = LocalAgent(
            built.agent,
            self.call_tracker,
            max_steps=spec.max_steps,
            idle_timeout_s=spec.idle_timeout_s,
            gated=built.gated,
            hold_text=built.hold_text,
            needs_session=built.needs_session,
            durability=spec.template.spec.runtime.durability,
            digest=spec.template.digest,
        )
        # They store nothing: events are sent to the application, which records them.
        self._recorders = {
            content: AgentCallbackHandler(content=content) for content in (False, True)
        }
        self.progress: dict[str, Any] = {}

    async def run(self, job: JobRequest) -> tuple[AgentResult, dict[str, Any]]:
        """Return a job's result without the application's own data, and its progress."""
        context = job.agent_context(_emit)
        run = WorkerRun(
            context,
            self._recorders[job.content],
            job.prompt,
            limits_loops=job.limits_loops,
            limits=self._limits,
        )
        token = current_run.set(run)
        try:
            result = await self._local_agent.run(context)
        finally:
            current_run.reset(token)
            self.call_tracker.unregister_run(context)
            self.call_tracker.draining = False
            progress = context.progress
            self.progress = {
                "ended": progress.finished,
                "resumable": progress.resumable,
                "message_open": progress.message_open,
                "threads_left": len(run.running_threads),
            }
        return result, self.progress

    def drain(self) -> None:
        """Stop the running job at its next step, if it has a session.

        Also one that is only getting ready.
        """
        self.call_tracker.draining = True
        self.call_tracker.request_drain_all("shutdown")


def _emit(chunk: Chunk) -> Any:
    if type(chunk) is TextChunk and chunk.part is None:
        channel().send("text", current_job.get(), chunk.message_id, chunk.text)
    else:
        channel().send("chunk", current_job.get(), dumps(chunk))
    return HAS_CAPACITY


def _remote_agent(name: str) -> AgentExecutor:
    return cast("AgentExecutor", channel().call_blocking("describe_agent", name))
