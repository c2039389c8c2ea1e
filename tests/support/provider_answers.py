"""The answers of model providers on the wire, whole and streamed.

`support/providers.py` serves them.

Each function takes the provider's own usage object, as it came from the provider, and puts it where
the provider does.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

TEXT = "Hello there."


def sse(events: Iterable[Any]) -> bytes:
    """Encode a stream of server-sent events without an end mark."""
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()


def anthropic_answer(model: str, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "m", "type": "message", "role": "assistant", "model": model,
        "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": TEXT}], "usage": usage,
    }  # fmt: skip


def anthropic_stream(model: str, usage: dict[str, Any]) -> list[Any]:
    def event(kind: str, **more: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

    start = {
        **anthropic_answer(model, {**usage, "output_tokens": 1}),
        "content": [],
        "stop_reason": None,
    }
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": TEXT}),
        event("content_block_stop", index=0),
        event(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage
        ),
        event("message_stop"),
    ]


def responses_answer(model: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an answer of OpenAI's Responses API."""
    content = {"type": "output_text", "text": TEXT, "annotations": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed",
        "model": model, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "output": [message],
        "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "temperature": 1, "top_p": 1,
        "usage": usage, **more,
    }  # fmt: skip


def responses_stream(model: str, usage: dict[str, Any], **more: Any) -> bytes:
    end = responses_answer(model, usage, **more)
    start = {**end, "status": "in_progress", "output": [], "usage": None}
    message = {**end["output"][0], "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": start},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": end["output"][0]},
        {"type": "response.completed", "response": end},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return b"".join(
        b"event: " + event["type"].encode() + b"\n" + sse([event]) for event in numbered
    )


def google_answer(
    model: str, usage: dict[str, Any], text: str = TEXT, finish: str = "STOP"
) -> dict[str, Any]:
    candidate = {
        "content": {"role": "model", "parts": [{"text": text}]},
        "finishReason": finish,
        "index": 0,
    }
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": "r1",
    }


def google_stream(model: str, usage: dict[str, Any]) -> bytes:
    """Return events with running totals, of which the last one counts."""
    early = {
        "promptTokenCount": usage["promptTokenCount"],
        "totalTokenCount": usage["promptTokenCount"] + 1,
    }
    first = google_answer(model, {**early, "candidatesTokenCount": 1}, TEXT[:5])
    del first["candidates"][0]["finishReason"]
    return sse([first, google_answer(model, usage, TEXT[5:])])


def bedrock_answer(usage: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": TEXT}]}
    return {
        "output": {"message": message},
        "stopReason": "end_turn",
        "usage": usage,
        "metrics": {"latencyMs": 1},
    }


def bedrock_stream(usage: dict[str, Any]) -> bytes:
    """Return Amazon's binary event stream."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": TEXT}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]
    return b"".join(amazon_event(kind, body) for kind, body in events)


def amazon_event(kind: str, body: dict[str, Any], message_type: str = "event") -> bytes:
    """Encode one event of Amazon's event stream: lengths, checksum, headers, payload, checksum."""
    name = ":event-type" if message_type == "event" else ":exception-type"
    headers = {name: kind, ":content-type": "application/json", ":message-type": message_type}
    block = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in headers.items()
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack(">II", len(block) + len(payload) + 16, len(block))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack(">I", zlib.crc32(message))


def ollama_answer(model: str, usage: dict[str, Any]) -> bytes:
    """Return lines of JSON: Ollama's client streams every answer."""
    head = {"model": model, "created_at": "2026-01-01T00:00:00Z"}
    pieces = [
        {**head, "message": {"role": "assistant", "content": TEXT}, "done": False},
        {
            **head,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            **usage,
        },
    ]
    return b"".join(json.dumps(piece).encode() + b"\n" for piece in pieces)


def stream_with_usage_at_the_end(model: str, **last: Any) -> list[Any]:
    """Return chunks of a chat completion whose last one has the reason of the end and what `last`
    says."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
    delta = {"index": 0, "delta": {"role": "assistant", "content": TEXT}, "finish_reason": None}
    end = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
    return [{**head, "choices": [delta]}, {**head, "choices": [end], **last}]
