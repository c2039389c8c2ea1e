"""A secret in twelve places is in no output.

Logs, events, metrics, traces, errors, the command line, stores.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, SecretStr, ValidationError
from tests.support.canary import CANARY

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentFactory,
    AgentFailed,
    AgentRuntimeError,
    Budget,
    CallbackEvent,
    EventBus,
    Principal,
    RedisLedger,
    RuntimeMetrics,
    RuntimeTracing,
    SqliteLedger,
    configure_logging,
    parse_template,
)
from agent_runtime.event_bus import Event
from agent_runtime.monitoring import redact
from agent_runtime.secrets.redaction import SECRETS, Redactor
from agent_runtime.settings import read_settings
from agent_runtime.testing import ScriptedChatModel, say

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged at DEBUG, as our sink and as a redacted handler of the application
    write it."""
    stream = io.StringIO()
    monkeypatch.setenv("DUMMY_API_KEY", CANARY)
    sink = configure_logging("DEBUG", stream=stream)
    root = logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    redact(handler)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    assert sink.drain()
    root.removeHandler(handler)
    root.setLevel(level)
    assert CANARY not in stream.getvalue()
    assert stream.getvalue()


LOG = logging.getLogger("agent_runtime.canary")


def test_environment_and_header(out: io.StringIO) -> None:  # 1, 2
    LOG.debug("environment %s", dict(os.environ))
    LOG.debug("headers %s", {"Authorization": f"Bearer {CANARY}", "x-api-key": CANARY})


def test_url_and_dsn(out: io.StringIO) -> None:  # 3, 4
    from urllib.parse import quote

    LOG.debug("GET https://host/path?key=%s", quote(CANARY))
    url = f"redis://user:{CANARY}@127.0.0.1:1/0"
    with pytest.raises(AgentRuntimeError) as failed:
        RedisLedger(url).balances().run()
    LOG.exception("no ledger at %s", url, exc_info=failed.value)
    assert CANARY not in str(failed.value)
    assert CANARY not in repr(read_settings({"AGENT_RUNTIME_LEDGER": url}))


class Inner(BaseModel):
    """Wants a number."""

    number: int
    secret: SecretStr


@tool
async def leak(secret: str) -> str:
    """Fail with everything that it has."""
    token = secret
    try:
        Inner.model_validate({"number": token, "secret": token})
    except ValidationError as error:
        raise RuntimeError(f"cannot use {token}") from error
    return "no"


@pytest.mark.parametrize("content", [False, True])
async def test_tool_argument_exception_pydantic_and_traceback(  # 5, 6, 7, 8
    out: io.StringIO, content: bool, tmp_path: Path
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = RuntimeMetrics()
    bus = EventBus()
    handler = AgentCallbackHandler(
        content=content, bus=bus, listeners=[RuntimeTracing(provider).on_event]
    )
    ledger = SqliteLedger(tmp_path / "ledger.db")
    factory = AgentFactory(
        callback_handler=handler,
        event_bus=bus,
        metrics=metrics,
        ledger=ledger,
        budgets=[Budget("run", tokens=100_000)],
    )
    factory.register_tool("leak", leak)
    factory.register_model("m", ScriptedChatModel(script=[say("", ("leak", {"secret": CANARY}))]))
    agent = factory.create_agent(
        parse_template(
            f"{HEAD}spec: {{model: m, tools: [leak], runtime: {{logging: {{content: true}}}}}}\n"
        )
    )
    async with bus.subscribe() as events:
        with pytest.raises(AgentFailed) as failed:
            await agent.with_caller(principal=Principal("ada"), credentials=CANARY).execute(
                AgentContext(f"use {CANARY}")
            )
        bus.close()
        LOG.exception("failed", exc_info=failed.value)
        published = [event async for event in events]
    assert published
    shown = [
        json.dumps(handler.to_dict(), default=str),
        metrics.render().decode(),
        repr([(s.name, s.attributes, s.events) for s in exporter.get_finished_spans()]),
        repr(AgentContext("x", credentials=CANARY)),
    ]
    await factory.__aexit__()
    shown.append((tmp_path / "ledger.db").read_bytes().decode("latin-1"))
    for text in shown:
        assert text
        assert CANARY not in text


def test_config_repr_metric_label_and_event(out: io.StringIO) -> None:  # 9, 10, 11
    settings = read_settings(
        {"AGENT_RUNTIME_SESSION_KEY": CANARY, "AGENT_RUNTIME_KEY_PEPPER": CANARY}
    )
    LOG.debug("settings %s %s", settings, settings.describe())
    assert CANARY not in repr(settings)
    metrics = RuntimeMetrics()
    metrics.on_event(
        CallbackEvent(
            "tool_end", "1", CANARY, tenant=CANARY, template=CANARY, data={"error": CANARY}
        )
    )
    assert CANARY not in metrics.render().decode()
    event = CallbackEvent("llm_error", "1", "m", data={"error": CANARY, "deep": [{"key": CANARY}]})
    assert CANARY not in json.dumps(event.to_dict())
    LOG.debug("event %s", Event("x", {"a": CANARY}))


def test_child_environment_and_the_command_line(tmp_path: Path) -> None:  # 12
    template = tmp_path / "t.yaml"
    template.write_text(
        f"{HEAD}spec: {{model: {{id: 'openai:gpt-5-mini', api_key: {{from_env: "
        "DUMMY_API_KEY}}}\n"
    )
    environment = {
        **os.environ,
        "DUMMY_API_KEY": CANARY,
        "AGENT_RUNTIME_HOME": str(tmp_path / "home"),
        "AGENT_RUNTIME_LOG_LEVEL": "DEBUG",
        "AGENT_RUNTIME_SESSION_KEY": CANARY,
        "AGENT_RUNTIME_LEDGER": f"redis://user:{CANARY}@127.0.0.1:1/0",
        "OPENAI_BASE_URL": "http://127.0.0.1:1",
    }
    commands = [
        [sys.executable, "-m", "agent_runtime", *arguments]
        for arguments in (
            ["doctor"],
            ["run", str(template), f"say {CANARY}"],
            ["run", CANARY, "x"],
            ["keys", "revoke", CANARY],
        )
    ]
    how: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": tmp_path,
    }
    for process in [subprocess.Popen(command, env=environment, **how) for command in commands]:
        stdout, stderr = process.communicate()
        assert CANARY not in stdout + stderr, process.args
        assert "Traceback" not in stderr
    for path in (tmp_path / "home").glob("**/*"):
        assert CANARY.encode() not in path.read_bytes()


def test_the_registry_knows_what_was_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_API_KEY", CANARY)
    SECRETS.add_environment()
    assert SECRETS.text(CANARY) == "[redacted]"
    assert Redactor().text(CANARY) == CANARY  # it is found by its value, not by a form
