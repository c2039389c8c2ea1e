"""Random sequences of calls and changes.

The answer is always what the template, tools and secrets say now.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent_runtime import AgentFactory
from agent_runtime.pool import AgentSessionPool
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say
from agent_runtime.types import Principal

PROGRAM = str(Path(__file__).parents[2] / "support" / "mcp_server_program.py")
TENANTS = st.sampled_from(["acme", "other", "third"])
VARIABLE = "NEVER_STALE_SECRET"


def answer(messages: Any) -> Any:
    """Asks every tool once, then says the prompt and what they answered."""
    if messages[-1].type != "tool":
        return say(
            "",
            ("version", {}),
            ("s_variable", {"name": "SECRET"}),
            ("s_variable", {"name": "TENANT"}),
        )
    tools = [str(m.text) for m in messages if m.type == "tool"]
    return say("|".join([str(messages[0].text), *tools]))


def versioned(number: int) -> Any:
    """A tool whose code says which version it is."""
    names: dict[str, Any] = {}
    exec(  # noqa: S102
        f"def version() -> str:\n    '''Say it.'''\n    return 'code {number}'\n",
        names,
    )
    return names["version"]


class NeverStale(RuleBasedStateMachine):
    """The model: a prompt, a code version and a secret. The pool: whatever it kept."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.prompt = 0
        self.code = 0
        self.secret = 0
        os.environ[VARIABLE] = "dummy-secret-0"
        self.factory = AgentFactory()
        self.factory.register_model("answer", lambda **_: ScriptedChatModel(script=answer))
        self.pool = AgentSessionPool(self.factory, max_contexts=2)
        self.change_template()
        self.change_code()

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 30))

    @rule()
    def change_template(self) -> None:
        self.prompt += 1
        server = {
            "command": sys.executable,
            "args": [PROGRAM],
            "env": {"SECRET": {"from_env": VARIABLE}},
        }
        content = {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "a"},
            "spec": {
                "model": "answer",
                "system_prompt": f"prompt {self.prompt}",
                "tools": ["version", {"mcp": server, "as": "s", "include": ["variable"]}],
            },
        }
        self.factory.register_template(AgentTemplate.model_validate(content))

    @rule(in_place=st.booleans())
    def change_code(self, *, in_place: bool = False) -> None:
        self.code += 1
        known = self.factory.registry.tools.get("version")
        if in_place and known is not None:
            known.__code__ = versioned(self.code).__code__
        else:
            self.factory.register_tool("version", versioned(self.code))

    @rule()
    def rotate_secret(self) -> None:
        self.secret += 1
        os.environ[VARIABLE] = f"dummy-secret-{self.secret}"

    @rule()
    def restart_servers(self) -> None:
        for spec in self.factory.get_template("a").spec.all_tools():
            if spec.mcp is not None:
                self.run(self.factory.mcp_broker.restart(spec.mcp))

    @rule()
    def expire(self) -> None:
        self.pool._cache.ttl_s = -1.0
        self.pool.expire()
        self.pool._cache.ttl_s = 1800.0

    @rule(tenant=TENANTS)
    def cancel(self, tenant: str) -> None:
        async def give_up() -> None:
            task = asyncio.create_task(self.pool.get_or_create(f"{tenant}:p:m", "a"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.run(give_up())

    @rule(tenant=TENANTS)
    def acquire(self, tenant: str) -> None:
        context = self.run(self.pool.get_or_create(f"{tenant}:p:m", "a"))
        assert context.key.tenant == tenant
        agent = context.agent.with_caller(principal=Principal("x", tenant=tenant))
        output = self.run(agent.execute("go")).output
        expected = [f"prompt {self.prompt}", f"code {self.code}", f"dummy-secret-{self.secret}", ""]
        assert output.split("|") == expected

    @invariant()
    def contexts_are_their_keys_own(self) -> None:
        if hasattr(self, "pool"):
            agents = [context.agent.agent for context in self.pool.contexts()]
            assert len({id(each) for each in agents}) == len(agents)

    def teardown(self) -> None:
        self.run(self.pool.__aexit__())
        self.run(self.factory.__aexit__())
        self.loop.close()
        os.environ.pop(VARIABLE, None)


NeverStale.TestCase.settings = settings(
    max_examples=int(os.environ.get("NEVER_STALE_EXAMPLES", "4")),
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNeverStale = NeverStale.TestCase
