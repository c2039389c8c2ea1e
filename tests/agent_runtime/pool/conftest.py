"""Pools of agents whose model is scripted, and whose tools do what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.agent_runtime.pool.tools_that_misbehave import TOOLS, script

from agent_runtime import AgentFactory
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel


def template(name: str = "worker", **spec: Any) -> AgentTemplate:
    """A template with all the tools."""
    content = {"model": "scripted", "tools": list(TOOLS), **spec}
    return AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": name},
            "spec": content,
        }
    )


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
