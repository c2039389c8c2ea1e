"""litellm #8075, #13705, PR #39964, guardrails #1213.

A provider's key in its URL comes out in tracebacks and spans.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.providers import template

from agent_runtime import AgentCallbackHandler, AgentFactory, CallError, EventBus, RuntimeTracing
from agent_runtime.event_bus.cloud_event import to_cloud_event
from agent_runtime.monitoring import redact
from agent_runtime.testing import ScriptedChatModel, say

GOOGLE_KEY = "AIza" + "SyD-dummy-dummy-dummy-dummy-0123456"
OTHER_KEY = "q7Zk-dummy-dummy-5f2d9a71c0"
MESSAGES = {
    "httpx": "Client error '400 Bad Request' for url "
    f"'https://g.example/v1beta/models/m:generate?key={GOOGLE_KEY}'",
    "headers": f"401: {{'headers': {{'x-goog-api-key': '{OTHER_KEY}', 'x-api-key': "
    f"'{OTHER_KEY}'}}}}",
    "arguments": f"failed with kwargs {{'api_key': '{OTHER_KEY}', 'authorization': 'Bearer "
    f"{OTHER_KEY}'}}",
    "api_key": f"GET https://api.example/v1?api_key={OTHER_KEY}&x=1",
    "key": f"GET https://api.example/v1?key={OTHER_KEY}&x=1",
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the application's own redacted handler writes, at DEBUG."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    redact(handler)
    logger = logging.getLogger("agent_runtime")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("name", MESSAGES)
async def test_it_is_nowhere_in_what_is_written(name: str, log: io.StringIO) -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    bus = EventBus()
    handler = AgentCallbackHandler(
        bus=bus, content=True, listeners=[RuntimeTracing(tracers).on_event]
    )
    async with AgentFactory(event_bus=bus, callback_handler=handler) as factory:
        refused = say("", fail=RuntimeError(MESSAGES[name]))
        factory.register_model("m", ScriptedChatModel(script=[refused]))
        agent = factory.create_agent(template(model="m"))
        with pytest.raises(CallError) as caught:
            await agent.execute("hi")
        logging.getLogger("agent_runtime.application").error(
            "the call failed", exc_info=caught.value
        )
    written = {
        "log": log.getvalue(),
        "ring": json.dumps([event.to_dict() for event in handler.events("*")], default=str),
        "wire": json.dumps([to_cloud_event(event) for event in bus.retained("*")], default=str),
        "spans": "".join(span.to_json() for span in exporter.get_finished_spans()),
    }
    for place, text in written.items():
        assert text, place
        assert GOOGLE_KEY not in text, place
        assert OTHER_KEY not in text, place
