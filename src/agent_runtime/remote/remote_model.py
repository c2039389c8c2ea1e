"""A chat model that is called in the application: keys, clients and budgets stay there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent_runtime.remote.channel import channel
from agent_runtime.remote.frames import dumps, loads
from agent_runtime.run.state import GATED_TAG, current_run
from agent_runtime.run.streamed_arguments import StreamedArguments


@dataclass(frozen=True, slots=True)
class RemoteModelInfo:
    """Describe a model to LangChain in the worker. `key` is its number in the application."""

    key: int
    llm_type: str
    model_name: str
    profile: Any
    ls_params: Mapping[str, Any]
    supports_streaming: bool

    @classmethod
    def from_model(cls, key: int, model: BaseChatModel) -> RemoteModelInfo:
        """Describe a model."""
        name = getattr(model, "model_name", None) or getattr(model, "model", None) or ""
        supports_streaming = (
            type(model)._astream is not BaseChatModel._astream
            or type(model)._stream is not BaseChatModel._stream
        )
        return cls(
            key,
            model._llm_type,
            str(name),
            model.profile,
            dict(model._get_ls_params()),
            supports_streaming,
        )

    def make_model(self) -> BaseChatModel:
        """Return the worker's stand-in of the model."""
        model_class = StreamingRemoteChatModel if self.supports_streaming else RemoteChatModel
        return model_class(
            info=self, model_name=self.model_name, profile=self.profile, tags=[GATED_TAG]
        )


class RemoteChatModel(BaseChatModel):
    """Forward the calls of a model to the application, and look like that model otherwise."""

    info: Any
    model_name: str = ""

    @property
    def _llm_type(self) -> str:
        return str(self.info.llm_type)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return dict(self.info.ls_params)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Return the model bound to tools; the application converts them to its provider's form."""
        tool_schemas = [
            tool if isinstance(tool, dict) else convert_to_openai_tool(tool) for tool in tools
        ]
        return self.bind(offered=dumps(tool_schemas), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(
            channel().call_blocking("model", *self._request_arguments(messages, stop, kwargs))
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(
            await channel().call("model", *self._request_arguments(messages, stop, kwargs))
        )

    def _request_arguments(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        pickled_tools = kwargs.pop("offered", None)
        return self.info.key, messages, stop, pickled_tools, kwargs


class StreamingRemoteChatModel(RemoteChatModel):
    """One that streams."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        # Sync code cannot read pieces early, so the whole answer arrives at once.
        message = (
            _result(
                channel().call_blocking("model", *self._request_arguments(messages, stop, kwargs))
            )
            .generations[0]
            .message
        )
        chunk = _as_chunk(message)
        arguments = StreamedArguments()
        arguments.add(chunk.tool_call_chunks)
        yield ChatGenerationChunk(message=chunk)
        _note_unreadable(arguments)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        arguments = StreamedArguments()
        async for part in channel().stream(
            "model_stream", *self._request_arguments(messages, stop, kwargs)
        ):
            message = deserialize_chunk(part)
            arguments.add(message.tool_call_chunks)
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
        _note_unreadable(arguments)


def _note_unreadable(arguments: StreamedArguments) -> None:
    if (run := current_run.get()) is not None:
        run.record_unreadable_arguments(arguments)


def serialize_chunk(chunk: BaseMessage) -> Any:
    """Serialize a streamed chunk; most are text only and sent as text."""
    content = chunk.content
    if type(content) is str and isinstance(chunk, AIMessageChunk) and _is_text_only(chunk):
        return chunk.id, content
    return dumps(chunk)


def deserialize_chunk(part: Any) -> AIMessageChunk:
    """Return the chunk."""
    if isinstance(part, tuple):
        return AIMessageChunk(content=part[1], id=part[0])
    message = loads(part)
    return message if isinstance(message, AIMessageChunk) else _as_chunk(message)


def _is_text_only(chunk: AIMessageChunk) -> bool:
    extra_fields = (
        chunk.additional_kwargs
        or chunk.response_metadata
        or chunk.usage_metadata
        or chunk.tool_call_chunks
    )
    return not (
        extra_fields
        or chunk.tool_calls
        or chunk.invalid_tool_calls
        or chunk.name
        or chunk.chunk_position
    )


def _as_chunk(message: BaseMessage) -> AIMessageChunk:
    fields = {key: value for key, value in message.__dict__.items() if key != "type"}
    calls = fields.pop("tool_calls", [])
    calls = [*calls, *fields.pop("invalid_tool_calls", [])]
    tool_call_chunks: list[Any] = [
        {
            "name": c["name"],
            "args": _text(c["args"]),
            "id": c["id"],
            "index": n,
            "type": "tool_call_chunk",
        }
        for n, c in enumerate(calls)
    ]
    return AIMessageChunk(**fields, tool_call_chunks=tool_call_chunks, chunk_position="last")


def _text(arguments: Any) -> str:
    return (
        arguments if isinstance(arguments, str) else json.dumps(arguments)
    )  # text: of a call that is no JSON


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
