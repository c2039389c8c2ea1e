"""Prometheus metrics and OpenTelemetry spans of runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentFactory,
    AgentFailed,
    Budget,
    CallbackEvent,
    ConcurrencyLimit,
    ConfigurationError,
    Event,
    EventConsumer,
    MemoryBroker,
    MemoryLedger,
    PriceTable,
    Principal,
    RuntimeMetrics,
    RuntimeTracing,
    parse_template,
)
from agent_runtime.testing import ScriptedChatModel, say
from agent_runtime.testing.conformance.broker_events import make_events

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: analyst}\n"


def factory(**seats: Any) -> AgentFactory:
    made = AgentFactory(
        ledger=MemoryLedger(),
        budgets=[Budget("tenant", usd=100, per="day")],
        prices=PriceTable({"scripted:*": {"input": 1000, "output": 1000}}),
        concurrency=[ConcurrencyLimit(5)],
        **seats,
    )

    @tool
    async def look(place: str) -> str:
        """Look."""
        if place == "nowhere":
            raise ValueError("no such place")
        return "found"

    made.register_tool("look", look)
    return made


def samples(metrics: RuntimeMetrics) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of the labels' names."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            values = [value for _, value in sorted(sample.labels.items())]
            found[(sample.name.removeprefix("agent_runtime_"), *values)] = sample.value
    return found


async def test_a_run_is_counted_in_every_metric() -> None:
    metrics = RuntimeMetrics()
    made = factory(metrics=metrics)
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "input_token_details": {"cache_read": 4},
    }
    answers = [say("", ("look", {"place": "here"}), usage=usage), say("done", usage=usage)]
    made.register_model("m", ScriptedChatModel(script=answers))
    agent = made.create_agent(parse_template(f"{HEAD}spec: {{model: m, tools: [look]}}\n"))
    async with agent.with_caller(principal=Principal("ada", "acme")).execute_stream("x") as stream:
        async for _ in stream:
            pass
    found = samples(metrics)
    assert found[("runs_total", "completed", "analyst", "acme")] == 1
    assert found[("run_duration_seconds_count", "analyst")] == 1
    assert found[("runs_active", "analyst")] == 0
    (model,) = {key[1] for key in found if key[0] == "model_calls_total"}
    assert found[("model_calls_total", model, "ok", "analyst")] == 2
    assert found[("model_call_duration_seconds_count", model)] == 2
    assert found[("time_to_first_token_seconds_count", model)] == 2
    assert found[("tokens_total", "input_tokens", model, "analyst")] == 20
    assert found[("tokens_total", "output_tokens", model, "analyst")] == 40
    assert found[("tokens_total", "cache_read_tokens", model, "analyst")] == 8
    assert found[("cost_usd_total", "exact", model, "analyst", "acme")] == pytest.approx(0.06)
    assert found[("tool_calls_total", "ok", "analyst", "look")] == 1
    assert found[("budget_used_ratio", "tenant=acme/day")] == pytest.approx(0.0006)
    for layer in ("logging", "cost", "retry"):
        assert found[("layer_seconds_count", layer)] == 1
    assert found[("waiting", "concurrency")] == 0
    assert found[("dropped", "bus")] == 0


async def test_failures_are_counted_by_their_code() -> None:
    metrics = RuntimeMetrics()
    made = factory(metrics=metrics)
    made.register_model("m", ScriptedChatModel(script=[say("", ("look", {"place": "nowhere"}))]))
    agent = made.create_agent(parse_template(f"{HEAD}spec: {{model: m, tools: [look]}}\n"))
    with pytest.raises(AgentFailed):
        await agent.execute("x")
    found = samples(metrics)
    assert found[("runs_total", "agent_failed", "analyst", "default")] == 1
    assert found[("tool_calls_total", "ValueError", "analyst", "look")] == 1
    assert all(value == 0 for key, value in found.items() if key[0] == "waiting")


def attack(metrics: RuntimeMetrics, count: int) -> None:
    for n in range(count):
        data = {
            "input_tokens": 5,
            "output_tokens": 5,
            "cost_usd": "0.1",
            "estimated": False,
            "first_token_s": 0.1,
        }
        common: dict[str, Any] = {"tenant": f"tenant-{n}", "template": f"template-{n}"}
        metrics.on_event(CallbackEvent("run_start", f"{n}", f"template-{n}", **common))
        metrics.on_event(
            CallbackEvent("llm_end", f"{n}", f"model-{n}", duration_s=0.1, data=data, **common)
        )
        metrics.on_event(
            CallbackEvent("tool_end", f"{n}", f"tool-{n}", data={"error": f"E{n}"}, **common)
        )
        metrics.on_event(
            CallbackEvent("run_end", f"{n}", "x", duration_s=0.1, data={"error": f"E{n}"}, **common)
        )


@pytest.mark.integration
def test_fifty_thousand_tenants_and_models_leave_ten_thousand_series_and_a_quick_scrape() -> None:
    metrics = RuntimeMetrics()
    attack(metrics, 50_000)
    started = time.process_time()
    text = metrics.render()
    assert time.process_time() - started < 1.0
    series = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    assert len(series) <= 10_000
    found = samples(metrics)
    assert (
        sum(v for k, v in found.items() if k[0] == "runs_total") == 50_000
    )  # none is lost: the rest is `other`
    assert found[("runs_total", "other", "other", "other")] > 40_000
    attack(metrics, 10)  # those that are known go on to be
    assert samples(metrics)[("runs_total", "E1", "template-1", "tenant-1")] == 2


def test_more_tenants_than_series_are_counted_as_other() -> None:
    metrics = RuntimeMetrics(max_series=1_000)
    attack(metrics, 2_000)
    series = [
        line for line in metrics.render().decode().splitlines() if line and not line.startswith("#")
    ]
    assert len(series) <= 1_000
    assert (
        sum(value for name, value in samples(metrics).items() if name[0] == "runs_total") == 2_000
    )


def test_labels_are_short_and_hold_no_secret() -> None:
    metrics = RuntimeMetrics()
    metrics.on_event(
        CallbackEvent("tool_end", "1", "sk-dummydummydummydummy", template="x" * 1000, data={})
    )
    text = metrics.render().decode()
    assert "dummydummy" not in text
    assert "x" * 129 not in text


async def test_three_ways_to_see_them(tmp_path: Path) -> None:
    metrics = RuntimeMetrics(max_series=1000)
    attack(metrics, 1)
    metrics.write(tmp_path / "metrics.prom")
    assert b"agent_runtime_runs_total" in (tmp_path / "metrics.prom").read_bytes()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await metrics.asgi_app()(scope, receive, send)
    assert sent[0]["status"] == 200
    assert b"agent_runtime_runs_total" in sent[1]["body"]
    with pytest.raises(ConfigurationError):
        RuntimeMetrics(max_series=10)


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: CallbackEvent) -> None:
        raise RuntimeError("broken")

    heard: list[CallbackEvent] = []
    handler = AgentCallbackHandler(listeners=[fail, heard.append])
    handler.record(CallbackEvent("run_start", "1"))
    assert len(heard) == 1
    assert "a listener failed" in caplog.text


async def test_spans_of_a_run_its_models_and_its_tools() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = RuntimeTracing(provider)
    made = factory(callback_handler=AgentCallbackHandler(listeners=[tracing.on_event]))
    made.register_model(
        "m", ScriptedChatModel(script=[say("", ("look", {"place": "here"})), say("done")])
    )
    made.register_model(
        "o",
        ScriptedChatModel(
            script=lambda m: say("end") if len(m) > 2 else say("", ("inner", {"request": "q"}))
        ),
    )
    made.register_template(
        parse_template(f"{HEAD.replace('analyst', 'inner')}spec: {{model: m, tools: [look]}}\n")
    )
    outer = made.create_agent(
        parse_template(f"{HEAD}spec: {{model: o, tools: [{{agent: inner}}]}}\n")
    )
    with provider.get_tracer("app").start_as_current_span("request"):
        await outer.with_caller(principal=Principal("ada", "acme")).execute(
            AgentContext("the question")
        )
    spans: Any = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    parents = sorted(
        (span.name, names.get(span.parent.span_id) if span.parent else None) for span in spans
    )
    model = next(span.name for span in spans if span.name.startswith("chat "))
    assert parents == [
        *[(model, "invoke_agent analyst")] * 2,
        *[(model, "invoke_agent inner")] * 2,
        ("execute_tool inner", "invoke_agent analyst"),
        ("execute_tool look", "invoke_agent inner"),
        ("invoke_agent analyst", "request"),
        ("invoke_agent inner", "invoke_agent analyst"),
        ("request", None),
    ]
    chat = next(span for span in spans if span.name == model)
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert chat.attributes["agent_runtime.tenant"] == "acme"
    assert "the question" not in repr([span.attributes for span in spans])
    assert tracing._open_spans == {}


async def test_a_failed_run_has_a_failed_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made = factory(
        callback_handler=AgentCallbackHandler(listeners=[RuntimeTracing(provider).on_event])
    )
    made.register_model("m", ScriptedChatModel(script=[say("", ("look", {"place": "nowhere"}))]))
    with pytest.raises(AgentFailed):
        await made.create_agent(
            parse_template(f"{HEAD}spec: {{model: m, tools: [look]}}\n")
        ).execute("x")
    failed: Any = {
        s.name: s.attributes
        for s in exporter.get_finished_spans()
        if not s.status.is_ok and s.attributes
    }
    assert failed["execute_tool look"]["error.type"] == "ValueError"
    assert failed["invoke_agent analyst"]["error.type"] == "agent_failed"


async def test_how_far_a_consumer_is_behind_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.event_bus.consumer.LAG_INTERVAL_S", 0.01)
    broker = MemoryBroker()
    metrics = RuntimeMetrics()
    going = asyncio.Event()

    async def handle(event: Event) -> None:
        await going.wait()

    await broker.publish(make_events(7))
    async with EventConsumer(broker, "billing", handle) as consumer:
        metrics.watch_lag(consumer)
        await asyncio.sleep(0.05)
        assert 'agent_runtime_consumer_lag{consumer="billing"} 7.0' in metrics.render().decode()
        going.set()
        while consumer.last_lag:
            await asyncio.sleep(0.01)
    assert 'agent_runtime_consumer_lag{consumer="billing"} 0.0' in metrics.render().decode()
