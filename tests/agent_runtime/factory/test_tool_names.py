"""An approval or a limit is for a tool by any of its names.

A name of no tool is an error, and nothing runs free.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool
from tests.support.providers import template

from agent_runtime import AgentContext, AgentFactory, SessionManager
from agent_runtime.cli import main
from agent_runtime.errors import ConfigurationError, TemplateError
from agent_runtime.registry import tool_factory
from agent_runtime.template import load_template
from agent_runtime.testing import ScriptedChatModel, say

RAN: list[str] = []


@tool
def send_mail(to: str) -> str:
    """Send a mail."""
    RAN.append(to)
    return "sent"


@tool_factory
def searcher(root: str) -> BaseTool:
    def search(query: str) -> str:
        """Search."""
        RAN.append(query)
        return root

    return StructuredTool.from_function(search, name="search_files")


def factory_of(*calls: Any) -> AgentFactory:
    factory = AgentFactory(session_manager=SessionManager())
    script = [say("", *calls), say("done")]
    factory.register_model("m", ScriptedChatModel(script=script))
    factory.register_tool("mail", send_mail)  # the model sees it as send_mail
    factory.register_tool("finder", searcher)
    RAN.clear()
    return factory


@pytest.mark.parametrize("name", ["mail", "send_mail"])
async def test_both_names_of_a_tool_ask_a_person(name: str) -> None:
    factory = factory_of(("send_mail", {"to": "a"}))
    agent = factory.create_agent(template(model="m", tools=["mail"], interrupt_on={name: True}))
    result = await agent.execute(AgentContext("go", session_id="s"))
    assert (result.status, RAN) == ("interrupted", [])
    assert (await agent.resume("s", "approve")).status == "completed"
    assert RAN == ["a"]


async def test_a_tool_that_is_made_by_arguments_asks_by_both_names_too() -> None:
    for name in ("finder", "search_files"):
        factory = factory_of(("search_files", {"query": "q"}))
        spec: dict[str, Any] = {
            "tools": [{"use": "finder", "args": {"root": "x"}}],
            "interrupt_on": {name: True},
        }
        result = await factory.create_agent(template(model="m", **spec)).execute(
            AgentContext("go", session_id="s")
        )
        assert (result.status, RAN) == ("interrupted", [])


UNKNOWN: dict[str, dict[str, Any]] = {
    "interrupt_on": {"interrupt_on": {"send_mial": True}},
    "interrupt_on, off": {"interrupt_on": {"send_mial": False}},
    "human_in_the_loop": {
        "middleware": [{"use": "human_in_the_loop", "interrupt_on": {"send_mial": True}}]
    },
    "tool_call_limit": {
        "middleware": [{"use": "tool_call_limit", "tool_name": "send_mial", "run_limit": 1}]
    },
    "tool_retry": {"middleware": [{"use": "tool_retry", "tools": ["send_mial"]}]},
    "tool_error": {"middleware": [{"use": "tool_error", "tools": ["send_mial"]}]},
    "context_editing": {"middleware": [{"use": "context_editing", "exclude_tools": ["send_mial"]}]},
}


@pytest.mark.parametrize("spec", UNKNOWN.values(), ids=UNKNOWN)
def test_a_name_of_no_tool_is_an_error_of_the_check_with_the_nearest_name(
    spec: dict[str, Any],
) -> None:
    with pytest.raises(TemplateError, match="did you mean 'send_mail'") as refused:
        factory_of().check_template(template(model="m", tools=["mail"], **spec))
    assert [problem.code for problem in refused.value.problems] == ["unknown_tool"]
    with pytest.raises(ConfigurationError, match="send_mial"):
        factory_of().create_agent(template(model="m", tools=["mail"], **spec))


async def test_limits_of_one_tool_hold_by_its_registered_name() -> None:
    for name in ("mail", "send_mail"):
        factory = factory_of(("send_mail", {"to": "a"}), ("send_mail", {"to": "b"}))
        limit = {"use": "tool_call_limit", "tool_name": name, "run_limit": 1}
        agent = factory.create_agent(template(model="m", tools=["mail"], middleware=[limit]))
        await agent.execute("go")
        assert RAN == ["a"]


def test_tools_that_middleware_brings_have_names_too() -> None:
    spec: dict[str, Any] = {
        "tools": ["mail"],
        "middleware": [{"use": "todo_list"}],
        "interrupt_on": {"write_todos": True},
    }
    factory_of().check_template(template(model="m", **spec))
    factory_of().create_agent(template(model="m", **spec))


def test_an_agent_s_tool_is_named_by_its_agent_and_by_as() -> None:
    factory = factory_of()
    factory.register_template(template("helper", model="m"))
    for tools, name in (
        ([{"agent": "helper"}], "helper"),
        ([{"agent": "helper", "as": "ask"}], "ask"),
        ([{"agent": "helper", "as": "ask"}], "helper"),
    ):
        factory.check_template(template(model="m", tools=tools, interrupt_on={name: True}))
        factory.create_agent(template(model="m", tools=tools, interrupt_on={name: True}))


async def test_the_tools_of_a_server_are_known_when_the_agent_is_made() -> None:
    program = str(Path(__file__).parents[2] / "support" / "mcp_server_program.py")
    server = {
        "mcp": {"command": sys.executable, "args": [program]},
        "as": "office",
        "include": ["echo"],
    }
    async with factory_of() as factory:
        for name in ("office_echo", "echo"):
            made = template(model="m", tools=[server], interrupt_on={name: True})
            factory.check_template(made)
            assert [each.name for each in factory.create_agent(made).tools] == ["office_echo"]
        wrong = template(model="m", tools=[server], interrupt_on={"ofice_echo": True})
        factory.check_template(wrong)  # the check opens no server
        with pytest.raises(ConfigurationError, match="did you mean 'office_echo'"):
            factory.create_agent(wrong)


def test_a_sub_agent_may_not_have_a_tool_that_asks_whatever_it_is_called() -> None:
    helper = {"name": "helper", "description": "Helps.", "system_prompt": "Help."}
    for name in ("mail", "send_mail"):
        for own in ({}, {"tools": ["mail"]}):
            spec: dict[str, Any] = {
                "tools": ["mail"],
                "interrupt_on": {name: True},
                "subagents": [{**helper, **own}],
            }
            with pytest.raises(ConfigurationError, match="waits for a person"):
                factory_of().create_agent(template(model="m", **spec))


def test_the_command_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\nspec:\n  model: "
        "'offline:'\n"
        "  tools:\n    - {use: document_search, args: {docs: docs}}\n  interrupt_on:\n    "
        "serch_documents: true\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(path)])
    assert ended.value.code == 3
    assert "t.yaml:9:" in (told := capsys.readouterr().err)
    assert "did you mean 'search_documents'" in told
    (tmp_path / "docs").mkdir()
    path.write_text(path.read_text().replace("serch_documents", "document_search"))
    AgentFactory().check_template(load_template(path))
