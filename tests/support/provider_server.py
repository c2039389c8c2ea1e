"""A local HTTP server that speaks the wire formats of OpenAI and Anthropic, and fails on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.providers import forget_clients


@dataclass
class Answer:
    """What the server does with one request."""

    text: str = "Hello from the wire."
    tool: tuple[str, dict[str, Any]] | None = None
    usage: tuple[int, int] | None = (21, 7)
    cached: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall_s: float = 0
    cut_after: int | None = None
    """Close the connection after so many streamed events."""
    body: bytes | None = None
    """Send this instead of an answer."""
    number: int = 1


class ProviderServer:
    """Plays `script`, one answer a request; keeps the requests.

    Counts connections that the client closed early.
    """

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.requests = list[dict[str, Any]]()
        self.hung_up = 0
        self.heads: list[dict[str, str]] = []
        self.port = 0
        self.tasks = set[asyncio.Task[None]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ", 2)[1]
            self.heads.append(
                dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            )
            lengths = [
                line.split(":")[1]
                for line in head.lower().split("\r\n")
                if line.startswith("content-length")
            ]
            request = json.loads(await reader.readexactly(int(lengths[0])))
            self.requests.append({"path": path, **request})
            answer = self.script[min(len(self.requests) - 1, len(self.script) - 1)]
            answer = replace(answer, number=len(self.requests))
            await self.answer(answer, request, path, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            # LangChain's clients outlive a test's loop, so their connections must not
            writer.close()

    async def answer(
        self, answer: Answer, request: dict[str, Any], path: str, writer: asyncio.StreamWriter
    ) -> None:
        if answer.stall_s:
            await asyncio.sleep(answer.stall_s)
        anthropic = path.endswith("/messages")
        if answer.status != 200:
            error = {"type": "error", "error": {"type": "api_error", "message": "told to fail"}}
            await self.send(
                writer, answer.status, json.dumps(error).encode(), headers=answer.headers
            )
        elif answer.body is not None:
            await self.send(writer, 200, answer.body)
        elif not request.get("stream") and answer.cut_after is not None:
            return
        elif not request.get("stream"):
            body = anthropic_message(answer) if anthropic else openai_message(answer)
            await self.send(writer, 200, json.dumps(body).encode())
        else:
            await self.stream(
                writer,
                anthropic_events(answer) if anthropic else openai_events(answer),
                answer.cut_after,
            )

    async def send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} X",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    async def stream(
        self, writer: asyncio.StreamWriter, events: list[bytes], cut_after: int | None
    ) -> None:
        head = [
            "HTTP/1.1 200 X",
            "content-type: text/event-stream",
            "transfer-encoding: chunked",
            "connection: close",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode())
        for index, event in enumerate(events):
            if index == cut_after:
                return
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            try:
                await writer.drain()
            except ConnectionError:
                self.hung_up += 1
                raise
            await asyncio.sleep(0.002)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def serve(*script: Answer) -> AsyncIterator[ProviderServer]:
    provider = ProviderServer(*script)
    server = await asyncio.start_server(provider.handle, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    forget_clients()
    try:
        yield provider
    finally:
        server.close()
        for task in provider.tasks:
            task.cancel()
        await asyncio.gather(*provider.tasks, return_exceptions=True)


def _event(data: Any, name: str | None = None) -> bytes:
    lead = f"event: {name}\n" if name else ""
    return f"{lead}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def _openai_usage(answer: Answer) -> Any:
    if answer.usage is None:
        return None
    inputs, outputs = answer.usage
    details = {"prompt_tokens_details": {"cached_tokens": answer.cached}}
    return {
        "prompt_tokens": inputs,
        "completion_tokens": outputs,
        "total_tokens": inputs + outputs,
        **details,
    }


def openai_message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool:
        call = {"name": answer.tool[0], "arguments": json.dumps(answer.tool[1])}
        message["tool_calls"] = [
            {"id": f"call_{answer.number}", "type": "function", "function": call}
        ]
    reason = "tool_calls" if answer.tool else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    head = {
        "id": f"chatcmpl-{answer.number}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-mini",
    }
    return {**head, "choices": [choice], "usage": _openai_usage(answer)}


def openai_events(answer: Answer) -> list[bytes]:
    head = {
        "id": f"chatcmpl-{answer.number}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-5-mini",
    }

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": word + " "}) for word in answer.text.split(" ") if word]
    if answer.tool:
        name = answer.tool[0]
        args = json.dumps(answer.tool[1])
        first = {
            "index": 0,
            "id": f"call_{answer.number}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        events.append(chunk({"tool_calls": [first]}))
        events += [
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": p}}]})
            for p in (args[:3], args[3:])
        ]
    events.append(chunk({}, "tool_calls" if answer.tool else "stop"))
    if answer.usage is not None:
        events.append(_event({**head, "choices": [], "usage": _openai_usage(answer)}))
    return [*events, _event("[DONE]")]


def _anthropic_usage(answer: Answer) -> dict[str, Any]:
    inputs, outputs = answer.usage or (0, 0)
    return {
        "input_tokens": inputs - answer.cached,
        "cache_read_input_tokens": answer.cached,
        "output_tokens": outputs,
    }


def _anthropic_blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
    if answer.tool:
        blocks.append(
            {
                "type": "tool_use",
                "id": f"toolu_{answer.number}",
                "name": answer.tool[0],
                "input": answer.tool[1],
            }
        )
    return blocks


def anthropic_message(answer: Answer) -> dict[str, Any]:
    reason = "tool_use" if answer.tool else "end_turn"
    head = {
        "id": f"msg_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
    }
    body = {"content": _anthropic_blocks(answer), "stop_reason": reason, "stop_sequence": None}
    return {**head, **body, "usage": _anthropic_usage(answer)}


def anthropic_events(answer: Answer) -> list[bytes]:
    start = {**anthropic_message(answer), "content": [], "stop_reason": None}
    start["usage"] = {**start["usage"], "output_tokens": 1}
    events = [_event({"type": "message_start", "message": start}, "message_start")]
    for index, block in enumerate(_anthropic_blocks(answer)):
        tool = block["type"] == "tool_use"
        empty = {**block, "input": {}} if tool else {"type": "text", "text": ""}
        events.append(
            _event(
                {"type": "content_block_start", "index": index, "content_block": empty},
                "content_block_start",
            )
        )
        args = json.dumps(block["input"]) if tool else ""
        deltas: list[Any] = (
            [{"type": "input_json_delta", "partial_json": p} for p in (args[:3], args[3:])]
            if tool
            else []
        )
        if not tool:
            deltas = [{"type": "text_delta", "text": w + " "} for w in block["text"].split(" ")]
        events += [
            _event(
                {"type": "content_block_delta", "index": index, "delta": d}, "content_block_delta"
            )
            for d in deltas
        ]
        events.append(_event({"type": "content_block_stop", "index": index}, "content_block_stop"))
    reason = {"stop_reason": "tool_use" if answer.tool else "end_turn", "stop_sequence": None}
    usage = _anthropic_usage(answer)  # cumulative, as the API sends it
    events.append(
        _event({"type": "message_delta", "delta": reason, "usage": usage}, "message_delta")
    )
    return [*events, _event({"type": "message_stop"}, "message_stop")]
