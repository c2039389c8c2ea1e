"""What a template of somebody else's would take from the application, and from others, and
cannot."""

from __future__ import annotations

import inspect
import os
import time
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import middleware as langchain_middleware

from agent_runtime import (
    AgentContext,
    AgentFactory,
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    ConfigurationError,
    InputInvalid,
    MemoryLedger,
    Principal,
    RateLimit,
    Resume,
    SessionManager,
    TemplateError,
    load_template,
)
from agent_runtime.errors import RateLimited
from agent_runtime.pool import TemplateWatch
from agent_runtime.registry import LANGCHAIN_MIDDLEWARE, MODEL_ARGUMENTS
from agent_runtime.template import parse_template
from agent_runtime.template.confinement import Confinement
from agent_runtime.testing import ScriptedChatModel, say

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: %s}\n"
ANN = Principal("ann", "acme", frozenset({"*"}))


def written(folder: Path, spec: str, name: str = "t") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"{HEAD % name}spec: {spec}\n")
    return path


def factory_of(**settings: Any) -> AgentFactory:
    factory = AgentFactory(**{"templates": "confined", **settings})
    factory.register_model("m", ScriptedChatModel(script=[say("hi", usage=(500, 500))]))
    return factory


def test_every_argument_that_takes_a_model_is_known() -> None:
    for name in LANGCHAIN_MIDDLEWARE.values():
        for parameter in inspect.signature(getattr(langchain_middleware, name)).parameters.values():
            if (
                "BaseChatModel" in str(parameter.annotation)
                and parameter.kind is not parameter.VAR_POSITIONAL
            ):
                assert parameter.name in MODEL_ARGUMENTS, (name, parameter.name)


async def test_a_summarizer_is_a_model_behind_the_gate(tmp_path: Path) -> None:
    use = (
        "{use: summarization, model: m, summarizer: m, trigger: {messages: 2}, keep: {messages: 1}}"
    )
    path = written(tmp_path, f"{{model: m, middleware: [{use}]}}")
    async with factory_of() as factory:
        agent = factory.create_from_template(path)
        result = await agent.execute([("user", "a"), ("assistant", "b"), ("user", "c")])
        assert result.usage.model_calls == 2
        with pytest.raises(ConfigurationError, match=r"unknown provider|nobody"):
            factory.create_from_template(
                written(
                    tmp_path,
                    f"{{model: m, middleware: [{use}]}}".replace(
                        "summarizer: m", "summarizer: 'nobody:gpt-4o'"
                    ),
                )
            )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("summarizer: {a: 1}", "name of a model"),
        ("summarizr: m", "summarizr"),
        ("summary_prompt: '{messages:>700000000}'", "no other field"),
        ("summary_prompt: '{messages!r}'", "no other field"),
        ("summary_prompt: '{messages.__class__}'", "no other field"),
        ("summary_prompt: '{0}'", "no other field"),
    ],
)
async def test_arguments_of_middleware_that_are_refused(
    tmp_path: Path, arguments: str, said: str
) -> None:
    spec = (
        "{model: m, middleware: [{use: summarization, model: m, trigger: {messages: "
        f"2}}, {arguments}}}]}}"
    )
    async with factory_of() as factory:
        with pytest.raises(ConfigurationError, match=said):
            factory.create_from_template(written(tmp_path, spec))


BUDGETS = [
    Budget("tenant", tokens=2000, per="day"),
    Budget("template", tokens=2000),
    Budget("user", tokens=2000),
]
OWN = (
    "budgets: [{scope: tenant, tokens: 1000000000, per: day, tenant: acme},"
    " {scope: template, tokens: 1000000000, only: t}, {scope: user, tokens: 1000000000, tenant: "
    "acme, user: ann}]"
)


@pytest.mark.parametrize("templates", ["confined", "trusted"])
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda each: each.scope)
async def test_a_template_s_budget_is_never_instead_of_the_application_s(
    tmp_path: Path, budget: Budget, templates: str
) -> None:
    path = written(tmp_path, f"{{model: m, runtime: {{cost: {{max_output_tokens: 100, {OWN}}}}}}}")
    async with factory_of(ledger=MemoryLedger(), budgets=[budget], templates=templates) as factory:
        agent = factory.create_from_template(path)
        with pytest.raises(BudgetExceeded):
            for _ in range(4):
                await agent.execute(AgentContext("q", principal=ANN))


async def test_of_two_budgets_of_one_account_the_smaller_counts(tmp_path: Path) -> None:
    own = "budgets: [{scope: tenant, tokens: 1500, per: day}]"
    path = written(tmp_path, f"{{model: m, runtime: {{cost: {{max_output_tokens: 100, {own}}}}}}}")
    async with factory_of(
        ledger=MemoryLedger(), budgets=[Budget("tenant", tokens=9000, per="day")]
    ) as factory:
        agent = factory.create_from_template(path)
        with pytest.raises(BudgetExceeded):
            for _ in range(3):
                await agent.execute(AgentContext("q", principal=ANN))


async def test_a_template_s_limits_use_up_nothing_of_others(tmp_path: Path) -> None:
    runtime = (
        '{rate_limits: ["5/minute", "5/minute", "5 per minute"], concurrency: {limits: '
        "[{calls: 5}, {calls: 5}]}}"
    )
    greedy = written(tmp_path, f"{{model: m, runtime: {runtime}}}", "greedy")
    plain = written(tmp_path, "{model: m}", "plain")
    limits = {"rate_limits": [RateLimit("5/minute")], "concurrency": [ConcurrencyLimit(5)]}
    async with factory_of(**limits) as factory:
        await factory.create_from_template(greedy).execute("q")
        for _ in range(4):  # five of the application's in all, of which the greedy one took one
            await factory.create_from_template(plain).execute("q")


async def test_templates_with_the_same_limits_have_each_their_own(tmp_path: Path) -> None:
    runtime = '{rate_limits: ["3/minute"]}'
    paths = [
        written(tmp_path, f"{{model: m, runtime: {runtime}}}", name) for name in ("one", "two")
    ]
    async with factory_of() as factory:
        for path in paths:
            agent = factory.create_from_template(path)
            for _ in range(3):
                await agent.execute("q")
            with pytest.raises(RateLimited):
                await agent.execute("q")


CONFINED = Confinement(commands=["python3 -m server", "npx -y files"], roots=["/usr/share"])


@pytest.mark.parametrize(
    "server",
    [
        "{command: 'python3 -m server'}",
        "{command: python3, args: ['-m server']}",
        "{command: npx -y, args: [files]}",
        "{command: python3, args: [-m, server], cwd: .}",
        "{command: python3, args: [-m, server], cwd: sub}",
    ],
)
def test_a_program_is_compared_word_by_word_and_runs_in_no_folder_of_the_author_s(
    tmp_path: Path, server: str
) -> None:
    path = written(tmp_path, f"{{model: m, tools: [{{mcp: {server}}}]}}")
    with pytest.raises(TemplateError, match=r"command|working folder"):
        factory_of(templates=CONFINED).check_template(
            factory_of(templates=CONFINED).get_template(path)
        )


def test_a_listed_program_may_run_in_a_listed_folder(tmp_path: Path) -> None:
    path = written(
        tmp_path, "{model: m, tools: [{mcp: {command: npx, args: [-y, files], cwd: /usr/share}}]}"
    )
    factory = factory_of(templates=CONFINED)
    factory.check_template(factory.get_template(path))


def test_a_confined_template_sets_no_limit_of_the_whole_account(tmp_path: Path) -> None:
    path = written(tmp_path, "{model: {id: 'openai:gpt-5-mini', limits: {max_in_flight: 1}}}")
    with pytest.raises(TemplateError, match="limits of a model"):
        factory_of().check_template(factory_of().get_template(path))


def test_a_watched_folder_reads_no_variable_that_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPANY_SECRET", "dummy-word-of-the-company")
    written(
        tmp_path, "{model: '${COMPANY_SECRET}', runtime: {timeout: {run: '${COMPANY_SECRET}'}}}"
    )
    watch = TemplateWatch(factory_of(), tmp_path)
    watch.reload()
    assert watch.problems
    assert "dummy-word" not in str(watch.problems)


def test_parsed_templates_are_confined_alike() -> None:
    text = (
        f"{HEAD % 't'}spec: {{model: {{id: 'openai:gpt-5-mini', limits: {{max_in_flight: 1}}}}}}\n"
    )
    with pytest.raises(TemplateError, match="limits of a model"):
        factory_of().create_agent(parse_template(text))


async def test_a_confined_template_of_the_same_name_is_another_agent(tmp_path: Path) -> None:
    """Its author chose the name; the pending question is of the agent that asked it."""
    own = tmp_path / "own"
    other = tmp_path / "other"
    own.mkdir()
    other.mkdir()
    ran: list[int] = []

    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    script = [say("", ("pay", {"amount": 1})), say("done")]
    async with AgentFactory(templates="confined", session_manager=SessionManager()) as factory:
        factory.register_model("m", ScriptedChatModel(script=script))
        factory.register_tool("pay", pay)
        asking = written(own, "{model: m, tools: [pay], interrupt_on: {pay: true}}", "payer")
        free = written(other, "{model: m, tools: [pay]}", "payer")
        factory.register_template(asking)
        with pytest.raises(ConfigurationError, match="name of another template"):
            factory.register_template(free)
        factory.register_template(asking)  # a new version of the same one
        first = await factory.create_from_template("payer").execute(
            AgentContext("pay", session_id="s")
        )
        assert first.status == "interrupted"
        for agent in (
            factory.create_from_template(free),
            factory.create_agent(factory.get_template(free)),
        ):
            with pytest.raises(InputInvalid, match="waits for its agent"):
                await agent.execute(AgentContext(Resume("approve"), session_id="s"))
        assert ran == []


@pytest.mark.parametrize("what", ["fifo", "zero", "large"])
@pytest.mark.parametrize("as_what", ["template", "extends", "prompt", "schema", "skill"])
def test_what_is_no_file_of_a_sane_size_is_not_read(
    tmp_path: Path, what: str, as_what: str
) -> None:
    target = tmp_path / "target.yaml"
    if what == "fifo":
        os.mkfifo(target)
    elif what == "zero":
        target.symlink_to("/dev/zero")
    else:
        with target.open("wb") as file:
            file.truncate(8 * 1024**3)  # sparse: it would take all memory
    skill = tmp_path / "skills" / "s"
    skill.mkdir(parents=True)
    if as_what == "skill":
        (skill / "SKILL.md").symlink_to(target)
    (tmp_path / "schema.json").symlink_to(target)
    spec = {
        "extends": "{model: m}",
        "prompt": "{model: m, system_prompt: {file: target.yaml}}",
        "schema": "{model: m, response_format: {schema: schema.json}}",
        "skill": "{model: m, skills: [skills]}",
        "template": "{model: m}",
    }[as_what]
    path = written(tmp_path, spec)
    if as_what == "extends":
        path.write_text(path.read_text() + "extends: [target.yaml]\n")
    began = time.process_time()
    reason = (
        "not a regular file"
        if (as_what, what) in (("template", "fifo"), ("template", "zero"))
        else None
    )
    with pytest.raises(TemplateError, match=reason):
        load_template(target if as_what == "template" else path)
    target.unlink()  # what tests leave behind is read whole, in search of secrets
    assert time.process_time() - began < 2  # read to the bound, and no further


@pytest.mark.parametrize(
    "text",
    [
        HEAD % "t" + "spec: {model: m, system_prompt: '" + "{" * 32_000 + "'}\n",
        HEAD % "t" + "spec: {model: '" + "${A:-" * 8_000 + "'}\n",
        HEAD % "t" + "spec: {model: m}\n" + "".join(f"unknown{n}: 1\n" for n in range(300)),
    ],
    ids=["braces", "variables", "unknown keys"],
)
def test_a_small_template_is_refused_soon(text: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateError) as refused:
        parse_template(text)
    assert time.process_time() - began < 2
    if "unknown299" in text:
        problems = [str(each) for each in refused.value.problems]
        assert len(problems) == 300
        assert ["known:" in each or "did you mean" in each for each in problems].count(True) == 20


def test_a_template_is_made_of_so_many_files_at_most(tmp_path: Path) -> None:
    for level in range(7):
        names = ", ".join([f"l{level + 1}.yaml"] * 4)
        (tmp_path / f"l{level}.yaml").write_text(
            f"{HEAD % 't'}spec: {{model: m}}\nextends: [{names}]\n"
        )
    (tmp_path / "l7.yaml").write_text(f"{HEAD % 't'}spec: {{model: m}}\n")
    with pytest.raises(TemplateError, match="more than 100 files"):
        load_template(tmp_path / "l0.yaml")


@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        (
            "{model: m, response_format: {schema: {type: object, properties: {a: {pattern: x}}}}}",
            "response_format",
        ),
        (
            (
                "{model: m, response_format: {schema: {$defs: {a: {}}, properties: {a: {$ref: "
                "'#/$defs/a'}}}}}"
            ),
            "response_format",
        ),
    ],
)
def test_schemas_that_unfold_are_listed(tmp_path: Path, spec: str, setting: str) -> None:
    path = written(tmp_path, spec)
    with pytest.raises(TemplateError, match=f"patterns in {setting}"):
        factory_of().check_template(load_template(path))
    allowed = factory_of(templates=Confinement(settings=[f"patterns in {setting}"]))
    allowed.check_template(load_template(path))
