"""The factory: templates to executors, what they may name, and what is kept."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver

from agent_runtime import (
    AgentContext,
    AgentFactory,
    AgentResult,
    AgentTemplate,
    ConfigurationError,
    EventBus,
    Handler,
    InputInvalid,
    LimitExceeded,
    Middleware,
    MissingExtra,
    Registry,
    TemplateError,
    UnknownComponent,
    parse_template,
    tool_factory,
)
from agent_runtime.models.resolve import auto_model
from agent_runtime.testing import ScriptedChatModel, say

HEAD = (
    "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t, description: Helps.}\n"
)


def template(spec: str, top: str = "") -> AgentTemplate:
    return parse_template(f"{HEAD}{top}spec: {spec}\n")


@pytest.fixture
def factory() -> AgentFactory:
    made = AgentFactory()
    made.register_model("script", lambda **params: ScriptedChatModel(script=[say("scripted")]))
    return made


async def test_the_five_line_embed() -> None:
    async with AgentFactory() as factory:
        agent = factory.create_from_template("templates/analyst.yaml")
        assert "North" in (await agent.execute("Which region sells most?")).output


@pytest.mark.parametrize("name", ["analyst", "searcher", "writer"])
async def test_the_shipped_templates_run_by_name(name: str) -> None:
    agent = AgentFactory().create_from_template(name)
    result = await agent.execute("Write about what the warranty of chairs covers")
    assert result.output
    assert result.template_digest == AgentFactory().get_template(name).digest
    assert result.usage.tool_calls >= 1


async def test_the_searcher_quotes_and_the_writer_fills_its_form(tmp_path: Path) -> None:
    (tmp_path / "n.md").write_text("Bees dance to tell the way.\n")
    found = (
        await AgentFactory()
        .create_from_template("searcher", {"docs": str(tmp_path)})
        .execute("How do bees tell the way?")
    )
    assert '"Bees dance to tell the way." (n.md:1)' in found.output
    written = (
        await AgentFactory().create_from_template("writer").execute("Announce something about bees")
    )
    assert set(written.structured_response) == {"title", "text", "words", "changes"}
    assert written.output.startswith('{"title"')


async def test_a_known_template_is_compiled_once(factory: AgentFactory) -> None:
    one = template("{model: script}")
    first = factory.create_agent(one)
    second = factory.create_agent(one)
    assert first is not second
    assert first.agent is second.agent
    assert (
        factory.create_agent(template("{model: script}")).agent is first.agent
    )  # by content, not by object
    factory.register_tool("anything", lambda: None)
    assert (
        factory.create_agent(one).agent is not first.agent
    )  # a new registration may mean another tool


async def test_prompt_inputs_do_not_compile_a_graph_and_do_not_mix(factory: AgentFactory) -> None:
    seen: list[str] = []

    def script(messages: list[Any]) -> Any:
        seen.append(str(messages[0].text))
        return say("ok")

    factory.register_model("echo", ScriptedChatModel(script=script))
    one = template(
        "{model: echo, system_prompt: 'Hello {{ inputs.name }}'}",
        "inputs: {type: object, properties: {name: {type: string, default: you}}}\n",
    )
    agents = [
        factory.create_agent(one),
        factory.create_agent(one, {"name": "ada"}),
        factory.create_agent(one, {"name": "bob"}),
    ]
    assert len({id(a.agent) for a in agents}) == 1
    for agent in agents:
        await agent.execute("x")
        async with agent.execute_stream("x") as stream:
            _ = [t async for t in stream]
    assert seen == ["Hello you"] * 2 + ["Hello ada"] * 2 + ["Hello bob"] * 2


async def test_one_callers_inputs_never_reach_another(factory: AgentFactory) -> None:
    seen: list[str] = []

    def script(messages: list[Any]) -> Any:
        seen.append(str(messages[0].text))
        return say("ok")

    factory.register_model("echo", ScriptedChatModel(script=script))
    inputs = "inputs: {type: object, properties: {name: {type: string, default: nobody}}}\n"
    one = template("{model: echo, system_prompt: 'I am {{ inputs.name }}'}", inputs)
    await factory.create_agent(one, {"name": "alice"}).execute("x")
    await factory.create_agent(one).execute("x")
    assert seen == ["I am alice", "I am nobody"]
    needed = template(
        "{model: echo, system_prompt: 'Me: {{ inputs.name }}'}",
        inputs.replace(", default: nobody", ""),
    )
    factory.create_agent(needed, {"name": "bob"})
    with pytest.raises(InputInvalid, match="name"):
        factory.create_agent(needed)


async def test_tool_inputs_are_part_of_what_is_kept(tmp_path: Path) -> None:
    factory = AgentFactory()
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.csv").write_text(f"n\n{value}\n")
    agents = [
        factory.create_from_template("analyst", {"data": str(tmp_path / f"{n}.csv")})
        for n in ("a", "b", "a")
    ]
    assert agents[0].agent is agents[2].agent
    assert agents[0].agent is not agents[1].agent
    assert "is 2" in (await agents[1].execute("What is the total n?")).output


async def test_the_same_text_in_two_folders_reads_two_folders(tmp_path: Path) -> None:
    factory = AgentFactory()
    text = (
        Path("templates/analyst.yaml").read_text().replace("{file: prompts/analyst.md}", "Answer.")
    )
    answers = []
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "d.csv").write_text(f"n\n{value}\n")
        (tmp_path / name / "t.yaml").write_text(text)
        agent = factory.create_from_template(tmp_path / name / "t.yaml")
        answers.append((await agent.execute("What is the total n?")).output)
    assert ["is 1" in answers[0], "is 2" in answers[1]] == [True, True]


async def test_the_cache_is_bounded_and_follows_a_rotated_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factory = AgentFactory(max_agents=2)
    factory.register_model("script", lambda **params: ScriptedChatModel(script=[say("x")]))
    first = factory.create_agent(template("{model: script, system_prompt: a}"))
    for prompt in ("b", "c"):
        factory.create_agent(template(f"{{model: script, system_prompt: {prompt}}}"))
    assert len(factory._agents.agents()) == 2
    assert (
        factory.create_agent(template("{model: script, system_prompt: a}")).agent is not first.agent
    )
    secret = template("{model: {id: script, api_key: {from_env: ROTATED_VALUE}}}")
    with pytest.raises(ConfigurationError, match="ROTATED_VALUE is not set"):
        factory.create_agent(secret)
    monkeypatch.setenv("ROTATED_VALUE", "dummy-1")
    built = factory.create_agent(secret)
    assert factory.create_agent(secret).agent is built.agent
    monkeypatch.setenv("ROTATED_VALUE", "dummy-2")
    assert factory.create_agent(secret).agent is not built.agent


def test_a_hundred_threads_compile_once(factory: AgentFactory) -> None:
    one = template("{model: script}")
    agents = []
    threads = [
        threading.Thread(target=lambda: agents.append(factory.create_agent(one).agent))
        for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(a) for a in agents}) == 1


async def test_overrides_replace_and_deepen_the_spec(factory: AgentFactory) -> None:
    one = template("{model: 'offline:', runtime: {limits: {tokens: 5, model_calls: 9}}}")
    agent = factory.create_agent(one, model="script", runtime={"limits": {"model_calls": 1}})
    assert (await agent.execute("x")).output == "scripted"
    assert agent.template_digest != one.digest
    with pytest.raises(TemplateError, match="unknown key 'modle'"):
        factory.create_agent(one, modle="x")


async def test_limits_and_timeouts_of_the_template_hold(factory: AgentFactory) -> None:
    factory.register_model(
        "loop", ScriptedChatModel(script=lambda m: say("", ("again", {"n": len(m)})))
    )

    def again(n: int) -> str:
        """Again."""
        return "again"

    factory.register_tool("again", again)
    agent = factory.create_agent(
        template("{model: loop, tools: [again], runtime: {limits: {model_calls: 3}}}")
    )
    with pytest.raises(LimitExceeded, match="model_calls"):
        await agent.execute("x")


def test_names_that_nobody_registered_are_all_listed(factory: AgentFactory) -> None:
    spec = (
        "{model: script, tools: [csv_tob, {ref: 'a:b'}], middleware: [{use: pi}], runtime: "
        "{pipeline: [guard]}}"
    )
    with pytest.raises(TemplateError) as failed:
        factory.create_agent(template(spec))
    messages = str(failed.value)
    for part in (
        "did you mean 'csv_top'",
        "unknown tool 'a:b'",
        "unknown middleware 'pi'",
        "unknown layer 'guard'",
    ):
        assert part in messages
    assert [p.code for p in failed.value.problems][:2] == ["unknown_tool", "unknown_tool"]


async def test_python_references_need_exactly_their_entry_in_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tools.py").write_text(
        'def hello(name: str) -> str:\n    """Say hello."""\n    return f"hello {name}"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    one = template("{model: 'offline:', tools: [{ref: 'my_tools:hello'}]}")
    for allowed in ((), ("my_tools:other",), ("my_tools",)):
        with pytest.raises(TemplateError, match="my_tools:hello"):
            AgentFactory(allowed_refs=allowed).create_agent(one)
    import sys

    assert "my_tools" not in sys.modules
    agent = AgentFactory(allowed_refs={"my_tools:hello"}).create_agent(one)
    assert "hello" in (await agent.execute("say hello")).output
    with pytest.raises(ConfigurationError, match="cannot load"):
        AgentFactory(allowed_refs={"my_tools:gone"}).create_agent(
            template("{model: 'offline:', tools: [{ref: 'my_tools:gone'}]}")
        )
    with pytest.raises(ConfigurationError, match="allowed_refs"):
        AgentFactory(registry=Registry(), allowed_refs={"a:b"})


async def test_an_agent_is_a_tool_of_another(tmp_path: Path, factory: AgentFactory) -> None:
    (tmp_path / "inner.yaml").write_text(
        f"{HEAD.replace('name: t', 'name: inner')}spec: {{model: script}}\n"
    )
    (tmp_path / "outer.yaml").write_text(
        f"{HEAD}spec: {{model: outer, tools: [{{agent: ./inner.yaml, as: helper}}]}}\n"
    )
    script = [say("", ("helper", {"request": "q"})), say("done")]
    factory.register_model("outer", ScriptedChatModel(script=script))
    result = await factory.create_from_template(tmp_path / "outer.yaml").execute("x")
    assert result.messages[2].content == "scripted"
    assert result.usage.model_calls == 3
    factory.register_template(tmp_path / "inner.yaml")
    factory.register_model("outer", ScriptedChatModel(script=script))
    agent = factory.create_agent(template("{model: outer, tools: [{agent: inner, as: helper}]}"))
    assert (await agent.execute("x")).usage.model_calls == 3
    for unknown in (UnknownComponent, TemplateError):
        with pytest.raises(unknown, match="nobody"):
            broken = template("{model: outer, tools: [{agent: nobody}]}")
            factory.create_agent(broken) if unknown is UnknownComponent else factory.check_template(
                broken
            )
    factory.register_template(template("{model: outer, tools: [{agent: b}]}"), "a")
    factory.register_template(template("{model: outer, tools: [{agent: a}]}"), "b")
    with pytest.raises(ConfigurationError, match="in a circle"):
        factory.create_from_template("a")


async def test_a_registered_workflow_runs_behind_the_onion(factory: AgentFactory) -> None:
    factory.register_workflow("shout", RunnableLambda(lambda x: str(x).upper()))
    agent = factory.create_agent(template("{workflow: shout}"))
    assert (await agent.execute("hi")).output == "HI"


class Loud(Middleware):
    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        result = await next_call(context)
        return result.with_text(result.output + "!")


class Marker(AgentMiddleware):
    def __init__(self, mark: str = "m") -> None:
        super().__init__()
        self.mark = mark

    def after_model(self, state: Any, runtime: Any) -> Any:
        return {"messages": [AIMessage(f"marked {self.mark}", id="mark")]}


async def test_layers_and_langchain_middleware_are_named_where_they_belong(
    factory: AgentFactory,
) -> None:
    factory.register_middleware("loud", Loud)
    factory.register_middleware("marker", Marker)
    factory.register_middleware("ready", Marker("ready"))
    agent = factory.create_agent(
        template("{model: script, runtime: {pipeline: [logging, loud, retry]}}")
    )
    assert (await agent.execute("x")).output == "scripted!"
    agent = factory.create_agent(
        template("{model: script, middleware: [{use: marker, mark: here}]}")
    )
    result = await agent.execute("x")
    assert result.output == "marked here"
    assert (
        result.usage.model_calls == 1
    )  # counted once although an unknown middleware needs the callback route
    assert (
        await factory.create_agent(template("{model: script, middleware: [{use: ready}]}")).execute(
            "x"
        )
    ).output == "marked ready"
    for wrong in ("{use: ready, mark: x}", "{use: marker, colour: x}", "{use: pii}"):
        with pytest.raises(ConfigurationError):
            factory.create_agent(template(f"{{model: script, middleware: [{wrong}]}}"))
    with pytest.raises(ConfigurationError, match="neither"):
        factory.register_middleware("odd", object())
    bare = AgentFactory(pipeline=[Loud()])
    bare.register_model("script", ScriptedChatModel(script=[say("x")]))
    assert (await bare.create_agent(template("{model: script}")).execute("x")).output == "x!"


def test_what_langchain_refuses_to_build_is_a_configuration_error(factory: AgentFactory) -> None:
    with pytest.raises(ConfigurationError, match="remove duplicate middleware"):
        factory.create_agent(
            template("{model: script, middleware: [{use: tool_retry}, {use: tool_retry}]}")
        )


async def test_text_that_a_registered_middleware_may_rewrite_is_held_back(
    factory: AgentFactory,
) -> None:
    class Redact(AgentMiddleware):
        def after_model(self, state: Any, runtime: Any) -> Any:
            return {
                "messages": [state["messages"][-1].model_copy(update={"content": "[redacted]"})]
            }

    factory.register_middleware("redact", Redact)
    async with factory.create_agent(
        template("{model: script, middleware: [{use: redact}]}")
    ).execute_stream("x") as stream:
        assert [t async for t in stream] == ["[redacted]"]
    assert stream.text == "[redacted]"


async def test_a_rewriting_wrap_model_call_is_held_back_unless_the_application_vouches_for_it(
    factory: AgentFactory,
) -> None:
    class Shout(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            response = await handler(request)
            response.result[0].content = response.result[0].content.upper()
            return response

    class Quiet(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request)

    factory.register_model("words", ScriptedChatModel(script=[say("two words")]))
    factory.register_middleware("shout", Shout)
    factory.register_middleware("quiet", Quiet, streams_safely=True)
    expected = {"shout": ["TWO WORDS"], "quiet": ["two ", "words"]}
    for name, texts in expected.items():
        agent = factory.create_agent(template(f"{{model: words, middleware: [{{use: {name}}}]}}"))
        async with agent.execute_stream("x") as stream:
            assert [t async for t in stream] == texts
        assert stream.text == "".join(texts)


async def test_pii_in_the_answer_is_not_streamed_before_it_is_redacted(
    factory: AgentFactory,
) -> None:
    factory.register_model("leaky", ScriptedChatModel(script=[say("write to ada@example.org now")]))
    spec = "{model: leaky, middleware: [{use: pii, pii_type: email, apply_to_output: true}]}"
    async with factory.create_agent(template(spec)).execute_stream("x") as stream:
        texts = [t async for t in stream]
    assert "ada@" not in "".join(texts)
    assert "".join(texts) == stream.text == stream.result.output
    agent = factory.create_agent(template(spec))
    parts = [m.text async for m, _ in agent.astream({"messages": "x"}, stream_mode="messages")]
    assert "".join(parts) == stream.text


async def test_langchains_own_middleware_by_name(factory: AgentFactory) -> None:
    uses = [
        "{use: model_retry, max_retries: 1}",
        "{use: tool_retry}",
        "{use: tool_error}",
        "{use: model_call_limit, run_limit: 5}",
        "{use: tool_call_limit, run_limit: 5}",
        "{use: todo_list}",
        "{use: context_editing, trigger: 1000}",
        "{use: summarization, model: script, trigger: {messages: 50}, keep: {messages: 5}}",
        "{use: model_fallback, models: [script]}",
        "{use: llm_tool_selector, model: script}",
        "{use: file_search, root_path: /tmp}",
        "{use: tool_emulator, model: script}",
        "{use: provider_tool_search}",
    ]
    for use in uses:
        spec = f"{{model: script, middleware: [{use}]}}"
        assert (await factory.create_agent(template(spec)).execute("x")).output == "scripted", use


def test_middleware_that_would_pick_a_model_or_a_shell_by_itself_is_refused(
    factory: AgentFactory,
) -> None:
    with pytest.raises(ConfigurationError, match="give the model that plays the tools"):
        factory.create_agent(template("{model: script, middleware: [{use: tool_emulator}]}"))
    with pytest.raises(TemplateError, match="unknown middleware 'shell'"):
        factory.create_agent(template("{model: script, middleware: [{use: shell}]}"))


async def test_a_fallback_model_answers_when_the_first_fails(factory: AgentFactory) -> None:
    factory.register_model("broken", ScriptedChatModel(script=[say(fail=ValueError("down"))]))
    result = await factory.create_agent(
        template("{model: {id: broken, fallbacks: [script]}}")
    ).execute("x")
    assert result.output == "scripted"
    assert result.usage.model_calls == 2


async def test_structured_answers(factory: AgentFactory) -> None:
    factory.register_model("forms", ScriptedChatModel(script=[say("", ("final_answer", {"n": 5}))]))
    spec = (
        "{model: forms, response_format: {schema: {type: object, properties: {n: {type: "
        "integer}}, required: [n]}}}"
    )
    result = await factory.create_agent(template(spec)).execute("x")
    assert (result.structured_response, result.output) == ({"n": 5}, '{"n": 5}')
    assert result.to_dict()["structured_response"] == {"n": 5}


NESTED = """{model: forms, response_format: {schema: {type: object, required: [days], properties: {
  days: {type: array, items: {$ref: '#/$defs/day'}}}, $defs: {day: {type: object, required: [n],
  properties: {n: {type: integer, minimum: 1}}, additionalProperties: false}}}}}"""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, '"days" is a required property'),
        ({"days": "many"}, 'days: "many" is not of type "array"'),
        ({"days": [{"n": 1}, {"n": 0}]}, r"days\.1\.n: 0 is less than the minimum of 1"),
        ({"days": [{"n": 1, "m": 2}]}, r"days\.0: Additional properties are not allowed"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_structured_answer_that_does_not_fit_its_schema_is_asked_for_again(
    factory: AgentFactory, wrong: dict[str, Any], said: str, streamed: bool
) -> None:
    right = {"days": [{"n": 1}]}
    model = ScriptedChatModel(
        script=[say("", ("final_answer", wrong)), say("", ("final_answer", right))]
    )
    factory.register_model("forms", model)
    agent = factory.create_agent(template(NESTED))
    if streamed:
        async with agent.execute_stream("x") as stream:
            _ = [chunk async for chunk in stream]
        result = stream.result
    else:
        result = await agent.execute("x")
    assert result.structured_response == right
    assert type(result.structured_response) is dict
    assert re.search(said, str(result.messages[-3].content))


async def test_a_schema_that_points_elsewhere_is_refused(factory: AgentFactory) -> None:
    for place in ("https://example.com/s.json", "file:///etc/passwd", "other.json"):
        spec = NESTED.replace("#/$defs/day", place)
        with pytest.raises(TemplateError, match="points out of the schema"):
            factory.create_agent(template(spec))


async def test_a_checkpointer_makes_a_session_remember() -> None:
    factory = AgentFactory(checkpointer=InMemorySaver())
    factory.register_model("count", ScriptedChatModel(script=lambda m: say(str(len(m)))))
    agent = factory.create_agent(template("{model: count}"))
    assert [(await agent.execute(AgentContext("x", session_id="s"))).output for _ in range(3)] == [
        "1",
        "3",
        "5",
    ]
    assert (await agent.execute("x")).output == "1"


def test_templates_are_registered_listed_and_forgotten(
    factory: AgentFactory, tmp_path: Path
) -> None:
    assert factory.list_templates() == ["analyst", "searcher", "writer"]
    assert factory.register_template(template("{model: script}")) == "t"
    assert factory.register_template(template("{model: script}"), "other") == "other"
    assert factory.get_template("t").metadata.name == "t"
    assert len(factory.create_batch(["t", "other", template("{model: script}")])) == 3
    factory.unregister_template("t")
    with pytest.raises(UnknownComponent, match="unknown template 't'"):
        factory.create_from_template("t")
    with pytest.raises(UnknownComponent):
        factory.unregister_template("t")
    with pytest.raises(FileNotFoundError):
        factory.create_from_template(tmp_path / "missing.yaml")


def test_tools_come_as_functions_tools_classes_or_factories() -> None:
    registry = Registry()

    @tool
    def ready() -> str:
        """Ready."""
        return "x"

    class Custom(BaseTool):
        name: str = "custom"
        description: str = "Custom."
        size: int = 1

        def _run(self) -> str:
            return str(self.size)

    @tool_factory
    def make(size: int) -> BaseTool:
        return Custom(size=size)

    for name, found in {"ready": ready, "class": Custom, "made": make, "odd": 5}.items():
        registry.register(registry.tools, name, found)
    assert registry.tool("ready", {}).name == "ready"
    assert registry.tool("class", {"size": 3}).invoke({}) == "3"
    assert registry.tool("made", {"size": 4}).invoke({}) == "4"
    for name, args, message in (
        ("ready", {"a": 1}, "takes no args"),
        ("made", {"sice": 1}, "made"),
        ("odd", {}, "neither"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            registry.tool(name, args)
    with pytest.raises(UnknownComponent):
        registry.tool("nothing", {})


def test_models_are_resolved_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = AgentFactory()
    offline = factory.create_agent(template("{model: auto}"))
    assert offline.agent
    for spec, error, message in (
        ("{model: gpt-5}", UnknownComponent, "provider:name"),
        ("{model: 'nosuchprovider:x'}", ConfigurationError, "nosuchprovider"),
        ("{model: 'groq:x'}", MissingExtra, "langchain-groq"),
        (
            "{model: {id: 'openai:x', api_key: {from_env: DUMMY}}}",
            ConfigurationError,
            "DUMMY is not set",
        ),
        (
            "{model: {id: 'openai:x', api_key: {from_file: /nonexistent/key}}}",
            ConfigurationError,
            "secret file",
        ),
        ("{model: 'openai:gpt-5-mini'}", ConfigurationError, "cannot be built"),
    ):
        with pytest.raises(error, match=message):
            factory.create_agent(template(spec))
    monkeypatch.setenv("DUMMY", "dummy-key-value")
    made = factory.create_agent(
        template("{model: {id: 'openai:gpt-5-mini', api_key: {from_env: DUMMY}}}")
    )
    assert "dummy-key-value" not in repr(made.agent)


def test_a_secret_file_loses_its_last_newline(tmp_path: Path) -> None:
    from agent_runtime.models.resolve import secret_value
    from agent_runtime.template.parts_spec import SecretRef

    (tmp_path / "key").write_text("dummy-key\n")
    (tmp_path / "key").chmod(0o600)
    assert secret_value(SecretRef(from_file=str(tmp_path / "key"))) == "dummy-key"


def test_auto_takes_the_provider_whose_key_is_set() -> None:
    assert auto_model({}) == ("offline:", [])
    assert auto_model({"OPENAI_API_KEY": "dummy"})[0].startswith("openai:")
    assert auto_model({"ANTHROPIC_API_KEY": "dummy"})[0].startswith("anthropic:")
    chosen, notes = auto_model({"MISTRAL_API_KEY": "dummy"})
    assert chosen == "offline:"
    assert "pip install" in notes[0]


async def test_the_factory_shares_one_bus_and_closes_it() -> None:
    bus = EventBus()
    async with AgentFactory(event_bus=bus) as factory:
        events = bus.subscribe("tool.start")
        await factory.create_from_template("searcher").execute("warranty of chairs")
    assert [e.data.name async for e in events] == ["search_documents"]
