"""Fixtures that tests of several folders use."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import AgentFactory
from agent_runtime.sessions import SessionManager
from agent_runtime.testing import ScriptedChatModel
from tests.support.brokers import kafka_server, nats_server
from tests.support.pools import template
from tests.support.sessions import open_manager
from tests.support.tools_that_misbehave import TOOLS, script


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the sessions of one test are kept."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sessions.db'}"
    return f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"


@pytest.fixture
async def manager(store_url: str) -> AsyncIterator[SessionManager]:
    """A manager on each of the stores in turn."""
    async with open_manager(store_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A NATS server of this test session."""
    with nats_server(tmp_path_factory.mktemp("nats")) as port:
        yield f"nats://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka broker of this test session."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as port:
        yield f"kafka://127.0.0.1:{port}?idempotent=no"


@pytest.fixture
def make_factory() -> Callable[..., AgentFactory]:
    """A factory with the scripted model, the tools and a template `worker`."""

    def make(**seats: Any) -> AgentFactory:
        spec = seats.pop("spec", {})
        factory = AgentFactory(**seats)
        factory.register_model("scripted", lambda **_: ScriptedChatModel(script=script))
        for name, tool in TOOLS.items():
            factory.register_tool(name, tool)
        factory.register_template(template(**spec))
        return factory

    return make


@pytest.fixture(params=["memory", "sqlite", "redis"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal on each of the stores in turn."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return f"{url}?prefix={tmp_path.name}"
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'batches.db'}"
