"""Events on the wire are CloudEvents that others read, and that we read back.

Each type keeps to its schema.
"""

from __future__ import annotations

import ast
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

import agent_runtime
from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentFactory,
    CallError,
    Event,
    EventBus,
    InputInvalid,
    SessionManager,
)
from agent_runtime.event_bus import EVENT_TYPES
from agent_runtime.event_bus.cloud_event import (
    encode_event,
    from_cloud_event,
    read_event,
    to_cloud_event,
    to_jsonable,
)
from agent_runtime.event_bus.event_types import CUSTOM_PREFIX, schemas

SRC = Path(agent_runtime.__file__).parent
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JSON, NAMES, NAMES, NAMES, NAMES, st.integers(0, 4_000_000_000), st.integers(0, 9))
def test_every_event_comes_back_as_it_went(
    data: Any, run: Any, session: Any, tenant: Any, user: Any, occurred_at: int, depth: int
) -> None:
    event = EventBus().stamp(
        Event(
            "custom.x",
            data,
            run,
            session,
            user,
            occurred_at,
            tenant,
            "agent",
            cause="c" if depth else None,
            depth=depth,
        )
    )
    back = from_cloud_event(encode_event(event))
    for name in (
        "type",
        "data",
        "run_id",
        "session_id",
        "user_id",
        "occurred_at",
        "tenant",
        "agent",
        "source",
        "seq",
        "cause",
        "depth",
    ):
        assert getattr(back, name) == getattr(event, name), name
    assert (back.id, back.stream) == (event.id, event.stream)
    assert to_cloud_event(back) == to_cloud_event(event)


@given(JSON, NAMES)
def test_the_standards_own_library_reads_them(data: Any, session: Any) -> None:
    event = EventBus().stamp(Event("custom.x", data, session_id=session))
    read = JSONFormat().read(None, encode_event(event))
    attributes = read.get_attributes()
    assert (attributes["id"], attributes["source"], attributes["type"]) == (
        event.id,
        event.source,
        event.type,
    )
    assert attributes["time"].timestamp() == pytest.approx(event.occurred_at, abs=1e-3)
    assert read.get_data() == data
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in attributes)


@given(st.binary(max_size=200) | TEXT | JSON)
def test_anything_else_is_refused_by_one_error(given_: Any) -> None:
    with pytest.raises(InputInvalid):
        from_cloud_event(
            given_ if isinstance(given_, bytes | str) else {"specversion": "1.0", "data": given_}
        )
    assert read_event(given_, "7").type == "bus.unreadable"


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"}, {"id": ""}, {"id": 1}, {"type": None}, {"source": []},
        {"time": "yesterday"},
        {"time": 5}, {"sequence": "-1"}, {"sequence": "1e3"}, {"sequence": True},
        {"sequence": "9" * 30},
        {"causationdepth": 1.5}, {"tenant": 7}, {"runid": {}},
        {"time": "0001-01-01T00:00:00+23:59"}, {"time":
        "2026-01-01T00:00:00"},
    ],
)  # fmt: skip
def test_attributes_that_cannot_be_are_named(change: dict[str, Any]) -> None:
    good = to_cloud_event(EventBus().stamp(Event("custom.x")))
    with pytest.raises(InputInvalid) as raised:
        from_cloud_event({**good, **change})
    assert raised.value.path == next(iter(change))


def test_what_is_no_json_is_said_in_json() -> None:
    from dataclasses import dataclass

    @dataclass
    class Point:
        x: int
        parts: tuple[int, ...]

    message = to_jsonable(AIMessage("hi", id="m"))
    assert (message["type"], message["content"], message["id"]) == ("ai", "hi", "m")
    assert to_jsonable([Decimal("1.50"), math.nan, Point(1, (2, 3)), {1: {4}}, Path("a")]) == [
        "1.50", "nan", {"x": 1, "parts": [2, 3]}, {"1": [4]}, "a",
    ]  # fmt: skip
    with pytest.raises(InputInvalid, match="at most"):
        encode_event(EventBus().stamp(Event("custom.x", "word " * 2_000_000)))


def test_secrets_do_not_leave() -> None:
    from agent_runtime.secrets.redaction import SECRETS

    SECRETS.add("dummy-secret-of-events-1234")
    event = EventBus().stamp(
        Event("custom.x", {"a": ["dummy-secret-of-events-1234"], "password": "hunter2hunter2"})
    )
    assert b"dummy-secret-of-events-1234" not in encode_event(event)
    assert json.loads(encode_event(event)) == to_cloud_event(event)


# -- the closed set


def test_every_type_has_a_valid_schema_and_a_description() -> None:
    for name, schema in schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert EVENT_TYPES[name].description.endswith(".")
        assert set(schema["required"]) <= set(schema["properties"]), name


def test_the_sources_publish_no_other_types() -> None:
    said = set[str]()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("Event", "call_event")
                and node.args
            ):
                first = node.args[0]
                said |= {str(first.value)} if isinstance(first, ast.Constant) else set()
    assert {"bus.gap", "budget.warning", "retry.again", "schedule.due"} <= said
    assert {name for name in said if not name.startswith(CUSTOM_PREFIX)} <= set(EVENT_TYPES)


async def test_what_runs_publish_keeps_to_the_schemas() -> None:
    bus = EventBus()
    seen = list[Event]()
    handler = AgentCallbackHandler(
        bus=bus, content=True, capture=["run", "llm", "token", "tool", "interrupt"]
    )
    events = bus.subscribe(buffer=100_000)
    async with AgentFactory(
        event_bus=bus,
        callback_handler=handler,
        session_manager=SessionManager(),
        rate_limits=["3/hour"],
    ) as factory:
        agent = factory.create_from_template("analyst")
        async with agent.execute_stream(
            AgentContext("What is the total amount in the North?", session_id="s")
        ) as stream:
            _ = [text async for text in stream]
        assert factory.session_manager is not None
        fork = await factory.session_manager.checkpoints.fork("s")
        await factory.session_manager.delete_session(fork.id)
        await agent.execute("x")
        await agent.execute("x")
        with pytest.raises(CallError):
            await agent.execute("one too many")
    seen = [event async for event in events]
    types = {event.type for event in seen}
    assert {
        "session.created",
        "session.forked",
        "session.deleted",
        "session.turn_start",
        "session.turn_end",
    } <= types
    assert {"rate_limit.refused", "run.error", "llm.new_token", "tool.end"} <= types
    for event in seen:
        jsonschema.validate(to_cloud_event(event)["data"], EVENT_TYPES[event.type].schema)
    streams: dict[str, list[int]] = {}
    for event in seen:
        streams.setdefault(event.stream, []).append(event.seq)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in streams.values())


@pytest.mark.parametrize(
    "text",
    [
        "first\nsk-proj-0123456789abcdefghij",
        'say password="hunter2hunter2"',
        'pw pässw"ord-1234567',
        "\tBearer abcdefghijkl",
    ],
)
def test_secrets_behind_what_json_escapes_do_not_leave_either(text: str) -> None:
    from agent_runtime.secrets.redaction import SECRETS

    SECRETS.add('pässw"ord-1234567')
    stored = encode_event(EventBus().stamp(Event("custom.x", {"a": [text]}))).decode()
    assert "redacted" in stored
    for secret in ("0123456789", "hunter2", "ord-1234567", "abcdefghijkl"):
        assert secret not in stored


def test_what_is_called_a_secret_is_none_of_the_logs() -> None:
    data = {"api_key": "abcdefgh", "token": "abcdefgh", "input_tokens": 5, "key": "plain"}
    event = EventBus().stamp(Event("custom.x", data))
    masked = {"api_key": "[redacted]", "token": "[redacted]", "input_tokens": 5, "key": "plain"}
    assert to_cloud_event(event)["data"] == json.loads(encode_event(event))["data"] == masked


@pytest.mark.parametrize(
    "kind", ["batch.execution", "pool.context", "provider.limit", "session.deleted"]
)
def test_a_reason_of_the_first_release_is_read_under_its_present_name(kind: str) -> None:
    stored = to_cloud_event(Event(kind, {"why": "expired", "other": 1}))
    assert from_cloud_event(stored).data == {"reason": "expired", "other": 1}
    stored = to_cloud_event(Event("custom.x", {"why": "mine"}))
    assert from_cloud_event(stored).data == {"why": "mine"}


@pytest.mark.parametrize("kind", ["batch.execution", "mcp.server"])
def test_a_state_of_an_older_log_is_read_as_a_status(kind: str) -> None:
    stored = to_cloud_event(Event(kind, {"state": "open", "other": 1}))
    assert from_cloud_event(stored).data == {"status": "open", "other": 1}
