"""Sub-agents and skills: whole tasks handed on, chosen by their words.

Instructions read when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import AgentFactory, LimitExceeded, SessionManager, load_template
from agent_runtime.errors import ConfigurationError, TemplateError
from agent_runtime.orchestration.subagents import SubagentRouter
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say
from agent_runtime.tools.skill_reader import skill_reader

RESEARCH = {
    "name": "researcher",
    "description": "Finds facts in documents.",
    "system_prompt": "Find.",
}
MATHS = {
    "name": "calculator", "description": "Works with "
                                         "numbers.", "system_prompt": "Count.",
                                         "keywords": ["percent"],
}  # fmt: skip


def script(messages: Any) -> Any:
    system = str(messages[0].text) if messages[0].type == "system" else ""
    last = messages[-1]
    if system.startswith(("Find.", "Count.")):
        if "use echo" in str(last.text) and last.type == "human":
            return say("", ("echo", {"text": "from inside"}))
        return say(f"{system} got: {last.text}")
    if last.type == "tool":
        return say(f"answer: {last.text}")
    name, _, rest = str(last.text).partition("|")
    return say("", ("task", {"description": rest, **({"subagent_type": name} if name else {})}))


def echo(text: str) -> str:
    """Say it again."""
    return text


def made(**spec: Any) -> AgentTemplate:
    content = {
        "model": "scripted",
        "system_prompt": "Lead.",
        "tools": ["echo"],
        "subagents": [RESEARCH, MATHS],
        **spec,
    }
    return AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "lead"},
            "spec": content,
        }
    )


@pytest.fixture
def factory() -> AgentFactory:
    made_factory = AgentFactory()
    made_factory.register_model("scripted", lambda **_: ScriptedChatModel(script=script))
    made_factory.register_tool("echo", echo)
    return made_factory


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("researcher|the warranty", "answer: Find. got: the warranty"),
        (
            "|Which document has facts about lamps?",
            "answer: Find. got: Which document has facts about lamps?",
        ),
        ("|What is ten percent of it?", "answer: Count. got: What is ten percent of it?"),
        (
            "|zzz",
            "answer: no sub-agent '' fits; give subagent_type, one of: researcher, calculator",
        ),
        (
            "nobody|x",
            (
                "answer: no sub-agent 'nobody' fits; give subagent_type, one of: researcher, "
                "calculator"
            ),
        ),
    ],
)
async def test_a_task_goes_to_the_sub_agent_named_or_to_the_one_whose_words_fit(
    factory: AgentFactory, question: str, answer: str
) -> None:
    result = await factory.create_agent(made()).execute(question)
    assert result.output == answer
    assert result.usage.tool_calls == 1


async def test_what_sub_agents_use_counts_in_the_run_and_its_limits(factory: AgentFactory) -> None:
    result = await factory.create_agent(made()).execute("researcher|use echo")
    assert result.output == "answer: Find. got: from inside"
    assert (result.usage.model_calls, result.usage.tool_calls) == (4, 2)
    limited = factory.create_agent(made(runtime={"limits": {"model_calls": 2}}))
    with pytest.raises(LimitExceeded):
        await limited.execute("researcher|use echo")


async def test_only_the_leaders_words_are_streamed(factory: AgentFactory) -> None:
    async with factory.create_agent(made()).execute_stream("researcher|the warranty") as stream:
        assert "".join([text async for text in stream]) == "answer: Find. got: the warranty"


async def test_a_conversation_has_the_leaders_messages_only(factory: AgentFactory) -> None:
    async with AgentFactory(session_manager=SessionManager.from_url("memory:")) as kept:
        kept.registry.tools.update(factory.registry.tools)
        kept.registry.models.update(factory.registry.models)
        from agent_runtime import AgentContext

        agent = kept.create_agent(made())
        await agent.execute(AgentContext("researcher|one", session_id="s"))
        result = await agent.execute(AgentContext("researcher|two", session_id="s"))
        assert [str(m.text) for m in result.messages if m.type == "human"] == [
            "researcher|one",
            "researcher|two",
        ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"subagents": [RESEARCH, RESEARCH]}, "two sub-agents are called 'researcher'"),
        (
            {"subagents": [{**RESEARCH, "system_prompt": "{{ inputs.x }}"}]},
            "inputs are not filled in here",
        ),
        (
            {"workflow": "w", "model": None, "system_prompt": None, "tools": []},
            "'subagents' has no meaning beside",
        ),
    ],
)
def test_templates_are_checked(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(**spec)


def test_names_are_checked_and_what_waits_for_a_person_is_not_handed_on(
    factory: AgentFactory,
) -> None:
    with pytest.raises(TemplateError, match=r"spec.subagents.0.tools.0.use: unknown tool 'ecko'"):
        factory.create_agent(made(subagents=[{**RESEARCH, "tools": ["ecko"]}]))
    with pytest.raises(ConfigurationError, match="would use 'echo', which waits for a person"):
        factory.create_agent(made(interrupt_on={"echo": True}))
    factory.create_agent(made(interrupt_on={"echo": True}, subagents=[{**RESEARCH, "tools": []}]))
    with pytest.raises(ConfigurationError, match="two tools are called 'task'"):
        factory.register_tool("task", ScriptedTool.task)
        factory.create_agent(made(tools=["task"]))


class ScriptedTool:
    @staticmethod
    def task(text: str) -> str:
        """Clash."""
        return text


def test_rare_words_decide() -> None:
    router = SubagentRouter(
        [("a", "works with files and images", ()), ("b", "works with files and invoices", ())]
    )
    assert router.route("read the invoice files") == "b"
    assert router.route("resize this image") == "a"
    assert router.route("nothing at all") is None


TEMPLATE = """\
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata: {name: skilled}
spec:
  model: scripted
  system_prompt: Be good.
  skills: [skills]
"""
SKILL = (
    "---\nname: invoices\ndescription: How to read an invoice.\nlicense: MIT\n---\n# "
    "Invoices\nAdd up the lines.\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.yaml").write_text(TEMPLATE)
    (tmp_path / "skills" / "invoices").mkdir(parents=True)
    (tmp_path / "skills" / "invoices" / "SKILL.md").write_text(SKILL)
    (tmp_path / "skills" / "invoices" / "table.md").write_text("| a |")
    (tmp_path / "secret.md").write_text("do not read")
    return tmp_path


async def test_a_skill_is_named_in_the_prompt_and_read_when_it_is_needed(folder: Path) -> None:
    calls = iter(
        [
            ("invoices", "SKILL.md"),
            ("invoices", "table.md"),
            ("invoices", "../../secret.md"),
            ("other", "x"),
        ]
    )

    def answer(messages: Any) -> Any:
        found = next(calls, None)
        return (
            say("done")
            if found is None
            else say("", ("read_skill", {"name": found[0], "path": found[1]}))
        )

    async with AgentFactory() as factory:
        model = ScriptedChatModel(script=answer)
        factory.register_model("scripted", model)
        agent = factory.create_from_template(folder / "t.yaml")
        result = await agent.execute("go")
        told = (
            str(model.received_messages[0][0].text)
            if model.received_messages
            else str(result.messages[0].text)
        )
        tools = [str(m.text) for m in result.messages if m.type == "tool"]
        assert tools[0] == SKILL
        assert tools[1] == "| a |"
        assert "has no file '../../secret.md'; it has: SKILL.md, table.md" in tools[2]
        assert "no skill 'other'; there are: invoices" in tools[3]
        assert "- invoices: How to read an invoice." in told
        assert "Add up the lines" not in told


def test_a_changed_skill_is_another_template(folder: Path) -> None:
    before = load_template(folder / "t.yaml").digest
    (folder / "skills" / "invoices" / "SKILL.md").write_text(SKILL + "And check the date.\n")
    assert load_template(folder / "t.yaml").digest != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.write_text("# no front matter"), "it begins with '---'"),
        (lambda f: f.write_text(SKILL.replace("invoices", "Invoices")), "lowercase letters"),
        (
            lambda f: f.write_text(SKILL.replace("name: invoices", "name: other")),
            "is not that of its folder",
        ),
        (
            lambda f: f.write_text(SKILL.replace("How to read an invoice.", "x" * 1025)),
            "1 to 1024 characters",
        ),
        (lambda f: f.unlink(), "no skill in 'skills'"),
    ],
)
def test_broken_skills_are_problems_of_the_template(
    folder: Path, change: Callable[[Path], Any], said: str
) -> None:
    change(folder / "skills" / "invoices" / "SKILL.md")
    with pytest.raises(TemplateError, match=said) as raised:
        load_template(folder / "t.yaml")
    assert (raised.value.problems[0].path, raised.value.problems[0].line) == ("spec.skills.0", 7)


async def test_nothing_outside_the_templates_folder_is_read(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "SKILL.md").write_text(SKILL.replace("name: invoices", "name: evil"))
    (folder / "skills" / "evil").symlink_to(outside)
    with pytest.raises(TemplateError, match="a link leads out of the template's folder"):
        load_template(folder / "t.yaml")
    (folder / "skills" / "evil").unlink()
    reader = skill_reader(load_template(folder / "t.yaml").skills)
    for path in ("a\0b", "x" * 5000, "\udc80", "../../t.yaml", "/etc/passwd"):
        assert "has no file" in await reader.ainvoke({"name": "invoices", "path": path})


def test_agents_of_sub_agents_are_files_beside_the_template(folder: Path) -> None:
    text = (
        TEMPLATE
        + """\
  subagents:
    - {name: helper, description: Helps., system_prompt: Help., tools: [{agent: inner.yaml}]}
"""
    )
    (folder / "t.yaml").write_text(text)
    with pytest.raises(TemplateError, match="no file 'inner") as raised:
        load_template(folder / "t.yaml")
    assert raised.value.problems[0].path == "spec.subagents.0.tools.0.agent"
    (folder / "inner.yaml").write_text(TEMPLATE.replace("skilled", "inner"))
    assert load_template(folder / "t.yaml").agents["inner.yaml"].metadata.name == "inner"


async def test_steps_of_a_task_are_bounded_too(factory: AgentFactory) -> None:
    def endless(messages: Any) -> Any:
        inside = str(messages[0].text).startswith("Find.")
        return say(
            "",
            ("echo", {"text": "x"})
            if inside
            else ("task", {"description": "x", "subagent_type": "researcher"}),
        )

    model = ScriptedChatModel(script=endless)
    factory.register_model("scripted", model)
    with pytest.raises(LimitExceeded, match="max_steps"):
        await factory.create_agent(made(runtime={"limits": {"max_steps": 6}})).execute("go")
    assert model.calls < 20


def test_overridden_skills_are_read_anew(folder: Path) -> None:
    factory = AgentFactory()
    factory.register_model("scripted", lambda **_: ScriptedChatModel(script=[say("x")]))
    template = load_template(folder / "t.yaml")
    assert "read_skill" in [tool.name for tool in factory.create_agent(template).tools]
    assert [tool.name for tool in factory.create_agent(template, skills=[]).tools] == []
    with pytest.raises(TemplateError, match="no folder 'nowhere'"):
        factory.create_agent(template, skills=["nowhere"])
