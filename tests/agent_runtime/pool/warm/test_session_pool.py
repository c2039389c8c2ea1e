"""Warm agents: one build for all who wait, never an outdated one, never another tenant's."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from tests.support.pools import template

from agent_runtime import AgentFactory
from agent_runtime.errors import ConfigurationError, InputInvalid, McpServerFailed, TemplateError
from agent_runtime.mcp import credential_scope
from agent_runtime.pool import AgentSessionPool, SessionKey, TemplateWatch
from agent_runtime.testing import ScriptedChatModel, say

PROGRAM = str(Path(__file__).parents[3] / "support" / "mcp_server_program.py")
KEY = "acme:web:chat"

YAML = """\
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata: {name: filed}
spec:
  model: "offline:"
  system_prompt: {file: prompt.md}
"""


@pytest.fixture
def slow_builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every build takes a moment, and is noted; a name in `fails` lets builds of it fail."""
    built: list[str] = []
    original = AgentFactory.build_agent

    def build(self: AgentFactory, wanted: Any, *args: Any, **kwargs: Any) -> Any:
        built.append(wanted.metadata.name)
        time.sleep(0.05)
        if "fails" in wanted.metadata.labels:
            raise ConfigurationError("as told")
        return original(self, wanted, *args, **kwargs)

    monkeypatch.setattr(AgentFactory, "build_agent", build)
    return built


async def test_a_hundred_first_callers_build_once(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        found = await asyncio.gather(*(pool.get_or_create(KEY, "worker") for _ in range(100)))
        assert slow_builds == ["worker"]
        assert len({id(context) for context in found}) == 1
        assert (pool.stats.builds, pool.stats.misses) == (1, 100)
        assert (await found[0].agent.execute("say hi")).output == "hi"
        assert [tool.name for tool in found[0].tools][:2] == ["echo", "pid"]


async def test_a_failed_build_fails_those_who_wait_and_nobody_after(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        broken = template().model_copy(
            update={"metadata": template().metadata.model_copy(update={"labels": {"fails": ""}})}
        )
        found = await asyncio.gather(
            *(pool.get_or_create(KEY, broken) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(each, ConfigurationError) for each in found)
        assert len(slow_builds) == 1
        assert (await pool.get_or_create(KEY, "worker")).template.metadata.name == "worker"
        with pytest.raises(ConfigurationError):
            await pool.get_or_create(KEY, broken)
        assert len(slow_builds) == 3  # it was not kept: it is tried again
        assert pool.stats.failures == 2


async def test_a_caller_that_gives_up_does_not_stop_the_build(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        first = asyncio.create_task(pool.get_or_create(KEY, "worker"))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(pool.get_or_create(KEY, "worker"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).agent is not None
        assert slow_builds == ["worker"]


async def test_keys_are_apart_and_checked(make_factory: Callable[..., Any]) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        mine = await pool.get_or_create("acme:web:chat", "worker")
        theirs = await pool.get_or_create("other:web:chat", "worker")
        assert mine is not theirs
        assert mine.agent.agent is not theirs.agent.agent
        assert await pool.get_or_create(SessionKey("acme", "web", "chat"), "worker") is mine
        for wrong in ("acme", "a:b", "a:b:c:d", ":b:c", "a:b:\n"):
            with pytest.raises(InputInvalid):
                await pool.get_or_create(wrong, "worker")


async def test_time_to_live_count_memory_and_pins(make_factory: Callable[..., Any]) -> None:
    async with make_factory() as factory:
        async with AgentSessionPool(factory, max_contexts=2) as pool:
            async with pool.acquire("a:p:m", "worker") as pinned:
                for name in ("b", "c", "d"):
                    await pool.get_or_create(f"{name}:p:m", "worker")
                kept = [str(context.key) for context in pool.contexts()]
                assert kept == ["a:p:m", "d:p:m"]
                assert pool.stats.evictions == 2
                assert pinned.pins == 1
            assert pinned.size_bytes > 10_000
        async with AgentSessionPool(factory, max_memory_mb=0.001) as pool:
            for name in "abc":
                await pool.get_or_create(f"{name}:p:m", "worker")
            assert len(pool.contexts()) == 1
        async with AgentSessionPool(factory, ttl_s=0.1) as pool:
            first = await pool.get_or_create(KEY, "worker")
            await asyncio.sleep(0.3)
            assert pool.contexts() == []  # cleaned up behind
            assert await pool.get_or_create(KEY, "worker") is not first
            assert pool.stats.expired == 1


async def test_what_merely_aged_is_served_and_built_anew_behind(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory, max_age_s=0.1) as pool:
        first = await pool.get_or_create(KEY, "worker")
        await asyncio.sleep(0.15)
        began = time.monotonic()
        assert await pool.get_or_create(KEY, "worker") is first
        assert time.monotonic() - began < 0.04
        for _ in range(50):
            if pool.contexts()[0] is not first:
                break
            await asyncio.sleep(0.02)
        assert await pool.get_or_create(KEY, "worker") is not first
        assert pool.stats.refreshes >= 1


async def test_a_change_is_never_served_old(
    make_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "dummy-1")
    spec: dict[str, Any] = {"model": {"id": "scripted", "api_key": {"from_env": "SOME_KEY"}}}
    async with make_factory(spec=spec) as factory, AgentSessionPool(factory) as pool:
        first = await pool.get_or_create(KEY, "worker")
        assert await pool.get_or_create(KEY, "worker") is first
        monkeypatch.setenv("SOME_KEY", "dummy-2")
        second = await pool.get_or_create(KEY, "worker")
        assert second is not first
        factory.register_template(template(system_prompt="be brief", **spec))
        third = await pool.get_or_create(KEY, "worker")
        assert third is not second
        echo = factory.registry.tools["echo"]
        before = echo.__code__
        try:
            echo.__code__ = (lambda argument: f"changed {argument}").__code__
            fourth = await pool.get_or_create(KEY, "worker")
            assert fourth is not third
            assert (await fourth.agent.execute("echo x")).output == "it said changed x"
        finally:
            echo.__code__ = before
        assert pool.stats.outdated == 3
        assert (
            await pool.get_or_create(KEY, "worker", runtime={"limits": {"tokens": 5}}) is not fourth
        )
        assert pool.invalidate(KEY) == 1
        assert pool.invalidate(template="worker") == 0


async def test_a_templates_files_are_watched_by_their_stamps(tmp_path: Path) -> None:
    file = tmp_path / "filed.yaml"
    prompt = tmp_path / "prompt.md"
    file.write_text(YAML)
    prompt.write_text("one")
    async with AgentFactory() as factory, AgentSessionPool(factory) as pool:
        first = await pool.get_or_create(KEY, file)
        assert await pool.get_or_create(KEY, file) is first
        stat = prompt.stat()
        prompt.write_text("two")
        os.utime(prompt, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not been written
        second = await pool.get_or_create(KEY, file)
        assert second.template.spec.system_prompt == "two"
        file.touch()  # the same content: the same agent
        assert await pool.get_or_create(KEY, file) is second


async def test_mcp_servers_belong_to_a_tenants_project(make_factory: Callable[..., Any]) -> None:
    spec = {
        "tools": [{"mcp": {"command": sys.executable, "args": [PROGRAM]}, "as": "mcp"}],
        "model": "mcp",
    }
    async with make_factory(spec=spec) as factory, AgentSessionPool(factory) as pool:
        factory.register_model(
            "mcp",
            lambda **_: ScriptedChatModel(
                script=lambda m: (
                    say(str(m[-1].text)) if m[-1].type == "tool" else say("", ("mcp_pid", {}))
                )
            ),
        )
        keys = ("acme:web:chat", "acme:web:batch", "acme:shop:chat", "other:web:chat")
        found = await asyncio.gather(*(pool.get_or_create(key, "worker") for key in keys))
        pids = [(await context.agent.execute("go")).output for context in found]
        assert pids[0] == pids[1]  # one tenant's project has one server
        assert len(set(pids)) == 3
        assert found[0].mcp_servers == [sys.executable]
        bad: dict[str, Any] = {
            "tools": [{"mcp": {"command": sys.executable, "args": [PROGRAM, "broken"]}}]
        }
        with pytest.raises(McpServerFailed):
            await pool.get_or_create("bad:p:m", template(**bad))


async def test_a_folder_is_watched_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "filed.yaml"
    prompt = tmp_path / "prompt.md"
    file.write_text(YAML)
    prompt.write_text("one")
    async with (
        AgentFactory() as factory,
        TemplateWatch(factory, tmp_path, interval_s=0.05) as watch,
    ):

        async def told(kind: str, count: int) -> None:
            async with asyncio.timeout(10):
                while len(factory.event_bus.retained(kind)) < count:
                    await asyncio.sleep(0.02)

        assert factory.get_template("filed").spec.system_prompt == "one"
        agent = factory.create_from_template("filed")
        prompt.write_text("two")
        await told("template.changed", 2)
        assert factory.get_template("filed").spec.system_prompt == "two"
        assert factory.create_from_template("filed").template_digest != agent.template_digest
        file.write_text(YAML.replace("spec:", "spek:"))
        await told("template.rejected", 1)
        assert "spek" in str(watch.problems["filed.yaml"])
        assert (
            factory.get_template("filed").spec.system_prompt == "two"
        )  # the version before it serves
        file.write_text(YAML.replace("filed", "renamed"))
        await told("template.changed", 3)
        assert watch.problems == {}
        assert "filed" not in factory.list_templates()
        file.unlink()
        async with asyncio.timeout(10):
            while "renamed" in factory.list_templates():
                await asyncio.sleep(0.02)
    (tmp_path / "broken.yaml").write_text("spec: {}\n")
    with pytest.raises(TemplateError):
        async with AgentFactory() as factory, TemplateWatch(factory, tmp_path):
            pass


async def test_changes_of_what_overrides_bring_are_seen_too(
    make_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        monkeypatch.setenv("OTHER_KEY", "dummy-1")
        over: dict[str, Any] = {"model": {"id": "scripted", "api_key": {"from_env": "OTHER_KEY"}}}
        first = await pool.get_or_create(KEY, "worker", **over)
        assert await pool.get_or_create(KEY, "worker", **over) is first
        monkeypatch.setenv("OTHER_KEY", "dummy-2")
        assert await pool.get_or_create(KEY, "worker", **over) is not first
        assert first.agent.ref == {"template": "worker", "inputs": {}, "overrides": over}


class Keeper(BaseTool):
    """A tool that keeps what it found when it was made."""

    name: str = "keeper"
    description: str = "Say for whom it was made."
    made_for: str = ""

    def __init__(self) -> None:
        super().__init__(made_for=credential_scope.get())

    def _run(self, argument: str) -> str:
        return self.made_for


async def test_a_tool_that_is_made_for_each_agent_is_never_shared(
    make_factory: Callable[..., Any],
) -> None:
    async with (
        make_factory(spec={"tools": ["keeper"]}) as factory,
        AgentSessionPool(factory) as pool,
    ):
        factory.register_tool("keeper", Keeper)
        for tenant in ("acme", "other"):
            context = await pool.get_or_create(f"{tenant}:p:m", "worker")
            assert (await context.agent.execute("keeper x")).output == f"it said {tenant}:p"


async def test_an_invalidated_build_is_not_kept_and_the_next_one_is(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    async with make_factory() as factory, AgentSessionPool(factory) as pool:
        old = asyncio.create_task(pool.get_or_create(KEY, "worker"))
        await asyncio.sleep(0.02)
        pool.invalidate(template="another")
        pool.invalidate(KEY)
        new = asyncio.create_task(pool.get_or_create(KEY, "worker"))
        first = await old
        second = await new
        assert first is not second
        assert await pool.get_or_create(KEY, "worker") is second
        assert len(slow_builds) == 2


async def test_links_new_skills_and_variables_are_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prompt.md").write_text(name)
    (tmp_path / "now").symlink_to("one")
    (tmp_path / "skills" / "first").mkdir(parents=True)
    (tmp_path / "skills" / "first" / "SKILL.md").write_text(
        "---\nname: first\ndescription: It.\n---\n"
    )
    (tmp_path / "skills" / "second").mkdir()
    file = tmp_path / "t.yaml"
    text = YAML.replace("prompt.md", "now/prompt.md") + "  skills: [skills]\n"
    file.write_text(
        text.replace(
            "metadata: {name: filed}", "metadata: {name: filed, owner: '${SOME_OWNER:-nobody}'}"
        )
    )
    async with AgentFactory() as factory, AgentSessionPool(factory) as pool:
        seen = [await pool.get_or_create(KEY, file)]
        (tmp_path / "now").unlink()
        (tmp_path / "now").symlink_to("two")
        seen.append(await pool.get_or_create(KEY, file))
        assert seen[-1].template.spec.system_prompt == "two"
        (tmp_path / "skills" / "second" / "SKILL.md").write_text(
            "---\nname: second\ndescription: It.\n---\n"
        )
        seen.append(await pool.get_or_create(KEY, file))
        assert [skill.name for skill in seen[-1].template.skills] == ["first", "second"]
        monkeypatch.setenv("SOME_OWNER", "ada")
        seen.append(await pool.get_or_create(KEY, file))
        assert seen[-1].template.metadata.owner == "ada"
        assert len({id(each) for each in seen}) == 4
        assert await pool.get_or_create(KEY, file) is seen[-1]


async def test_a_watch_survives_renames_swaps_and_a_folder_that_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "prompt.md").write_text("one")
    (folder / "a.yaml").write_text(YAML.replace("filed", "first"))
    (folder / "b.yaml").write_text(YAML.replace("filed", "second"))
    async with AgentFactory() as factory, TemplateWatch(factory, folder, interval_s=0.02):

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(10):
                while not condition():
                    await asyncio.sleep(0.02)

        (folder / "copy.yaml").write_text(YAML.replace("filed", "first"))
        (folder / "a.yaml").unlink()
        (folder / "b.yaml").write_text(YAML.replace("filed", "third"))
        await until(lambda: "third" in factory.list_templates())
        assert "first" in factory.list_templates()
        assert "second" not in factory.list_templates()
        folder.rename(tmp_path / "away")
        await asyncio.sleep(0.1)
        (tmp_path / "away").rename(folder)
        late = YAML.replace("filed", "late").replace("prompt.md", "late.md")
        (folder / "late.yaml").write_text(late)
        await until(lambda: bool(factory.event_bus.retained("template.rejected")))
        (folder / "late.md").write_text("now")
        await until(lambda: "late" in factory.list_templates())


async def test_who_joined_late_gets_what_holds_now(
    make_factory: Callable[..., Any], slow_builds: list[str]
) -> None:
    """A build begins, a tool's server is unknown still, a change comes, another caller joins.

    It gets the change.
    """
    spec = {
        "tools": [
            "echo",
            {"mcp": {"command": sys.executable, "args": [PROGRAM]}, "include": ["pid"], "as": "m"},
        ]
    }
    async with make_factory(spec=spec) as factory, AgentSessionPool(factory) as pool:
        first = asyncio.create_task(pool.get_or_create(KEY, "worker"))
        await asyncio.sleep(0.2)  # the server is being opened
        echo = factory.registry.tools["echo"]
        before = echo.__code__
        try:
            echo.__code__ = (lambda argument: f"changed {argument}").__code__
            joined = await pool.get_or_create(KEY, "worker")
            assert (await joined.agent.execute("echo x")).output == "it said changed x"
            assert (
                joined.fingerprint == pool._fingerprint(joined.template, None)[0]
                or len(slow_builds) > 1
            )
            await first
        finally:
            echo.__code__ = before
