"""Model providers on loopback, and what they answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from langchain_core.messages import AIMessage

from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say

Answer = dict[str, Any] | list[Any] | str | bytes | tuple[int, Any]


def template(name: str = "t", **spec: Any) -> AgentTemplate:
    """Return a template with this `spec`."""
    head = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate", "metadata": {"name": name}}
    return AgentTemplate.model_validate({**head, "spec": spec})


@contextlib.asynccontextmanager
async def provider(
    answer: Callable[[dict[str, Any], str], Answer], headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve HTTP on loopback; gives the address and the requests that came.

    `answer(request, path)` returns a dict (one JSON body), a list (SSE data), text or bytes (a body
    as it is), or one of them behind a status.
    """
    requests: list[dict[str, Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.lower().split("\r\n")
            length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
            request = json.loads(await reader.readexactly(length))
            requests.append(request)
            body: Any = answer(request, head.split(" ", 2)[1])
            status, body = body if isinstance(body, tuple) else (200, body)
            writer.write(_response(status, body, headers or {}))
            await writer.drain()
        writer.close()  # LangChain's clients outlive a test's loop, so their connections must not

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    forget_clients()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def forget_clients() -> None:
    """Forget the clients that LangChain keeps by address.

    A port that comes again has one of a closed loop.
    """
    for name in ("langchain_openai.chat_models._client_utils", "langchain_anthropic._client_utils"):
        module = sys.modules.get(name)
        for member in vars(module).values() if module is not None else ():
            if hasattr(member, "cache_clear"):
                member.cache_clear()


def _response(status: int, body: Any, headers: dict[str, str]) -> bytes:
    kind = "application/json"
    if isinstance(body, list):
        text = (
            "".join(x if isinstance(x, str) else f"data: {json.dumps(x)}\n\n" for x in body)
            + "data: [DONE]\n\n"
        )
        kind = "text/event-stream"
        data = text.encode()
    elif isinstance(body, str):
        kind = "text/html"
        data = body.encode()
    else:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "content-type": kind,
        "content-length": str(len(data)),
        "connection": "close",
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + data


def openai_answer(model: str, usage: Any, text: str = "Hello.", **more: Any) -> dict[str, Any]:
    """Return a chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": model, "usage": usage}
    return {**head, "choices": [choice], **more}


def openai_stream(model: str, usage: Any, text: str = "Hello.", **more: Any) -> list[Any]:
    """Return the chunks of a streamed chat completion."""
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model, **more}
    delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [
        {**base, "choices": [delta]},
        {**base, "choices": [end]},
        {**base, "choices": [], "usage": usage},
    ]


class ObedientModel(ScriptedChatModel):
    """A scripted model of any provider and name that says `outputs` tokens, or as many as it is
    allowed to."""

    provider_name: str = "scripted"
    model_name: str = "m"
    inputs: int = 10
    outputs: int = 100
    max_tokens: int | None = None
    stated: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {
            "ls_provider": self.provider_name,
            "ls_model_name": self.model_name,
            "ls_model_type": "chat",
        }

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        result = await super()._agenerate(messages, stop, run_manager, **kwargs)
        outputs = min(self.outputs, kwargs.get("max_tokens") or self.outputs)
        message = result.generations[0].message
        assert isinstance(message, AIMessage)
        total = self.inputs + outputs
        message.usage_metadata = {
            "input_tokens": self.inputs,
            "output_tokens": outputs,
            "total_tokens": total,
        }
        message.response_metadata = {**message.response_metadata, **self.stated}
        return result


def obedient(
    provider_name: str, model_name: str, inputs: int = 10, outputs: int = 100, **more: Any
) -> ObedientModel:
    """Return an obedient model that always answers."""
    return ObedientModel(
        script=lambda messages: say("yes"),
        provider_name=provider_name,
        model_name=model_name,
        inputs=inputs,
        outputs=outputs,
        **more,
    )
