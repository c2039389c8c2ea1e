"""Define a chat model computed in this process, the base of the offline and the scripted model."""

from __future__ import annotations

import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool


class LocalChatModel(BaseChatModel):
    """Serve a subclass's answers as a provider would: streamed, with tool calls and usage."""

    provider: str = "local"
    delay_s: float = 0.0
    """Seconds for each streamed piece, and for an answer that is not streamed."""

    @abstractmethod
    def answer(
        self, messages: list[BaseMessage], tools: list[dict[str, Any]], tool_choice: Any
    ) -> AIMessage:
        """Return the answer to `messages`; `tools` are in OpenAI's format.

        May raise a provider's errors.
        """

    def pieces(self, message: AIMessage) -> Iterator[str | Exception]:
        """Yield the answer's text as it is streamed, word by word.

        An exception among them is raised.
        """
        yield from re.findall(r"\s*\S+\s*", str(message.text))

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Any:
        """Return the model bound to tools."""
        return self.bind(
            tools=[convert_to_openai_tool(t) for t in tools], tool_choice=tool_choice, **kwargs
        )

    @property
    def _llm_type(self) -> str:
        return self.provider

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        name = kwargs.get("model", self.provider)
        return {"ls_provider": self.provider, "ls_model_name": name, "ls_model_type": "chat"}

    def _build_message(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        message = self.answer(messages, list(kwargs.get("tools") or ()), kwargs.get("tool_choice"))
        message.response_metadata = {
            "model_name": self.provider,
            "model_provider": self.provider,
            **message.response_metadata,
        }
        return message

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._build_message(messages, kwargs)
        if failure := next((p for p in self.pieces(message) if isinstance(p, Exception)), None):
            raise failure
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(self.delay_s)
        return self._generate(messages, stop, None, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._build_message(messages, kwargs)
        for piece in self.pieces(message):
            if isinstance(piece, Exception):
                raise piece
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=message.id))
        yield _final_chunk(message)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, stop, None, **kwargs):
            await asyncio.sleep(
                self.delay_s
            )  # always: a stream that never awaits reaches its reader all at the end
            yield chunk


def estimate_usage(messages: list[BaseMessage], answer_text: str) -> UsageMetadata:
    """Estimate the usage of a model without tokens: one for every four characters."""
    inputs = sum(len(str(m.text)) for m in messages) // 4 + 1
    outputs = len(answer_text) // 4 + 1
    return UsageMetadata(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)


def _final_chunk(message: AIMessage) -> ChatGenerationChunk:
    calls = [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=i)
        for i, c in enumerate(message.tool_calls)
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            id=message.id,
            tool_call_chunks=calls,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )
