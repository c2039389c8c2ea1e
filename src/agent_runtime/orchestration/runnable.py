"""Offer an agent to LangChain: a Runnable with the input and output of the agent it wraps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config

from agent_runtime.errors import CallError
from agent_runtime.orchestration.call_runner import CallRunner
from agent_runtime.orchestration.stream import AgentStream
from agent_runtime.orchestration.stream_shapes import chunk_to_part, raise_original, shape_part
from agent_runtime.orchestration.subgraph_calls import is_subgraph_call
from agent_runtime.orchestration.sync import LOOP_THREAD
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForChainRun
    from langchain_core.runnables.graph import Graph
    from langchain_core.runnables.schema import StreamEvent


class AgentRunnable(Runnable[Any, Any]):
    """Implement `Runnable` by an agent's one way to run calls.

    It opens a root run, for tracing. `ainvoke` returns the agent's return value; `astream` yields
    like the agent's `astream`, with LangGraph's modes, versions and defaults; as a step of a chain
    the next step gets the final state. All pass through the layers. A failed call raises the
    original exception with a note of its cost. `configurable.thread_id` is the session id.
    """

    def __init__(self, agent: Runnable[Any, Any], runner: CallRunner, name: str) -> None:
        self.agent = agent
        self.name = name
        self._runner = runner

    @property
    def text(self) -> AgentText:
        """Return the Runnable that returns the answer's text, and streams it."""
        return AgentText(self)

    # -- one call

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the agent; `kwargs` go to its `ainvoke`. Raises the agent's error."""
        return (await self._invoke(input, config, **kwargs)).value

    async def _invoke(
        self, input: Any, config: RunnableConfig | None, **kwargs: Any
    ) -> AgentResult:
        results: list[AgentResult] = []

        async def inner(
            value: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> Any:
            context = self._runnable_context(value, run_manager, config, kwargs)
            results.append(await self._runner.run(context))
            return results[0].value

        try:
            await self._acall_with_config(inner, input, config, run_type="chain")
        except CallError as error:
            raise_original(error)
        return results[0]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the agent in a thread without an event loop."""
        return LOOP_THREAD.run(self.ainvoke(input, config, **kwargs))

    def _runnable_context(
        self,
        value: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        options: dict[str, Any],
    ) -> AgentContext:
        child = patch_config(config, callbacks=run_manager.get_child())
        configurable = config.get("configurable", {})
        # As a node of another graph the thread is that graph's, and so is the checkpointer.
        thread_id = None if is_subgraph_call(configurable) else configurable.get("thread_id")
        options = dict(options)
        runtime_context = options.pop("context", None)
        return self._runner.build_context(
            AgentContext(
                value,
                run_id=str(run_manager.run_id),
                session_id=None if thread_id is None else str(thread_id),
                config=child,
                context=runtime_context,
                options=options,
            )
        )

    # -- streams

    async def astream(  # type: ignore[override]  # LangGraph's keywords, named
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] | None = None,
        version: str = "v1",
        subgraphs: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Stream as the agent's own `astream` does.

        Closing early cancels the call and waits for clean-up.
        """
        mode: str | list[str] | None = (
            None  # an agent that is not a graph streams pieces of its output
        )
        if (default := getattr(self.agent, "stream_mode", None)) is not None:
            chosen = stream_mode or default
            mode = chosen if isinstance(chosen, str) else list(chosen)
            kwargs = {**kwargs, "stream_mode": mode, "subgraphs": subgraphs}

        async def chunks(
            inputs: AsyncIterator[Any],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[Any]:
            value = [i async for i in inputs][-1]
            context = self._runnable_context(value, run_manager, config, kwargs)
            async with AgentStream(self._runner.run, context) as stream:
                async for chunk in stream.chunks():
                    if (part := chunk_to_part(chunk, mode, subgraphs=subgraphs)) is not None:
                        yield part

        async def single_input() -> AsyncIterator[Any]:
            yield input

        run = self._atransform_stream_with_config(single_input(), chunks, config, run_type="chain")
        async with aclosing(cast("AsyncGenerator[Any]", run)) as parts:
            try:
                async for part in parts:
                    yield (
                        part
                        if mode is None
                        else shape_part(part, mode, version, subgraphs=subgraphs, agent=self.agent)
                    )
            except CallError as error:
                raise_original(error)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the agent in a thread without an event loop."""
        yield from LOOP_THREAD.iterate(self.astream(input, config, **kwargs))

    async def atransform(
        self,
        input: AsyncIterator[Any],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Run as a step of a chain: gather the input, run once, yield the final state."""
        final = await _gather_pieces(input)
        yield await self.ainvoke(final, config, **kwargs)

    def transform(
        self,
        input: Iterator[Any],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Run as a step of a chain, in a thread without an event loop."""
        final: Any = None
        for (
            piece
        ) in input:  # in the caller's thread: the previous step may be sync calls of the same kind
            final = _add_piece(final, piece)
        yield self.invoke(final, config, **kwargs)

    def astream_events(  # type: ignore[override]  # one signature for all versions
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: Any = "v2",
        **kwargs: Any,
    ) -> AsyncIterator[StreamEvent]:
        """Stream LangChain's events, version v2 (or v1).

        V3 returns run objects that would bypass the layers.
        """
        if version == "v3":
            raise NotImplementedError(
                "astream_events v3 would go around the layers: use version='v2' or execute_stream"
            )
        events: AsyncIterator[StreamEvent] = super().astream_events(
            input, config, version=version, **kwargs
        )
        return events

    # -- shapes: the agent's own

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the agent's input schema."""
        return self.agent.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the agent's output schema."""
        return self.agent.get_output_schema(config)

    def get_input_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the agent's input schema, as JSON Schema."""
        return self.agent.get_input_jsonschema(config, **kwargs)

    def get_output_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the agent's output schema, as JSON Schema."""
        return self.agent.get_output_jsonschema(config, **kwargs)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return the agent's graph, for drawing."""
        return self.agent.get_graph(config)


class AgentText(Runnable[Any, str]):
    """An executor as a Runnable from its input to the answer's text.

    Tokens stream on through a chain.
    """

    def __init__(self, executor: AgentRunnable) -> None:
        self._executor = executor
        self.name = f"{executor.name}.text"

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """Return the answer's text. Raises the agent's error."""
        return (await self._executor._invoke(input, config, **kwargs)).output

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """Return the answer's text in a thread without an event loop."""
        return LOOP_THREAD.run(self.ainvoke(input, config, **kwargs))

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """Yield pieces of text, in order; closing early cancels the call."""

        async def single_input() -> AsyncIterator[Any]:
            yield input

        async with aclosing(
            cast("AsyncGenerator[str]", self.atransform(single_input(), config, **kwargs))
        ) as pieces:
            async for piece in pieces:
                yield piece

    async def atransform(
        self,
        input: AsyncIterator[Any],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """Run as a step of a chain: gather the input, then stream the text."""

        async def pieces(
            inputs: AsyncIterator[Any],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[str]:
            context = self._executor._runnable_context(
                await _gather_pieces(inputs), run_manager, config, kwargs
            )
            async with AgentStream(self._executor._runner.run, context) as stream:
                async for text in stream:
                    yield text

        run = self._atransform_stream_with_config(input, pieces, config, run_type="chain")
        async with aclosing(cast("AsyncGenerator[str]", run)) as texts:
            try:
                async for text in texts:
                    yield text
            except CallError as error:
                raise_original(error)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[str]:
        """Stream the text in a thread without an event loop."""
        yield from LOOP_THREAD.iterate(self.astream(input, config, **kwargs))


async def _gather_pieces(pieces: AsyncIterator[Any]) -> Any:
    final: Any = None
    async for piece in pieces:
        final = _add_piece(final, piece)
    return final


def _add_piece(final: Any, piece: Any) -> Any:
    try:
        return piece if final is None else final + piece
    except TypeError:  # dicts do not add up: the last one is the whole
        return piece
