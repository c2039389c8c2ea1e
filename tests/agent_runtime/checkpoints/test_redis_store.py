"""Long-term memory: ours on Redis beside LangGraph's own, as agents see it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from langgraph.config import get_store
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from tests.support.providers import template

from agent_runtime import (
    AgentFactory,
    AgentTemplate,
    CheckpointCorrupt,
    ConfigurationError,
    Principal,
    TemplateError,
)
from agent_runtime.checkpoints.redis_store import _StoreOperations
from agent_runtime.sessions import RedisStore
from agent_runtime.storage.redis_connection import RedisConnection
from agent_runtime.testing import ScriptedChatModel, say


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BaseStore]:
    """LangGraph's own stores as they come, and ours."""
    if request.param == "memory":
        yield InMemoryStore()
    elif request.param == "sqlite":
        async with AsyncSqliteStore.from_conn_string(str(tmp_path / "m.db")) as opened:
            await opened.setup()
            yield opened
    else:
        url = f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
        async with RedisStore.from_conn_string(url) as ours:
            yield ours


async def test_a_store_keeps_finds_and_forgets(store: BaseStore) -> None:
    await store.aput(("users", "ada"), "food", {"likes": "tea", "n": 3})
    await store.aput(("users", "ada"), "city", {"lives": "Porto", "n": 5})
    await store.aput(("users", "bob"), "food", {"likes": "tea", "n": 1})
    found = await store.aget(("users", "ada"), "food")
    assert found is not None
    assert (found.value, found.namespace, found.key) == (
        {"likes": "tea", "n": 3},
        ("users", "ada"),
        "food",
    )
    assert await store.aget(("users", "ada"), "drink") is None
    assert {i.key for i in await store.asearch(("users", "ada"))} == {"food", "city"}
    assert {i.namespace for i in await store.asearch(("users",), filter={"likes": "tea"})} == {
        ("users", "ada"), ("users", "bob"),
    }  # fmt: skip
    assert [i.value["n"] for i in await store.asearch(("users",), filter={"n": {"$gt": 3}})] == [5]
    assert len(await store.asearch(("users",), limit=2)) == 2
    assert len(await store.asearch(("users",), limit=2, offset=2)) == 1
    assert await store.alist_namespaces(prefix=("users",)) == [("users", "ada"), ("users", "bob")]
    assert await store.alist_namespaces(max_depth=1) == [("users",)]
    assert await store.alist_namespaces(suffix=("bob",)) == [("users", "bob")]
    await store.adelete(("users", "ada"), "food")
    assert await store.aget(("users", "ada"), "food") is None
    assert (await store.asearch(("user",))) == []


async def test_an_agent_remembers_beyond_its_sessions(store: BaseStore) -> None:
    @tool
    async def remember(fact: str) -> str:
        """Remember a fact."""
        await get_store().aput(("facts",), fact, {"fact": fact})
        return f"{len(await get_store().asearch(('facts',)))} facts"

    script: Any = lambda m: (  # noqa: E731
        say(m[-1].text) if m[-1].type == "tool" else say("", ("remember", {"fact": m[-1].text}))
    )
    factory = AgentFactory()
    factory.register_model("script", ScriptedChatModel(script=script))
    factory.register_tool("remember", remember)
    factory.register_memory("facts", store)
    facts = AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "t"},
            "spec": {"model": "script", "tools": ["remember"], "memory": "facts"},
        }
    )
    agent = factory.create_agent(facts)
    assert (await agent.execute("tea")).output == "1 facts"
    assert (await agent.execute("cake")).output == "2 facts"


def test_a_memory_has_to_be_a_store_and_known() -> None:
    factory = AgentFactory()
    with pytest.raises(ConfigurationError, match="not a LangGraph store"):
        factory.register_memory("m", {})  # type: ignore[arg-type]
    with pytest.raises(TemplateError, match="unknown memory 'm'"):
        factory.create_from_template("writer", memory="m")


async def test_items_expire_and_are_refreshed(redis_url: str) -> None:
    async with RedisStore.from_conn_string(f"{redis_url}?prefix={uuid.uuid4().hex}") as store:
        await store.aput(("a",), "short", {"x": 1}, ttl=0.3 / 60)
        await store.aput(("a",), "used", {"x": 1}, ttl=0.3 / 60)
        await asyncio.sleep(0.2)
        assert await store.aget(("a",), "used", refresh_ttl=True) is not None
        await asyncio.sleep(0.2)
        assert [i.key for i in await store.asearch(("a",))] == ["used"]
        assert await store.aget(("a",), "short") is None


async def test_items_are_sealed(redis_url: str) -> None:
    url = f"{redis_url}?prefix={uuid.uuid4().hex}"
    async with RedisStore.from_conn_string(
        url, mac_key=b"a key of the tests with 32 bytes"
    ) as store:
        await store.aput(("a",), "one", {"x": 1})
        await store.aput(("a",), "two", {"x": 2})
        raw = RedisConnection(url)
        base = f"{{{raw.prefix}:memory}}"

        def swap() -> Any:
            data = yield "get", f"{base}:a\x1f\x1etwo"
            yield "set", f"{base}:a\x1f\x1eone", data

        await raw.arun(swap())
        await raw.aclose()
        with pytest.raises(CheckpointCorrupt):
            await store.aget(("a",), "one")


names = st.text("ab\x1d\x1e\x1fske%\U0001f600", min_size=1, max_size=3)
operations = st.lists(
    st.tuples(st.booleans(), st.lists(names, min_size=1, max_size=3).map(tuple), names,
    st.integers(0, 3)),
    max_size=12,
)  # fmt: skip


@given(operations, st.lists(names, max_size=2).map(tuple))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_it_answers_as_langgraphs_own_store(
    redis_url: str, steps: Any, prefix: tuple[str, ...]
) -> None:
    connection = RedisConnection(f"{redis_url}?prefix={uuid.uuid4().hex}")
    ours = RedisStore(connection)
    theirs = InMemoryStore()
    for kept, namespace, key, value in steps:
        for each in (ours, theirs):
            if kept:
                each.put(namespace, key, {"v": value})
            else:
                each.delete(namespace, key)
    filters: list[Any] = [None, {"v": 1}, {"v": {"$gte": 2}}]
    for wanted in filters:
        mine, other = (
            sorted(
                (i.namespace, i.key, i.value["v"])
                for i in s.search(prefix, filter=wanted, limit=100)
            )
            for s in (ours, theirs)
        )
        assert mine == other
    in_use = {
        item.namespace for item in theirs.search((), limit=100)
    }  # LangGraph lists emptied ones, too
    assert set(ours.list_namespaces()) == in_use
    asyncio.run(connection.aclose())


@given(names, names, names)
@settings(max_examples=60, deadline=None)
def test_a_label_reaches_into_no_other_namespace(tenant: str, user: str, key: str) -> None:
    """Two namespaces are one only when they are equal, whatever separators of ours their labels
    have."""
    store: Any = _StoreOperations(cast("Any", SimpleNamespace(prefix="p")), cast("Any", None))
    for joined in (
        f"{tenant}\x1f{user}",
        f"{tenant}\x1es{user}",
        f"{tenant}\x1ds{user}",
        f"{tenant}\x1f\x1e{user}",
    ):
        assert store._name((joined,), key) != store._name((tenant, user), key)
        assert store._name((tenant,), joined) != store._name((tenant, user), key)


async def test_each_tenant_has_a_memory_of_its_own(store: BaseStore) -> None:
    """The same tool, asking for the same names, finds what its own tenant has said."""

    @tool
    async def remember(fact: str) -> str:
        """Remember a fact."""
        memory = get_store()
        await memory.aput(("facts",), fact, {"fact": fact})
        everything = [item.value["fact"] for item in await memory.asearch((), limit=100)]
        read = (
            [memory.search((), limit=100), memory.list_namespaces()]
            if isinstance(store, InMemoryStore)
            else []
        )
        assert len(read) in (0, 2)
        namespaces = await memory.alist_namespaces(prefix=("facts",))
        reach = await memory.asearch(("tenant b", "facts"))
        last = await memory.aget(("facts",), fact)
        assert last is not None
        return f"{everything} {last.value['fact']} {last.namespace} {namespaces} {reach}"

    script: Any = lambda m: (  # noqa: E731
        say(m[-1].text) if m[-1].type == "tool" else say("", ("remember", {"fact": m[-1].text}))
    )
    factory = AgentFactory()
    factory.register_model("script", ScriptedChatModel(script=script))
    factory.register_tool("remember", remember)
    factory.register_memory("facts", store)
    agent = factory.create_agent(template(model="script", tools=["remember"], memory="facts"))
    for tenant in ("b", "a.b", "default", "a"):
        caller = agent.with_caller(principal=Principal("ada", tenant))
        said = (await caller.execute(f"of {tenant}")).output
        assert said == f"['of {tenant}'] of {tenant} ('facts',) [('facts',)] []"


async def test_a_shared_memory_is_one_for_all(store: BaseStore) -> None:
    factory = AgentFactory()
    factory.register_memory("facts", store, shared=True)
    assert factory.registry.memories["facts"] is store
