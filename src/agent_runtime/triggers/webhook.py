"""Webhooks: signed requests become events."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_runtime.errors import StoreError
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import DuplicateName, loads_unique
from agent_runtime.triggers.rules import TriggerRule, WebhookSpec

MAX_BODY_BYTES = size_limit("webhook_bytes")
MAX_DEPTH = 64
MAX_AGE_S = 300
"""How far a signed time may be from ours.

Https://www.standardwebhooks.com, "Verifying webhook authenticity".
"""


class WebhookApp:
    """Serve webhooks as an ASGI application: `POST /{path}` publishes `webhook.received`.

    A request must be signed with the hook's secret: `X-Hub-Signature-256` as GitHub sends it, or
    `webhook-id`, `webhook-timestamp` and `webhook-signature` (standardwebhooks.com). The signed
    part identifies the event (the delivery's id by the standard, the body with GitHub), so a
    repetition starts nothing twice. GitHub signs no time: a request is recognised for as long as
    the consumer's `seen_ids` last.

    Answers: 202 with the event's id; 401 for an invalid signature, 404, 405, 413 above 1 MiB, 400
    for a body that is not JSON.
    """

    def __init__(self, bus: EventBus, rules: Sequence[TriggerRule]) -> None:
        self._bus = bus
        hooks = [rule.webhook for rule in rules if rule.webhook is not None]
        self.flush: Callable[[], Awaitable[None]] | None = None
        """Awaited before a request is answered: its event is in the log then.

        503 when it fails.
        """
        self._hooks = {hook.path: (hook, hook.key()) for hook in hooks}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            return
        status, answer = await self._handle_request(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def _handle_request(self, scope: Any, receive: Any) -> tuple[int, dict[str, str]]:
        hook_and_key = self._hooks.get(
            scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        )
        if hook_and_key is None:
            return 404, {"error": "no such webhook"}
        if scope["method"] != "POST":
            return 405, {"error": "send it by POST"}
        body = await _read_body(receive)
        if body is None:
            return 413, {"error": f"a body has at most {MAX_BODY_BYTES} bytes"}
        hook, key = hook_and_key
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        if not is_signature_valid(hook, key, headers, body):
            return 401, {"error": "the signature does not hold"}
        try:
            payload = loads_unique(body)
        except DuplicateName as error:
            return 400, {"error": f"the body: {error}"}
        except (ValueError, RecursionError):
            return 400, {"error": "the body is not JSON"}
        if _is_too_deep(payload):
            return 400, {"error": f"the body is nested deeper than {MAX_DEPTH}"}
        data = {"hook": hook.path, "payload": payload, "event": headers.get("x-github-event", "")}
        event = self._bus.publish(
            Event(
                "webhook.received", data, tenant=hook.tenant, own_id=_event_id(hook, headers, body)
            )
        )
        if self.flush is not None:
            try:
                await self.flush()
            except StoreError:
                return 503, {"error": "the event log takes nothing now: send it again"}
        return 202, {"id": event.id}


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = [
            node.values() if isinstance(node, dict) else node
            for node in level
            if isinstance(node, dict | list)
        ]
        level = [child for inner in nested for child in inner]
        if not level:
            return False
    return True


async def _read_body(receive: Any) -> bytes | None:
    body = bytearray()
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _event_id(hook: WebhookSpec, headers: dict[str, str], body: bytes) -> str:
    """Return an id made of signed parts alone: GitHub signs the body, and no header with it."""
    delivery = (
        hashlib.sha256(body).hexdigest() if hook.signature == "github" else headers["webhook-id"]
    )
    if len(delivery) > 128:
        delivery = hashlib.sha256(delivery.encode("latin-1")).hexdigest()
    return f"webhook:{hook.path}:{delivery}"


def is_signature_valid(hook: WebhookSpec, key: bytes, headers: dict[str, str], body: bytes) -> bool:
    """Verify a body's signature, and its age where the scheme has a time."""
    if hook.signature == "github":
        signature = headers.get("x-hub-signature-256", "")
        return _signatures_equal(
            signature, "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        )
    delivery = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if (
        not delivery
        or not timestamp.isdecimal()
        or len(timestamp) > 12
        or abs(time.time() - int(timestamp)) > MAX_AGE_S
    ):
        return False
    content = f"{delivery}.{timestamp}.".encode("latin-1") + body
    expected_signature = (
        "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    )
    return any(
        _signatures_equal(candidate_signature, expected_signature)
        for candidate_signature in headers.get("webhook-signature", "")[:4096].split(" ")
    )


def _signatures_equal(signature: str, expected_signature: str) -> bool:
    return hmac.compare_digest(signature.encode("latin-1", "replace"), expected_signature.encode())
