"""Whose an event is.

Ids are known by source and tenant, and who can write to a log cannot make one of a sealed log.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.waiting import FAST, until

from agent_runtime import ConfigurationError, Event, EventBus, InputInvalid
from agent_runtime.event_bus.brokers import MemoryBroker, SqliteBroker, open_broker
from agent_runtime.event_bus.cloud_event import encode_event, from_cloud_event
from agent_runtime.event_bus.consumer import EventConsumer
from agent_runtime.event_bus.deduplication import MemoryDeduplicationStore, SqliteDeduplicationStore
from agent_runtime.event_bus.event_seal import EventSeal

KEY = b"a seal's key of the tests, 32 bytes or more"
OTHER_KEY = b"another key of the tests, 32 bytes or more!"


def event(
    data: Any, *, tenant: str | None = "a", source: str = "bus", own_id: str = "id-1"
) -> Event:
    """Return an event that says who it is."""
    return Event("custom.x", data, tenant=tenant, source=source, seq=1, own_id=own_id)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_ids_of_another_tenant_or_source_hide_nothing(store: str, tmp_path: Path) -> None:
    """Forged ids come first, under another tenant or source.

    The real event is handled all the same.
    """
    seen = (
        MemoryDeduplicationStore()
        if store == "memory"
        else SqliteDeduplicationStore(str(tmp_path / "seen.db"))
    )
    forged = [
        event("forged", tenant="b"),
        event("forged", source="other"),
        event("forged", tenant="a/bus"),
    ]
    handled: list[Event] = []

    async def handle(each: Event) -> None:
        handled.append(each)

    # One log for each: what a log itself drops as repeated is not what is tested.
    for number, each in enumerate([*forged, event("real"), event("real")]):
        broker = MemoryBroker()
        async with EventConsumer(broker, "c", handle, seen_ids=seen, **FAST) as consumer:
            await broker.publish([each])
            await until(lambda: consumer.handled + consumer.duplicates == 1)
            assert consumer.duplicates == (number == 4)
    assert [each.data for each in handled] == ["forged"] * 3 + ["real"]
    await seen.aclose()


async def test_a_known_id_with_other_contents_is_told_and_not_handled() -> None:
    bus = EventBus()
    seen = MemoryDeduplicationStore()
    handled: list[Any] = []

    async def handle(each: Event) -> None:
        handled.append(each.data)

    for data in ("one", "one", "other"):
        broker = MemoryBroker()
        async with EventConsumer(broker, "c", handle, seen_ids=seen, bus=bus, **FAST) as consumer:
            await broker.publish([event(data)])
            await until(lambda: consumer.handled + consumer.duplicates == 1)
    assert handled == ["one"]
    (conflict,) = bus.retained("bus.conflict")
    assert (conflict.data["event_id"], conflict.tenant) == ("id-1", "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(
    JSON, st.sampled_from(["tenant", "data", "depth", "type", "user_id", "source", "occurred_at"])
)
def test_a_seal_holds_over_every_attribute(data: Any, changed: str) -> None:
    seal = EventSeal(KEY, "main")
    original = event(data)
    sent = encode_event(original, seal)
    assert from_cloud_event(sent, seal).data == from_cloud_event(encode_event(original)).data
    other: dict[str, Any] = {
        "tenant": "b", "data": ["other", data], "depth": 5, "type": "custom.y", "user_id": "eve",
        "source": "s",
        "occurred_at": 5.0,
    }  # fmt: skip
    forged = json.loads(encode_event(_with(original, changed, other[changed])))
    forged["seal"] = json.loads(sent)["seal"]
    with pytest.raises(InputInvalid, match="not sealed"):
        from_cloud_event(forged, seal)
    for unsealed in (
        encode_event(original),
        encode_event(original, EventSeal(OTHER_KEY, "main")),
        encode_event(original, EventSeal(KEY, "x")),
    ):
        with pytest.raises(InputInvalid, match="not sealed"):
            from_cloud_event(unsealed, seal)


def _with(original: Event, name: str, value: Any) -> Event:
    given = {field.name: getattr(original, field.name) for field in dataclasses.fields(original)}
    return Event(**{**given, name: value})


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_event_put_into_a_sealed_log_by_another_is_unreadable(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
    else:
        url = f"sqlite:{tmp_path / 'events.db'}"
    ours = open_broker(url, seal_key=KEY)
    theirs = open_broker(url)
    await ours.publish([event("ours")])
    await theirs.publish([event("forged", own_id="id-2")])
    read = [stored.event for stored in await ours.read()]
    assert [each.type for each in read] == ["custom.x", "bus.unreadable"]
    assert "not sealed" in read[1].data["reason"]
    await ours.aclose()
    await theirs.aclose()


def test_an_event_key_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    for key in (b"short", b"a" * 40):
        with pytest.raises(ConfigurationError, match="key"):
            SqliteBroker(str(tmp_path / "e.db"), seal_key=key)
