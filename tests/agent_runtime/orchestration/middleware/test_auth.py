"""The auth layer: a principal or an exception, on every way through."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from pydantic import SecretStr

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    ApiKeys,
    AuthMiddleware,
    Budget,
    ConcurrencyLimit,
    ConfigurationError,
    Forbidden,
    LoggingMiddleware,
    MemoryLedger,
    Principal,
    Resume,
    StoreError,
    StoreUnavailable,
    Unauthenticated,
    gated,
    parse_template,
)
from agent_runtime.auth import allows
from agent_runtime.auth.key_stores import MemoryKeyStore
from agent_runtime.orchestration.middleware.base import Middleware, layer_name
from agent_runtime.testing import ScriptedChatModel, say

PEPPER = b"a-dummy-pepper-of-32-bytes-......"


class Seen(Middleware):
    def __init__(self) -> None:
        self.contexts: list[AgentContext] = []

    async def process(self, context: AgentContext, next_call: Any) -> Any:
        self.contexts.append(context)
        return await next_call(context)


def keys() -> ApiKeys:
    return ApiKeys(MemoryKeyStore(), PEPPER)


def agent(*layers: Any, name: str = "analyst") -> AgentExecutor:
    model = ScriptedChatModel(script=lambda messages: say("hi"))
    return AgentExecutor(create_agent(gated(model), []), gated=True, pipeline=layers, name=name)


async def test_a_key_in_the_context_lets_a_call_pass_and_goes_no_further() -> None:
    store = keys()
    seen = Seen()
    key, record = store.create("ada", tenant="acme", scopes=["run:analyst"])
    one = agent(AuthMiddleware(store), seen)
    for credentials in (key, SecretStr(key)):
        result = await one.execute(AgentContext("x", credentials=credentials))
        assert result.output == "hi"
    inner = seen.contexts[0]
    assert inner.credentials is None
    assert inner.principal == Principal("ada", "acme", frozenset({"run:analyst"}), record.id)


@pytest.mark.parametrize("credentials", [None, "", "x", 7, b"\xff", "art_" + "0" * 62])
async def test_without_a_good_credential_nothing_runs(credentials: Any) -> None:
    seen = Seen()
    one = agent(AuthMiddleware(keys()), seen)
    with pytest.raises(Unauthenticated):
        await one.execute(AgentContext("x", credentials=credentials))
    with pytest.raises(Unauthenticated):
        async with one.execute_stream(AgentContext("x", credentials=credentials)) as stream:
            async for _ in stream:
                pass
    with pytest.raises(Unauthenticated):
        one.with_caller(credentials=credentials).execute_sync("x")
    assert seen.contexts == []


async def test_a_layer_without_authenticators_lets_only_the_applications_principals_pass() -> None:
    one = agent(AuthMiddleware())
    with pytest.raises(Unauthenticated):
        await one.execute(AgentContext("x", credentials="anything"))
    assert (
        await one.with_caller(principal=Principal("ada", scopes=frozenset({"*"}))).execute("x")
    ).output == "hi"


async def test_the_next_authenticator_is_asked_when_one_refuses() -> None:
    first = keys()
    second = keys()
    key, _ = second.create("ada")
    assert (
        await agent(AuthMiddleware(first, second)).execute(AgentContext("x", credentials=key))
    ).output == "hi"


async def test_an_authenticator_that_cannot_know_refuses() -> None:
    class Out:
        async def authenticate(self, credentials: Any) -> Principal:
            raise StoreUnavailable("out")

    with pytest.raises(StoreError):
        await agent(AuthMiddleware(Out())).execute(AgentContext("x", credentials="x"))
    with pytest.raises(ConfigurationError):
        AuthMiddleware(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scopes", "runs", "resumes"),
    [
        ([], False, False),
        (["run:other"], False, False),
        (["run:analyst"], True, False),
        (["run:*"], True, False),
        (["*:analyst"], True, True),
        (["resume:analyst"], False, True),
        (["*"], True, True),
        (["analyst"], False, False),
        (["run"], False, False),
    ],
)
async def test_scopes(scopes: list[str], runs: bool, resumes: bool) -> None:
    one = agent(AuthMiddleware()).with_caller(principal=Principal("ada", scopes=frozenset(scopes)))
    if runs:
        assert (await one.execute("x")).output == "hi"
    else:
        with pytest.raises(Forbidden) as failed:
            await one.execute("x")
        assert failed.value.scope == "run:analyst"
    assert allows(frozenset(scopes), "resume:analyst") is resumes
    if not resumes:
        with pytest.raises(Forbidden, match="resume:analyst"):
            await one.execute(AgentContext(Resume("approve"), session_id="s"))


async def test_a_template_may_need_more() -> None:
    template = parse_template(
        "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: pay}\n"
        "spec: {model: 'offline:', runtime: {auth: {require: [finance]}}}\n"
    )
    factory = AgentFactory()
    one = factory.create_agent(template)
    with pytest.raises(Unauthenticated):  # what a template requires is never ignored
        await one.execute("x")
    with pytest.raises(Forbidden, match="finance"):
        await one.with_caller(principal=Principal("ada", scopes=frozenset({"run:*"}))).execute("x")
    allowed = one.with_caller(principal=Principal("ada", scopes=frozenset({"run:*", "finance"})))
    assert (await allowed.execute("x")).status == "completed"


async def test_a_template_that_orders_its_layers_leaves_no_guard_out() -> None:
    factory = AgentFactory(
        authenticators=[keys()],
        rate_limits=["1/hour"],
        concurrency=[ConcurrencyLimit(1)],
        ledger=MemoryLedger(),
        budgets=[Budget("global", usd=1)],
    )
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"
    for order, found in (
        ("[logging]", "logging auth rate_limit concurrency cost"),
        ("[retry, cost, logging]", "auth rate_limit concurrency retry cost logging"),
        ("[cost, auth]", "rate_limit concurrency cost auth"),
    ):
        one = factory.create_agent(
            parse_template(f"{head}spec: {{model: 'offline:', runtime: {{pipeline: {order}}}}}\n")
        )
        assert [layer_name(layer) for layer in one.pipeline] == found.split()
        with pytest.raises(Unauthenticated):
            await one.execute("x")


async def test_an_inner_agent_acts_for_the_outer_callers_principal() -> None:
    seen = Seen()
    factory = AgentFactory(authenticators=[keys()])
    factory.register_model(
        "outer", ScriptedChatModel(script=[say("", ("inner", {"request": "q"})), say("done")])
    )
    factory.register_model("inner", ScriptedChatModel(script=lambda messages: say("inner answer")))
    factory.registry.layers["seen"] = seen
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\n"
    factory.register_template(
        parse_template(
            f"{head}metadata: {{name: inner}}\nspec: {{model: inner, runtime: {{pipeline: [auth, "
            "seen]}}\n"
        )
    )
    outer = factory.create_agent(
        parse_template(
            f"{head}metadata: {{name: outer}}\nspec: {{model: outer, tools: [{{agent: inner}}]}}\n"
        )
    )
    ada = Principal("ada", "acme", frozenset({"run:outer"}))
    result = await outer.with_caller(principal=ada).execute("x")
    assert result.output == "done"
    assert [c.principal for c in seen.contexts] == [ada]


async def test_a_refused_call_is_logged_without_its_credential(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = keys()
    key, record = store.create("ada")
    store.revoke(record.id)
    one = agent(LoggingMiddleware(), AuthMiddleware(store))
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated):
        await one.execute(AgentContext("x", credentials=key))
    assert [r.outcome for r in caplog.records if r.name == "agent_runtime.calls"] == [  # type: ignore[attr-defined]
        "unauthenticated"
    ]
    assert any("revoked key" in r.getMessage() for r in caplog.records)
    assert key not in caplog.text
    assert record.id not in caplog.text


async def test_layers_around_it_hear_who_calls(caplog: pytest.LogCaptureFixture) -> None:
    store = keys()
    key, _ = store.create("ada", tenant="acme")
    with caplog.at_level(logging.INFO, "agent_runtime.calls"):
        await agent(LoggingMiddleware(), AuthMiddleware(store)).execute(
            AgentContext("x", credentials=key)
        )
    (record,) = (r for r in caplog.records if r.name == "agent_runtime.calls")
    assert (record.tenant, record.user, record.template) == ("acme", "ada", "analyst")  # type: ignore[attr-defined]
