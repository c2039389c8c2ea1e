"""Structured logs."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    ConfigurationError,
    LoggingMiddleware,
    Principal,
    configure_logging,
    gated,
)
from agent_runtime.monitoring import JsonFormatter, LogSink, redact
from agent_runtime.monitoring.logs import ConsoleFormatter
from agent_runtime.secrets.redaction import Redactor
from agent_runtime.testing import ScriptedChatModel, say

LOG = logging.getLogger("agent_runtime.test")


async def test_a_call_is_one_json_line_with_everything_but_its_content() -> None:
    stream = io.StringIO()
    sink = configure_logging("INFO", stream=stream)
    agent = AgentExecutor(
        create_agent(gated(ScriptedChatModel(script=[say("the answer")])), []),
        gated=True, pipeline=[LoggingMiddleware()], name="analyst", digest="abc",
    )  # fmt: skip
    await agent.with_caller(principal=Principal("ada", "acme")).execute(
        AgentContext("the question")
    )
    assert sink.drain()
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record["level"] == "INFO"
    assert record["logger"] == "agent_runtime.calls"
    names = ("tenant", "user", "template", "template_digest", "outcome", "cost_kind")
    assert [record[n] for n in names] == ["acme", "ada", "analyst", "abc", "completed", "exact"]
    assert record["model_calls"] == 1
    assert record["duration_s"] > 0
    assert "the answer" not in line
    assert "the question" not in line


async def test_content_is_logged_when_it_is_asked_for_and_redacted() -> None:
    stream = io.StringIO()
    sink = configure_logging("INFO", "console", stream=stream)
    agent = AgentExecutor(
        create_agent(gated(ScriptedChatModel(script=[say("your key is "
                                                         "sk-dummydummydummy1234")])), []),
        gated=True, pipeline=[LoggingMiddleware(content=True)],
    )  # fmt: skip
    await agent.execute("the question")
    assert sink.drain()
    assert "the question" in stream.getvalue()
    assert "your key is [redacted]" in stream.getvalue()


def test_tracebacks_and_arguments_are_redacted() -> None:
    stream = io.StringIO()
    secret = "dummy-canary-4711"
    redactor = Redactor()
    redactor.add(secret)
    configure_logging("DEBUG", stream=stream, redactor=redactor)
    try:
        raise ValueError(secret)
    except ValueError:
        LOG.exception(
            "failed with %s", secret, extra={"field": {"nested": [secret]}}, stack_info=True
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    redact(handler, redactor)
    LOG.addHandler(handler)
    LOG.error("again %s", secret, exc_info=ValueError(secret))
    LOG.removeHandler(handler)
    sink = next(h for h in logging.getLogger("agent_runtime").handlers if isinstance(h, LogSink))
    assert sink.drain()
    assert "Traceback" in stream.getvalue()
    assert "nested" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_a_record_that_cannot_be_formatted_shows_no_argument(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    sink = LogSink(stream)
    handler = logging.StreamHandler(stream)
    redact(handler)
    for each in (sink, handler):
        each.handle(
            logging.makeLogRecord(
                {"msg": "%d", "args": ("dummy-canary-4711",), "pathname": "here.py"}
            )
        )
    assert sink.drain()
    assert stream.getvalue().count("could not be formatted (TypeError): here.py") == 2
    assert "canary" not in stream.getvalue() + "".join(capsys.readouterr())


class Hanging(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(20)
        return super().write(text)


def test_a_sink_that_hangs_drops_and_counts_and_stalls_nobody() -> None:
    stream = Hanging()
    sink = LogSink(stream, JsonFormatter(), max_lines=10)
    for n in range(100):
        sink.handle(logging.makeLogRecord({"msg": f"line {n}", "levelname": "INFO"}))
    assert 85 <= sink.dropped <= 90  # ten wait, one or none is being written
    assert not sink.drain(0.05)
    stream.go.set()
    assert sink.drain()
    assert len(stream.getvalue().splitlines()) == 100 - sink.dropped


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
def test_what_a_caller_sends_neither_loses_nor_forges_a_line(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    sink = LogSink(stream, formatter)
    for fields in (
        {"msg": "\ud800", "session_id": "a\n12:00:00 INFO forged\ud800"},
        {"msg": "message\nforged"},
    ):
        sink.handle(logging.makeLogRecord({"levelname": "INFO", **fields}))
    assert sink.drain()
    assert sink.dropped == 0
    assert len(stream.getvalue().splitlines()) == 2


FORKING = """
import logging, os, sys
from agent_runtime import configure_logging
sink = configure_logging("INFO", stream=open(sys.argv[1], "a"))
log = logging.getLogger("agent_runtime.x")
log.info("parent")
assert sink.drain()
pid = os.fork()
log.info("child" if pid == 0 else "parent again")
assert sink.drain()
os._exit(0) if pid == 0 else os.wait()
"""


def test_a_forked_child_writes_its_lines(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "log")],
        check=True,
        timeout=50,
    )
    lines = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(lines) == ["child", "parent", "parent again"]


def test_a_closed_stream_is_no_failure() -> None:
    stream = io.StringIO()
    stream.close()
    sink = LogSink(stream)
    sink.handle(logging.makeLogRecord({"msg": "x"}))
    assert sink.drain()
    assert sink.dropped == 1


@pytest.mark.parametrize(("level", "form"), [("verbose", "json"), ("INFO", "xml"), ("", "json")])
def test_wrong_settings_are_refused(level: str, form: Any) -> None:
    with pytest.raises(ConfigurationError):
        configure_logging(level, form)
